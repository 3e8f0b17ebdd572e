"""Label smoothing and temperature, read from how steeply the loss rises far out."""

import math

import torch
from torch import Tensor

from src.checks.context import Context
from src.checks.loss.confident_logits import LossAndGradient, sure_logits
from src.checks.report import Check, fail, finding, ok, warn

SMOOTHING_TOLERANCE = 0.02


def check_smoothing(ctx: Context, loss: LossAndGradient, also: float) -> list[Check]:
    """Smoothing and temperature of a loss with softmax. `also`: smoothing that the targets of the
    loader have already."""
    width = ctx.width
    if width < 2:
        return []
    labels = torch.arange(min(ctx.classes, 32))
    value, _ = loss(torch.zeros(len(labels), width), labels)
    z = torch.randn(len(labels), width, generator=torch.Generator().manual_seed(1))
    _, gradient = loss(z, labels)
    if gradient.sum(1).abs().max() > 1e-4 * gradient.abs().max():
        return []  # not of softmax: BCE
    size = 40.0
    wrong = loss(sure_logits(labels, width, size, right=False), labels)[0] / size
    right = loss(sure_logits(labels, width, size, right=True), labels)[0] / size
    spread = 2 * (width - 1) / width
    ratio = right / max(wrong, 1e-30)
    smoothing = 2 * ratio / (spread + ratio)
    temperature = wrong / max(value, 1e-30) * ctx.declared.even_loss(width) / (2 - smoothing)
    high = 3.5
    if width > 2 and smoothing < 0.005:
        temperature = _temperature_by_ratio(loss, labels, width)
    elif width == 2 and not ctx.declared.focal_gamma:
        # A focal loss that is not declared rises up to 8 times as steeply, by (1 - 1 / 2) ** gamma.
        high = 12.0
    found = [_judge_smoothing(ctx.declared.label_smoothing, max(smoothing, also))]
    # A hinge: no softmax, whatever its temperature, rises equally everywhere.
    return found if abs(temperature) < 1e-6 else [*found, _judge_temperature(temperature, high)]


def _judge_smoothing(declared: float | None, smoothing: float) -> Check:
    id, text = "label_smoothing", f"label smoothing {smoothing:.3f}"
    causes = ["label_smoothing_differs", "loss_scale"]
    if declared is not None and abs(smoothing - declared) > SMOOTHING_TOLERANCE:
        status, text = "fail" if smoothing > 0.5 else "warn", f"{text}, declared {declared:g}"
        return finding(status, id, smoothing, declared, text, *causes)
    if declared is None and smoothing > 0.5:
        return warn(id, smoothing, 0.5, f"{text}, very strong", causes[0])
    return ok(id, smoothing, declared, text)


def _judge_temperature(temperature: float, high: float) -> Check:
    id, text = "temperature", f"logits enter the loss times {temperature:.3g}"
    if not 1 / 12 < temperature < (12 if high < 12 else 40):
        return fail(id, temperature, 12.0, text, "temperature")
    if not 1 / 3.5 < temperature < high:
        return warn(id, temperature, high, text, "temperature")
    return ok(id, temperature, high, text)


def _temperature_by_ratio(loss: LossAndGradient, labels: Tensor, width: int) -> float:
    """Two wrong classes whose logits differ by 1 are pushed down in the ratio of their
    probabilities, e to the temperature: with focal loss, too."""
    rows, first, second = torch.arange(len(labels)), (labels + 1) % width, (labels + 2) % width
    z = torch.zeros(len(labels), width)
    z[rows, first] = 1.0
    _, gradient = loss(z, labels)
    middle = float((gradient[rows, first] / gradient[rows, second]).median())
    return math.log(middle) if middle > 0 else math.inf
