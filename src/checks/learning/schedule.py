"""The learning rate over the run, played through without training."""

import math
from contextlib import suppress
from itertools import pairwise
from typing import Any

import torch

from src.checks.context import Context
from src.checks.report import Check, fail, ok, warn
from src.checks.training_setup import TrainingSetup

RESTS = 0.01  # of the highest rate: below it nothing is learnt
REST_SHARE = 0.3  # of the steps
TURNS = 6  # ups and downs of a schedule
SIMULATED = 20_000  # steps of a schedule that are played through at most


def _rates(setup: TrainingSetup) -> list[float]:
    return [float(group["lr"]) for group in setup.optimizer.param_groups]


def simulate(setup: TrainingSetup, calls: int) -> list[list[float]]:
    """The rates of all groups before each of `calls` steps of the schedule; [] where it cannot be
    played through."""
    scheduler, rates = setup.scheduler, [_rates(setup)]
    step: Any = getattr(scheduler, "step_update", None)
    if step is None and not hasattr(scheduler, "step"):
        return []
    if isinstance(scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau):
        return []
    optimizer_step = getattr(setup.optimizer, "_opt_called", None)
    setup.optimizer._opt_called = True  # keeps torch from warning about the order
    with suppress(Exception):  # a schedule with a step of its own form, or shorter than this
        for number in range(calls - 1):
            if step is not None:
                step(number + 1)
            else:
                scheduler.step()
            rates.append(_rates(setup))
    if optimizer_step is not None:
        setup.optimizer._opt_called = optimizer_step
    return rates


def find_peak(ctx: Context) -> None:
    """The highest rate of each group over the run: tests at the start of a warm-up hide
    everything."""
    setup = ctx.fresh()
    rates = [_rates(setup)]
    if setup.scheduler is not None:
        rates += simulate(setup, min(SIMULATED, ctx.declared.total_steps or 1000))
    ctx.peak_lrs = [max(column) for column in zip(*rates, strict=False)]


def check_schedule(ctx: Context) -> list[Check]:
    """The schedule over the run, in the unit in which train_step steps it, or else per step or per
    epoch, whichever makes sense."""
    setup, total = ctx.fresh(), ctx.declared.total_steps
    if setup.scheduler is None or not total or total > SIMULATED:
        return []
    if not ctx.scheduler_calls and _stays_at_0(ctx, setup):
        text = "the rate is 0 until the schedule is stepped, and train_step never steps it"
        causes = ["schedule_never_stepped", "lr_too_low"]
        return [warn("schedule", 0.0, max(ctx.peak_lrs), text, *causes)]
    calls = {total}
    if ctx.scheduler_calls:
        calls = {max(2, round(total * ctx.scheduler_calls))}
    else:
        with suppress(TypeError):  # a loader without a length
            epoch = max(1, len(setup.train_loader) // ctx.declared.accumulate)  # type: ignore[arg-type]
            calls.add(max(2, total // epoch))
    verdicts = []
    for count in sorted(calls):
        rates = simulate(ctx.fresh(), count)
        if len(rates) < 2:
            return []
        verdicts.append(_judge([max(row) for row in rates], ctx.declared.accumulate))
    return [min(verdicts, key=lambda check: ("pass", "warn", "fail").index(check.status))]


def _stays_at_0(ctx: Context, setup: TrainingSetup) -> bool:
    """Whether all rates are exactly 0, and still are after some steps of the optimizer."""
    if max(_rates(setup)) > 0 or not any(ctx.peak_lrs) or not ctx.batches:
        return False
    for number in range(2 * ctx.declared.accumulate):
        ctx.step(setup, ctx.batch(number))
    return max(_rates(setup)) == 0


def _judge(rates: list[float], accumulate: int) -> Check:
    id, peak, short = "schedule", max(rates), "schedule_too_short"
    if min(rates) < 0 or not all(map(math.isfinite, rates)):
        text = "the rate becomes negative or no number"
        return fail(id, min(rates), 0.0, text, short, "schedule_unstable")
    if peak == 0:
        return fail(id, 0.0, None, "the rate is 0 throughout", "lr_too_low")
    resting = sum(rate < RESTS * peak for rate in rates) / len(rates)
    half, top = (
        next(i for i, rate in enumerate(rates) if rate >= share * peak) / len(rates)
        for share in (0.5, 0.98)
    )
    changes = [b - a for a, b in pairwise(rates) if abs(b - a) > 1e-6 * peak]
    turns = sum((a > 0) != (b > 0) for a, b in pairwise(changes))
    rests = f"over the run the rate is below {RESTS:.0%} of its peak for {resting:.0%} of the steps"
    if resting > REST_SHARE:
        cause = "accumulate_differs" if accumulate > 1 else "lr_too_low"
        return fail(id, resting, REST_SHARE, rests, short, cause)
    if top > 0.9 and rates[0] < 0.5 * peak:
        text = "the rate is still rising when the training ends"
        return warn(id, top, 0.9, text, "warmup_too_long", short)
    if half > 0.5:
        text = f"the rate reaches half of its peak after {half:.0%} of the steps"
        return warn(id, half, 0.5, text, "warmup_too_long", short)
    if turns > TURNS:
        text = f"the rate turns {turns} times between up and down"
        return warn(id, float(turns), float(TURNS), text, "schedule_unstable", short)
    return ok(id, resting, REST_SHARE, rests)
