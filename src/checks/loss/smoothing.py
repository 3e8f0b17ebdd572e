"""Smoothing and temperature, read from the slopes of the loss."""

import math

import torch
from torch import Tensor

from src.checks.context import Context
from src.checks.loss.confident import ValueAndGradient, sure
from src.checks.report import Check

SMOOTHING_TOLERANCE = 0.02


def check_smoothing(ctx: Context, vg: ValueAndGradient, also: float) -> list[Check]:
    """Smoothing and temperature, read from the slopes of the loss far out; for losses of softmax.
    `also`: smoothing that the targets of the loader have already."""
    width = ctx.width
    if width < 2:
        return []
    labels = torch.arange(min(ctx.classes, 32))
    value, _ = vg(torch.zeros(len(labels), width), labels)
    z = torch.randn(len(labels), width, generator=torch.Generator().manual_seed(1))
    _, gradient = vg(z, labels)
    if gradient.sum(1).abs().max() > 1e-4 * gradient.abs().max():
        return []  # not of softmax: BCE
    size = 40.0
    wrong = vg(sure(labels, width, size, right=False), labels)[0] / size
    right = vg(sure(labels, width, size, right=True), labels)[0] / size
    spread = 2 * (width - 1) / width
    ratio = right / max(wrong, 1e-30)
    smoothing = 2 * ratio / (spread + ratio)
    temperature = wrong / max(value, 1e-30) * ctx.declared.even_loss(width) / (2 - smoothing)
    high = 3.5
    if width > 2 and smoothing < 0.005:
        temperature = _temperature(vg, labels, width)
    elif width == 2 and not ctx.declared.focal_gamma:
        # A focal loss that is not declared has up to 8 times these slopes, by (1 - 1 / 2) ** gamma.
        high = 12.0
    found = []
    declared = ctx.declared.label_smoothing
    total = max(smoothing, also)
    text = f"label smoothing {total:.3f}"
    if declared is not None and abs(total - declared) > SMOOTHING_TOLERANCE:
        status = "fail" if total > 0.5 else "warn"
        text += f", declared {declared:g}"
        found.append(Check("label_smoothing", status, total, declared, text,
                           ["label_smoothing_differs", "loss_scale"]))  # fmt: skip
    elif declared is None and total > 0.5:
        found.append(Check("label_smoothing", "warn", total, 0.5, text + ", very strong",
                           ["label_smoothing_differs"]))  # fmt: skip
    else:
        found.append(Check("label_smoothing", "pass", total, declared, text))
    if abs(temperature) < 1e-6:  # a hinge: no softmax, whatever the temperature, has equal slopes
        return found
    text = f"logits enter the loss times {temperature:.3g}"
    if not 1 / 12 < temperature < (12 if high < 12 else 40):
        found.append(Check("temperature", "fail", temperature, 12.0, text, ["temperature"]))
    elif not 1 / 3.5 < temperature < high:
        found.append(Check("temperature", "warn", temperature, high, text, ["temperature"]))
    else:
        found.append(Check("temperature", "pass", temperature, high, text))
    return found


def _temperature(vg: ValueAndGradient, labels: Tensor, width: int) -> float:
    """Two wrong classes whose logits differ by 1 are pushed down in the ratio of their
    probabilities, e to the temperature: with focal loss, too."""
    rows = torch.arange(len(labels))
    z = torch.zeros(len(labels), width)
    z[rows, (labels + 1) % width] = 1.0
    _, gradient = vg(z, labels)
    ratio = gradient[rows, (labels + 1) % width] / gradient[rows, (labels + 2) % width]
    middle = float(ratio.median())
    return math.log(middle) if middle > 0 else math.inf
