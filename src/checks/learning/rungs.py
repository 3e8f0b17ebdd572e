"""The rungs that can be climbed here: one batch learnt by heart, then some more pictures.

The real step, loss and optimizer at the highest rate of the schedule; dropout is off, and what the
net gave in the step's own forward pass is judged, so that nothing else disturbs.
"""

import math

from torch import Tensor

from src.checks.context import Context
from src.checks.learning.climb import LOSS, Climb, climb, mixed_batch
from src.checks.report import Check

BATCH = 16  # pictures; 5 to 30 steps for most nets, 60 for a transformer (measured)
STEPS = 100
RETRY_STEPS = 50
RETRIES = {30.0: "lr_too_low", 0.03: "lr_too_high", 0.001: "lr_too_high", 1000.0: "lr_too_low"}
SUBSET = 64  # pictures
START = 10.0  # times log K; healthy nets start at 0.97 to 6.2 (measured)
SUBSET_ACCURACY = 0.9


def check_rungs(ctx: Context) -> list[Check]:
    """One batch, then more pictures if the budget allows."""
    setup = ctx.fresh()
    x, labels = mixed_batch(ctx, BATCH)
    steps = ctx.steps(0.25, len(x) * ctx.declared.accumulate, 20, STEPS)
    result = climb(ctx, setup, x, labels, steps)
    if not result.reached and result.finite and result.loss[-1] < 0.7 * result.loss[0]:
        # On its way: a transformer from a head of zeros takes its time.
        longer = ctx.steps(0.4, len(x) * ctx.declared.accumulate, steps, 3 * STEPS)
        result = climb(ctx, ctx.fresh(), x, labels, longer) if longer > steps else result
    ctx.curves["overfit_batch"] = {"loss": result.loss, "accuracy": result.accuracy}
    found = [_start(ctx, result), _judge_batch(ctx, result, x, labels, steps)]
    if result.reached:
        found += [] if ctx.failed else _subset(ctx)
    return found


def _start(ctx: Context, result: Climb) -> Check:
    first, even = result.loss[0], math.log(ctx.classes)
    ratio = first / even
    text = f"cross-entropy at the start {first:.3f} = {ratio:.2f} x log {ctx.classes}"
    if not math.isfinite(first):
        return Check("start_loss", "fail", None, START, text, ["bad_initialisation"])
    if ratio > START:
        causes = ["bad_initialisation", "input_not_normalised", "temperature"]
        return Check("start_loss", "warn", ratio, START, text + ", very high", causes)
    return Check("start_loss", "pass", ratio, START, text)


def _judge_batch(ctx: Context, result: Climb, x: Tensor, labels: Tensor, steps: int) -> Check:
    loss, id = result.loss[-1], "overfit_batch"
    value = loss if math.isfinite(loss) else None
    limit = LOSS * math.log(ctx.classes)
    if result.reached:
        text = f"{len(x)} pictures learnt by heart in {len(result.loss)} steps"
        return Check(id, "pass", value, limit, text)
    text = (
        f"{len(x)} pictures not learnt in {len(result.loss)} steps"
        f"{', all that the time allows' if len(result.loss) < STEPS else ''}: cross-entropy "
        f"{loss:.3f} (needs {limit:.3f}), accuracy {result.accuracy[-1]:.2f} (needs 1)"
    )
    if ctx.failed:  # the cause is known: other learning rates need not be tried
        return Check(id, "fail", value, limit, text, ["lr_too_high", "gradient_blocked"])
    tries = ctx.steps(0.1, len(x) * ctx.declared.accumulate, 20, RETRY_STEPS)
    still = result.finite and result.loss[-1] > 0.8 * result.loss[0]
    # A loss that rose was hardly for want of speed: lower rates first.
    rose = not result.finite or result.loss[-1] > result.loss[0]
    order = sorted(RETRIES, key=lambda factor: (factor > 1) == rose)
    for factor in order:
        cause = RETRIES[factor]
        other = climb(ctx, ctx.fresh(), x, labels, tries, factor)
        better = other.finite and other.loss[-1] < 0.5 * other.loss[0]
        if other.reached or (better and (still or rose)):
            text += f"; learnt at {factor:g} times the learning rate"
            slow = cause == "lr_too_low" and result.finite
            if slow and result.loss[-1] < 0.7 * result.loss[0] and factor <= 30:
                return Check(id, "warn", value, limit, text + ", and learning as it is", [cause])
            causes = [cause, "loss_scale"]
            if result.loss[0] > START * math.log(ctx.classes):
                causes.insert(0, "bad_initialisation")
            # A rate that is too low wastes time; the numbers that it gives can be trusted.
            status = "warn" if slow and factor <= 30 else "fail"
            return Check(id, status, value, limit, text, causes)
    late = result.loss[-1] < 0.6 * result.loss[0] and result.accuracy[-1] > 0.6
    if late:
        text += "; still falling when the steps were used up"
        return Check(id, "pass", value, limit, text)
    causes = ["labels_shuffled", "gradient_blocked", "bad_initialisation", "wrong_loss"]
    if ctx.train_sample is not None and _conflicts(x, labels):
        causes.insert(0, "label_conflict")
    if any(p._backward_hooks for p in ctx.fresh().model.parameters()):
        causes.insert(0, "gradient_changed")
    if ctx.clipped < 0.1:
        causes.insert(0, "gradient_clipped_away")
    return Check(id, "fail", value, limit, text + "; no other learning rate helps", causes)


def _conflicts(x: Tensor, labels: Tensor) -> bool:
    known: dict[bytes, int] = {}
    return any(
        known.setdefault(row.numpy().tobytes(), int(label)) != int(label)
        for row, label in zip(x, labels, strict=True)
    )


def _subset(ctx: Context) -> list[Check]:
    """More pictures in parts, at the same rate; how far it gets within the budget is told, and it
    counts only where the loss explodes."""
    x, labels = mixed_batch(ctx, SUBSET)
    parts = -(-len(x) // BATCH)
    epochs = ctx.steps(0.15, BATCH * parts * ctx.declared.accumulate, 2, 30)
    if len(x) <= BATCH:
        return []
    result = climb(ctx, ctx.fresh(), x, labels, epochs, part=BATCH)
    ctx.curves["fit_subset"] = {"loss": result.loss, "accuracy": result.accuracy}
    id, accuracy = "fit_subset", result.accuracy[-1]
    text = f"{accuracy:.2f} of {len(x)} training pictures right after {len(result.loss)} epochs"
    if not result.finite or result.loss[-1] > 5 * max(result.loss[0], 1e-9):
        return [Check(id, "fail", accuracy, SUBSET_ACCURACY, text + ", and the loss explodes",
                      ["lr_too_high", "label_conflict"])]  # fmt: skip
    if accuracy < SUBSET_ACCURACY and not result.reached:
        text += "; the budget ends here"
    return [Check(id, "pass", accuracy, SUBSET_ACCURACY, text)]
