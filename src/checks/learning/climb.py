"""Learning some pictures by heart with the real step, judged by what the net gave in it."""

import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from src.checks.context import Context, forward, logits_of, predict
from src.checks.setup import TrainingSetup

LOSS = 0.4  # of log K, above what smoothing leaves


@dataclass
class Climb:
    """Loss and accuracy of each step, and whether the top was reached."""

    loss: list[float] = field(default_factory=list)
    accuracy: list[float] = field(default_factory=list)
    reached: bool = False

    @property
    def finite(self) -> bool:
        return all(map(math.isfinite, self.loss))


def without_dropout(model: nn.Module) -> None:
    """Switch off what works against learning by heart."""
    for layer in model.modules():
        if isinstance(layer, nn.modules.dropout._DropoutNd):
            layer.p = 0.0
        if hasattr(layer, "drop_prob") and isinstance(layer.drop_prob, float):
            layer.drop_prob = 0.0  # type: ignore[assignment]  # timm's DropPath


def mixed_batch(ctx: Context, count: int) -> tuple[Tensor, Tensor]:
    """Training items of as many classes as there are, in turn: (inputs, labels)."""
    sample = ctx.train_sample
    assert sample is not None
    order: list[int] = []
    rows = {int(c): torch.where(sample.y == c)[0].tolist() for c in sample.y.unique()}
    while len(order) < min(count, len(sample)):
        for left in rows.values():
            if left and len(order) < count:
                order.append(left.pop(0))
    return sample.x[order], sample.y[order]


@contextmanager
def at_rates(optimizer: Any, rates: Sequence[float]) -> Iterator[None]:
    """The optimizer's groups take steps at these learning rates, whatever the schedule says."""
    step = optimizer.step

    def at_peak(*arguments: Any, **more: Any) -> Any:
        kept = [group["lr"] for group in optimizer.param_groups]
        for group, rate in zip(optimizer.param_groups, rates, strict=False):
            group["lr"] = rate
        try:
            return step(*arguments, **more)
        finally:
            for group, rate in zip(optimizer.param_groups, kept, strict=True):
                group["lr"] = rate

    optimizer.step = at_peak
    try:
        yield
    finally:
        optimizer.step = step


def climb(
    ctx: Context, setup: TrainingSetup, x: Tensor, labels: Tensor, steps: int, factor: float = 1.0,
    part: int | None = None,
) -> Climb:  # fmt: skip
    """Train on (x, labels), in parts of `part`, until every label is right and the loss is low."""
    without_dropout(setup.model)
    result = Climb()
    part = part or len(x)
    seen: list[Tensor] = []

    def note(_: nn.Module, __: Any, output: Any) -> None:
        if torch.is_grad_enabled():
            seen.append(logits_of(output).detach().float().cpu())

    handle = setup.model.register_forward_hook(note)
    rates = [rate * factor for rate in ctx.peak_lrs]
    smoothing = ctx.declared.label_smoothing or 0.0
    own = 1 - smoothing + smoothing / ctx.classes
    limit = LOSS * math.log(ctx.classes) - math.log(own)
    with at_rates(setup.optimizer, rates), ExitStack() as stack:
        stack.callback(handle.remove)
        for _ in range(steps):
            hits = cost = 0.0
            for start in range(0, len(x), part):
                xs, ys = x[start : start + part], labels[start : start + part]
                for _ in range(ctx.declared.accumulate):
                    seen.clear()
                    ctx.step(setup, (xs, ctx.target(ys, torch.zeros(1, ctx.width))))
                logits = torch.cat(seen)[: len(ys)] if seen else None
                if ctx.inputs_change or logits is None or len(logits) != len(ys):
                    logits = forward(setup.model, xs, train=True).cpu()
                hits += float((predict(logits) == ys).sum())
                cost += float(_loss(logits, ys)) * len(ys)
            result.loss.append(cost / len(x))
            result.accuracy.append(hits / len(x))
            if not math.isfinite(cost):
                break
            if hits == len(x) and cost / len(x) < limit:
                result.reached = True
                break
    return result


def _loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy, whatever the net is trained with: a yardstick that the set-up cannot move."""
    if logits.shape[1] == 1:
        return nn.functional.binary_cross_entropy_with_logits(logits[:, 0], labels.float())
    return nn.functional.cross_entropy(logits, labels)
