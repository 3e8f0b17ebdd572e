"""Accuracy and loss, counted by hand."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from src.checks.context import Context, device_of, labels_of, predict
from src.checks.report import Check
from src.checks.setup import TrainingSetup

ACCURACY_OFF = 1e-4
LOSS_OFF = 1e-3  # relative


def compare(
    ctx: Context, setup: TrainingSetup, parts: list[tuple[Tensor, Any]], told: dict[str, float]
) -> list[Check]:
    sizes = [len(labels_of(y)) for _, y in parts]
    hits = [float((predict(logits) == labels_of(y)).sum()) for logits, y in parts]
    accuracy = sum(hits) / sum(sizes)
    of_means = sum(h / n for h, n in zip(hits, sizes, strict=True)) / len(sizes)
    found: list[Check] = []
    got = told.get("accuracy")
    if got is None:
        return [
            Check("eval_metric", "fail", None, None, "evaluate gives no accuracy", ["interface"])
        ]
    if accuracy > 0 and got > 1.5 and math.isclose(got, 100 * accuracy, rel_tol=1e-3):
        text = f"evaluate says accuracy {got:.4g}, a share of {accuracy:.4f} in percent"
        found.append(Check("eval_metric", "warn", got, accuracy, text, ["eval_metric_wrong"]))
        got /= 100
    text = f"evaluate says accuracy {got:.4f}, recounted {accuracy:.4f}"
    if abs(got - accuracy) > ACCURACY_OFF:
        causes = ["eval_metric_wrong", "eval_of_other_weights", "eval_ignores_loader"]
        if abs(got - of_means) < ACCURACY_OFF:
            causes = ["eval_mean_of_batch_means", "eval_metric_wrong"]
        elif any(abs(got - sum(hits[:n]) / sum(sizes[:n])) < ACCURACY_OFF or
                 abs(got - sum(hits[:n]) / sum(sizes)) < ACCURACY_OFF for n in (1, 2)):  # fmt: skip
            causes = ["eval_incomplete", "eval_metric_wrong"]
        found.append(Check("eval_metric", "fail", got, accuracy, text, causes))
    loss = told.get("loss")
    if loss is None or any(check.status == "fail" for check in found):
        return found or [Check("eval_metric", "pass", got, accuracy, text)]
    exact, means, single = _losses(ctx, setup, parts, sizes)
    if not any(math.isclose(loss, value, rel_tol=LOSS_OFF, abs_tol=1e-6) for value in exact):
        near = min(exact, key=lambda value: abs(value - loss))
        text = f"evaluate says loss {loss:.4f}, recounted {near:.4f}"
        causes = ["eval_metric_wrong", "eval_mean_of_batch_means"]
        if any(math.isclose(loss, value, rel_tol=LOSS_OFF) for value in means):
            causes.reverse()
        elif any(math.isclose(loss, value, rel_tol=LOSS_OFF) for value in single):
            causes = ["eval_incomplete", "eval_metric_wrong"]
        found.append(Check("eval_loss", "warn", loss, near, text, causes))
    return found or [Check("eval_metric", "pass", got, accuracy, text)]


def _losses(
    ctx: Context, setup: TrainingSetup, parts: list[tuple[Tensor, Any]], sizes: list[int]
) -> tuple[list[float], list[float], list[float]]:
    """What may be called the loss of all: of the set-up's loss or plain cross-entropy, weighted by
    batch size or taken at once; and the means over batches and single batches, which are not."""
    device = device_of(setup.model)
    losses: list[Callable[[Tensor, Any], Tensor]] = [setup.loss_fn]
    if ctx.width > 1:
        losses.append(lambda z, y: nn.functional.cross_entropy(z, labels_of(y).to(device)))
    exact, means, single = [], [], []
    everything = torch.cat([logits for logits, _ in parts]).to(device)
    targets = torch.cat([torch.as_tensor(y) for _, y in parts]).to(device)
    for loss_fn in losses:
        try:
            values = [float(torch.as_tensor(loss_fn(z.to(device), y.to(device))).mean())
                      for z, y in parts]  # fmt: skip
            whole = float(torch.as_tensor(loss_fn(everything, targets)).mean())
        except Exception:  # the loss takes other targets in training: shares
            continue
        exact += [sum(v * n for v, n in zip(values, sizes, strict=True)) / sum(sizes), whole]
        exact.append(sum(values) / sum(sizes))  # of a sum
        means.append(sum(values) / len(values))
        single += values
    return exact or [math.nan], means, single
