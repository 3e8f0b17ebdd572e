"""The loss at the start, then learning by heart: one batch, more samples, the same at other rates.

The real step, loss and optimizer at the highest rate of the schedule; dropout is off, and what the
net gave in the step's own forward pass is judged, so that nothing else disturbs.
"""

import itertools
import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd

from src.checks.context import Context
from src.checks.reading import counted, logits_of, predict, rows_as_bytes
from src.checks.report import Check, fail, finding, ok, warn
from src.checks.temporary import at_rates, forward
from src.checks.training_setup import TrainingSetup

LOSS = 0.4  # of log K, above what smoothing leaves
BATCH = 16  # samples; 5 to 30 steps for most nets, 60 for a transformer (measured)
STEPS = 100
RETRY_STEPS = 50
RETRIES = {30.0: "lr_too_low", 0.03: "lr_too_high", 0.001: "lr_too_high", 1000.0: "lr_too_low"}
SUBSET = 64  # samples
START = 10.0  # times log K; healthy nets start at 0.97 to 6.2 (measured)
SUBSET_ACCURACY = 0.9
RATE_STEPS = 12  # at each rate
SLOW = 0.98  # of the loss at the start, after RATE_STEPS steps


@dataclass
class LearningCurve:
    """Loss and accuracy of each step, and whether every label was right at a low loss."""

    loss: list[float] = field(default_factory=list)
    accuracy: list[float] = field(default_factory=list)
    reached: bool = False

    @property
    def finite(self) -> bool:
        return all(map(math.isfinite, self.loss))

    def below(self, share: float) -> bool:
        """Whether the last loss is less than a share of the first."""
        return self.loss[-1] < share * self.loss[0]


def balanced_batch(ctx: Context, count: int) -> tuple[Tensor, Tensor]:
    """Training items of as many classes as there are, in turn: (inputs, labels)."""
    sample = ctx.sample
    rows = [torch.where(sample.y == label)[0].tolist() for label in sample.y.unique()]
    in_turn = itertools.chain.from_iterable(itertools.zip_longest(*rows))
    order = [row for row in in_turn if row is not None][:count]
    return sample.x[order], sample.y[order]


def overfit(
    ctx: Context, x: Tensor, labels: Tensor, steps: int, factor: float = 1.0, part: int = SUBSET
) -> LearningCurve:
    """Train a fresh set-up on (x, labels), in parts of `part` items, at `factor` times the peak
    learning rates, until every label is right and the loss is low."""
    setup, curve = ctx.fresh(), LearningCurve()
    for layer in setup.model.modules():  # what works against learning by heart
        if isinstance(layer, _DropoutNd):
            layer.p = 0.0
        if hasattr(layer, "drop_prob") and isinstance(layer.drop_prob, float):
            layer.drop_prob = 0.0  # type: ignore[assignment]  # timm's DropPath
    given: list[Tensor] = []

    def keep(_: nn.Module, __: Any, output: Any) -> None:
        if torch.is_grad_enabled():
            given.append(logits_of(output).detach().float().cpu())

    smoothing = ctx.declared.label_smoothing or 0.0
    own = 1 - smoothing + smoothing / ctx.classes
    limit = LOSS * math.log(ctx.classes) - math.log(own)
    rates = at_rates(setup.optimizer, [rate * factor for rate in ctx.peak_lrs])
    with rates, setup.model.register_forward_hook(keep):
        for _ in range(steps):
            hits = cost = 0.0
            for start in range(0, len(x), part):
                xs, ys = x[start : start + part], labels[start : start + part]
                logits = _logits_of_step(ctx, setup, xs, ys, given)
                hits += float((predict(logits) == ys).sum())
                cost += float(_cross_entropy(logits, ys)) * len(ys)
            curve.loss.append(cost / len(x))
            curve.accuracy.append(hits / len(x))
            curve.reached = hits == len(x) and cost / len(x) < limit
            if curve.reached or not math.isfinite(cost):
                break
    return curve


def _logits_of_step(
    ctx: Context, setup: TrainingSetup, x: Tensor, labels: Tensor, given: list[Tensor]
) -> Tensor:
    """A step of the optimizer; what the net gave in it, or gives after it where that are not the
    logits of `x`. `given`: the list that the net's outputs are added to."""
    for _ in range(ctx.declared.accumulate):
        given.clear()
        ctx.step(setup, (x, ctx.target(labels, torch.zeros(1, ctx.width))))
    logits = torch.cat(given)[: len(labels)] if given else None
    if ctx.declared.mixup or logits is None or len(logits) != len(labels):
        return forward(setup.model, x, train=True).cpu()
    return logits


def _cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Whatever the net is trained with: a yardstick that the set-up cannot move."""
    if logits.shape[1] == 1:
        return nn.functional.binary_cross_entropy_with_logits(logits[:, 0], labels.float())
    return nn.functional.cross_entropy(logits, labels)


def check_overfit(ctx: Context) -> list[Check]:
    """One batch, then more samples if the budget allows."""
    x, labels = balanced_batch(ctx, BATCH)
    items = len(x) * ctx.declared.accumulate
    steps = ctx.steps(0.25, items, 20, STEPS)
    curve = overfit(ctx, x, labels, steps)
    if not curve.reached and curve.finite and curve.below(0.7):
        # On its way: a transformer from a head of zeros takes its time.
        longer = ctx.steps(0.4, items, steps, 3 * STEPS)
        curve = overfit(ctx, x, labels, longer) if longer > steps else curve
    ctx.curves["overfit_batch"] = {"loss": curve.loss, "accuracy": curve.accuracy}
    found = [_start(ctx, curve), _judge_batch(ctx, curve, x, labels)]
    return [*found, *(_subset(ctx) if curve.reached and not ctx.failed else [])]


def _start(ctx: Context, curve: LearningCurve) -> Check:
    id, first = "start_loss", curve.loss[0]
    ratio = first / math.log(ctx.classes)
    text = f"cross-entropy at the start {first:.3f} = {ratio:.2f} x log {ctx.classes}"
    if not math.isfinite(first):
        return fail(id, None, START, text, "bad_initialisation")
    if ratio > START:
        causes = ["bad_initialisation", "input_not_normalised", "temperature"]
        return warn(id, ratio, START, f"{text}, very high", *causes)
    return ok(id, ratio, START, text)


def _judge_batch(ctx: Context, curve: LearningCurve, x: Tensor, labels: Tensor) -> Check:
    loss, id, limit = curve.loss[-1], "overfit_batch", LOSS * math.log(ctx.classes)
    value = loss if math.isfinite(loss) else None
    if curve.reached:
        text = f"{len(x)} images learnt by heart in {counted(len(curve.loss), 'step')}"
        return ok(id, value, limit, text)
    text = (
        f"{len(x)} images not learnt in {counted(len(curve.loss), 'step')}"
        f"{', all that the time allows' if len(curve.loss) < STEPS else ''}: cross-entropy "
        f"{loss:.3f} (needs {limit:.3f}), accuracy {curve.accuracy[-1]:.2f} (needs 1)"
    )
    if ctx.failed:  # the cause is known: other learning rates need not be tried
        return fail(id, value, limit, text, "lr_too_high", "gradient_blocked")
    factor = _better_rate(ctx, curve, x, labels)
    if factor is not None:
        text += f"; learnt at {factor:g} times the learning rate"
        # A rate that is too low wastes time; the numbers that it gives can be trusted.
        slow = RETRIES[factor] == "lr_too_low" and curve.finite and factor <= 30
        if slow and curve.below(0.7):
            return warn(id, value, limit, f"{text}, and learning as it is", RETRIES[factor])
        causes = [RETRIES[factor], "loss_scale"]
        if curve.loss[0] > START * math.log(ctx.classes):
            causes.insert(0, "bad_initialisation")
        return finding("warn" if slow else "fail", id, value, limit, text, *causes)
    if curve.below(0.6) and curve.accuracy[-1] > 0.6:
        return ok(id, value, limit, f"{text}; still falling when the steps were used up")
    causes = ["labels_shuffled", "gradient_blocked", "bad_initialisation", "wrong_loss"]
    labelled = set(zip(rows_as_bytes(x), labels.tolist(), strict=True))
    if len({row for row, _ in labelled}) < len(labelled):
        causes.insert(0, "label_conflict")
    if any(p._backward_hooks for p in ctx.fresh().model.parameters()):
        causes.insert(0, "gradient_changed")
    if ctx.clipped < 0.1:
        causes.insert(0, "gradient_clipped_away")
    return fail(id, value, limit, f"{text}; no other learning rate helps", *causes)


def _better_rate(ctx: Context, curve: LearningCurve, x: Tensor, labels: Tensor) -> float | None:
    """The factor on the learning rate, of RETRIES, at which the batch is learnt."""
    tries = ctx.steps(0.1, len(x) * ctx.declared.accumulate, 20, RETRY_STEPS)
    still = curve.finite and curve.loss[-1] > 0.8 * curve.loss[0]
    # A loss that rose was hardly for want of speed: lower rates first.
    rose = not curve.finite or curve.loss[-1] > curve.loss[0]
    for factor in sorted(RETRIES, key=lambda factor: (factor > 1) == rose):
        other = overfit(ctx, x, labels, tries, factor)
        if other.reached or (other.finite and other.below(0.5) and (still or rose)):
            return factor
    return None


def _subset(ctx: Context) -> list[Check]:
    """More samples in parts, at the same rate; how far it gets within the budget is reported, and
    it counts only where the loss explodes."""
    x, labels = balanced_batch(ctx, SUBSET)
    parts = -(-len(x) // BATCH)
    epochs = ctx.steps(0.15, BATCH * parts * ctx.declared.accumulate, 2, 30)
    if len(x) <= BATCH:
        return []
    curve = overfit(ctx, x, labels, epochs, part=BATCH)
    ctx.curves["fit_subset"] = {"loss": curve.loss, "accuracy": curve.accuracy}
    id, accuracy = "fit_subset", curve.accuracy[-1]
    epochs_run = counted(len(curve.loss), "epoch")
    text = f"{accuracy:.2f} of {len(x)} training images right after {epochs_run}"
    if not curve.finite or curve.loss[-1] > 5 * max(curve.loss[0], 1e-9):
        text, causes = f"{text}, and the loss explodes", ["lr_too_high", "label_conflict"]
        return [fail(id, accuracy, SUBSET_ACCURACY, text, *causes)]
    if accuracy < SUBSET_ACCURACY and not curve.reached:
        text += "; the budget ends here"
    return [ok(id, accuracy, SUBSET_ACCURACY, text)]


def check_rate(ctx: Context) -> list[Check]:
    """A few steps on one batch at the chosen rate; where that explodes or stands still, at a tenth
    or a hundred times of it."""
    x, labels = balanced_batch(ctx, BATCH)
    steps = ctx.steps(0.04, len(x) * ctx.declared.accumulate, 5, RATE_STEPS)

    def end(factor: float) -> float:
        curve = overfit(ctx, x, labels, steps, factor)
        last = min(curve.loss[-3:]) if curve.finite else math.inf
        return last / curve.loss[0] if curve.loss[0] > 0 else 1.0

    id, own = "lr_range", end(1.0)
    text = f"{steps} steps on one batch bring cross-entropy to {own:.2f} of the start"
    if not own < 1.5 and (lower := end(0.1)) < 0.9:
        text += f", at a tenth of the learning rate to {lower:.2f}"
        return [warn(id, own, 1.5, text, "lr_too_high")]
    if own > SLOW and (higher := end(100.0)) < 0.8:
        text += f", at a hundred times the learning rate to {higher:.2f}"
        return [warn(id, own, SLOW, text, "lr_too_low")]
    return [ok(id, own, 1.5, text)]
