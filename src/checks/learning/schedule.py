"""The learning rate over the run, played through without training."""

import math
from itertools import pairwise
from typing import Any

import torch

from src.checks.context import Context
from src.checks.report import Check
from src.checks.setup import TrainingSetup

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
    try:
        for number in range(calls - 1):
            if step is not None:
                step(number + 1)
            else:
                scheduler.step()
            rates.append(_rates(setup))
    except Exception:  # a schedule with a step of its own form, or shorter than this
        pass
    if optimizer_step is not None:
        setup.optimizer._opt_called = optimizer_step
    return rates


def find_peak(ctx: Context) -> None:
    """The highest rate of each group over the run: tests at the start of a warm-up hide
    everything."""
    setup = ctx.fresh()
    total = min(SIMULATED, ctx.declared.total_steps or 1000)
    rates = [_rates(setup)]
    if setup.scheduler is not None:
        rates += simulate(setup, total)
    ctx.peak_lrs = [max(column) for column in zip(*rates, strict=False)]


def check_schedule(ctx: Context) -> list[Check]:
    """The schedule over the run, in the unit in which train_step steps it, or else per step or per
    epoch, whichever makes sense."""
    setup = ctx.fresh()
    total = ctx.declared.total_steps
    id = "schedule"
    if setup.scheduler is None or not total or total > SIMULATED:
        return []
    accumulate = ctx.declared.accumulate
    calls = {total}
    if not ctx.scheduler_calls and _stands_still(ctx, setup):
        text = "the rate is 0 until the schedule is stepped, and train_step never steps it"
        causes = ["schedule_never_stepped", "lr_too_low"]
        return [Check(id, "warn", 0.0, max(ctx.peak_lrs), text, causes)]
    if ctx.scheduler_calls:
        calls = {max(2, round(total * ctx.scheduler_calls))}
    else:
        try:
            epoch = max(1, len(setup.train_loader) // accumulate)  # type: ignore[arg-type]
            calls.add(max(2, total // epoch))
        except TypeError:
            pass
    verdicts = []
    for count in sorted(calls):
        rates = simulate(ctx.fresh(), count)
        if len(rates) < 2:
            return []
        verdicts.append(_judge_schedule(id, [max(row) for row in rates], accumulate, ctx))
    order = {"pass": 0, "warn": 1, "fail": 2}
    return [min(verdicts, key=lambda check: order[check.status])]


def _stands_still(ctx: Context, setup: TrainingSetup) -> bool:
    """Whether all rates are exactly 0, and still are after some steps of the optimizer."""
    if max(_rates(setup)) > 0 or not any(ctx.peak_lrs) or not ctx.batches:
        return False
    for number in range(2 * ctx.declared.accumulate):
        ctx.step(setup, ctx.batches[number % len(ctx.batches)])
    return max(_rates(setup)) == 0


def _judge_schedule(id: str, rates: list[float], accumulate: int, ctx: Context) -> Check:
    peak = max(rates)
    if min(rates) < 0 or not all(map(math.isfinite, rates)):
        return Check(id, "fail", min(rates), 0.0, "the rate becomes negative or no number",
                     ["schedule_too_short", "schedule_unstable"])  # fmt: skip
    if peak == 0:
        return Check(id, "fail", 0.0, None, "the rate is 0 throughout", ["lr_too_low"])
    resting = sum(rate < RESTS * peak for rate in rates) / len(rates)
    reached = next(i for i, rate in enumerate(rates) if rate >= 0.5 * peak) / len(rates)
    changes = [b - a for a, b in pairwise(rates) if abs(b - a) > 1e-6 * peak]
    turns = sum((a > 0) != (b > 0) for a, b in pairwise(changes))
    text = f"over the run the rate is below {RESTS:.0%} of its peak for {resting:.0%} of the steps"
    causes = ["schedule_too_short", "accumulate_differs" if accumulate > 1 else "lr_too_low"]
    if resting > REST_SHARE:
        return Check(id, "fail", resting, REST_SHARE, text, causes)
    late = next(i for i, rate in enumerate(rates) if rate >= 0.98 * peak) / len(rates)
    if late > 0.9 and rates[0] < 0.5 * peak:
        text = "the rate is still rising when the training ends"
        return Check(id, "warn", late, 0.9, text, ["warmup_too_long", "schedule_too_short"])
    if reached > 0.5:
        text = f"the rate reaches half of its peak after {reached:.0%} of the steps"
        return Check(id, "warn", reached, 0.5, text, ["warmup_too_long", "schedule_too_short"])
    if turns > TURNS:
        text = f"the rate turns {turns} times between up and down"
        return Check(id, "warn", float(turns), float(TURNS), text,
                     ["schedule_unstable", "schedule_too_short"])  # fmt: skip
    return Check(id, "pass", resting, REST_SHARE, text)
