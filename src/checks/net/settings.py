"""What can be read without training: optimizer, freezing, settings of layers, learning rates."""

import math
from collections.abc import Iterator
from contextlib import suppress
from itertools import pairwise
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from src.checks.context import Context
from src.checks.reading import counted, held_by, named
from src.checks.report import Check, above, cannot_tell, fail, finding, ok, warn
from src.checks.training_setup import TrainingSetup

DECAY_FAIL, DECAY_WARN = 2e-2, 2e-3  # lr x weight_decay: what a step takes off each weight
LARGE = 15.0  # times 1 / sqrt(fan in); usual initialisations lie below 2 (by formula)
RESTS = 0.01  # of the highest rate: below it nothing is learnt
REST_SHARE = 0.3  # of the steps
TURNS = 6  # ups and downs of a schedule
SIMULATED = 20_000  # steps of a schedule that are played through at most


def check_optimizer(ctx: Context) -> list[Check]:
    """All that learns is in the optimizer, and nothing rests that was not declared."""
    setup = ctx.fresh()
    found = [_held(ctx, setup)]
    steered = getattr(setup.scheduler, "optimizer", setup.optimizer)
    if steered is not setup.optimizer and hasattr(steered, "param_groups"):
        text = "the schedule steers another optimizer"
        found.append(fail("schedule", 1.0, 0.0, text, "optimizer_of_other_model"))
    found.append(_frozen(ctx, setup))
    settings = {(check.id, check.message): check for check in _optimizer_settings(setup, ctx)}
    fine = ok("optimizer_settings", None, None, "usual optimizer settings")
    return [*found, *(settings.values() or [fine])]


def _held(ctx: Context, setup: TrainingSetup) -> Check:
    id, held = "optimizer_params", held_by(setup.optimizer)
    learns = {n: p for n, p in setup.model.named_parameters() if p.requires_grad}
    missing = [name for name, p in learns.items() if p not in held]
    if learns and len(missing) == len(learns):
        text = "the optimizer holds no parameter of the net"
        causes = ["optimizer_of_other_model", "parameter_not_in_optimizer"]
        return fail(id, float(len(missing)), 0.0, text, *causes)
    if missing and not all(ctx.declared.is_frozen(name) for name in missing):
        text = f"the optimizer lacks {len(missing)} of {len(learns)} parameters ({named(missing)})"
        return fail(id, float(len(missing)), 0.0, text, "parameter_not_in_optimizer")
    return ok(id, 0.0, 0.0, f"the optimizer holds all {len(learns)} parameters that learn")


def _frozen(ctx: Context, setup: TrainingSetup) -> Check:
    id, declared, held = "frozen_params", ctx.declared, held_by(setup.optimizer)
    parameters = dict(setup.model.named_parameters())
    frozen = {name for name in parameters if declared.is_frozen(name)}
    rests = [n for n, p in parameters.items() if not p.requires_grad and n not in frozen]
    moving = [n for n, p in parameters.items() if p.requires_grad and n in frozen and p in held]
    if rests:
        text = f"{len(rests)} of {len(parameters)} parameters rest undeclared ({named(rests)})"
        status = "warn" if declared.frozen is None and len(rests) < len(parameters) else "fail"
        return finding(status, id, float(len(rests)), 0.0, text, "parameter_frozen")
    if moving:
        some = f"{counted(len(moving), 'parameter')} declared frozen"
        text = f"{some} and trained all the same ({named(moving)})"
        return fail(id, float(len(moving)), 0.0, text, "frozen_parameter_moves")
    return ok(id, 0.0, 0.0, "only what is declared frozen rests")


def _optimizer_settings(setup: TrainingSetup, ctx: Context) -> Iterator[Check]:
    """Momentum, eps, decay and direction of the optimizer."""
    id = "optimizer_settings"
    settings = ("momentum", "eps", "weight_decay")
    for number, group in enumerate(setup.optimizer.param_groups):
        momentum, eps, decay = (float(group.get(name, 0) or 0) for name in settings)
        lr = ctx.peak_lrs[number] if number < len(ctx.peak_lrs) else float(group.get("lr", 0))
        betas = [float(beta) for beta in group.get("betas") or (0.0, 0.0)]
        fast = max(momentum, betas[0])
        if group.get("maximize"):
            yield fail(id, 1.0, 0.0, "the optimizer maximises the loss", "gradient_sign_flipped")
        if fast >= 0.995 or betas[-1] >= 1:
            status = "fail" if fast >= 0.9999 or betas[-1] >= 1 else "warn"
            text = f"momentum {fast:g} averages over {1 / max(1e-9, 1 - fast):.0f} steps"
            yield finding(status, id, fast, 0.995, text, "momentum_too_high")
        if eps > 1e-3 and "betas" in group:
            text = f"eps {eps:g} is larger than most gradients"
            yield finding("fail" if eps >= 0.1 else "warn", id, eps, 1e-3, text, "optimizer_eps")
        taken = lr * decay
        if taken > DECAY_WARN:
            status, causes = above(taken, 0, DECAY_FAIL), ["weight_decay_too_high", "lr_too_high"]
            text = f"lr x weight_decay {taken:.2g}: each step takes that share off the weights"
            yield finding(status, "weight_decay", taken, DECAY_FAIL, text, *causes)
        if lr == 0 and any(p.requires_grad for p in group["params"]):
            text = f"the learning rate of group {number} is 0 throughout"
            causes = ["lr_too_low", "schedule_too_short"][: 1 + (setup.scheduler is not None)]
            yield fail("lr_zero", 0.0, 0.0, text, *causes)
        if not math.isfinite(lr) or lr < 0:
            yield fail("lr_zero", None, 0.0, f"the learning rate is {lr}", "lr_too_high")


def check_layers(ctx: Context) -> list[Check]:
    """Settings of BatchNorm and dropout, and weights as they start; of each the first finding."""
    first: dict[str, Check] = {}
    for name, layer in ctx.fresh().model.named_modules():
        for check in (*_layer_settings(name, layer), *_initial_weights(name, layer)):
            first.setdefault(check.id, check)
    return list(first.values()) or [ok("layers", None, None, "usual settings of layers")]


def _layer_settings(name: str, layer: nn.Module) -> Iterator[Check]:
    if isinstance(layer, _BatchNorm) and layer.track_running_stats:
        momentum = layer.momentum
        if momentum is not None and (momentum < 0.005 or momentum > 0.98):
            status, causes = "fail" if momentum < 5e-4 else "warn", ["batchnorm_momentum"]
            text = f"BatchNorm {name} has momentum {momentum:g} (usual: 0.1, 0.01)"
            yield finding(status, "batchnorm", momentum, 0.005, text, *causes, "train_eval_differ")
    if isinstance(layer, _DropoutNd) and layer.p > 0.75:
        status, text = "fail" if layer.p > 0.95 else "warn", f"{name} drops {layer.p:.0%}"
        yield finding(status, "dropout", layer.p, 0.75, text, "dropout_too_high")


def _initial_weights(name: str, layer: nn.Module) -> list[Check]:
    """Weights of a layer that cannot learn as they are: NaN, all the same, far too large."""
    weight = getattr(layer, "weight", None)
    if not isinstance(layer, nn.Linear | nn.Conv1d | nn.Conv2d) or weight is None:
        return []
    id, cause, w = "weights", "bad_initialisation", weight.detach().float()
    rows, some = w.reshape(len(w), -1), bool(w.any())
    if not bool(w.isfinite().all()):
        return [fail(id, None, None, f"{name} holds NaN or infinity", cause)]
    if w.numel() > 4 and some and bool((w == w.flatten()[0]).all()):
        return [fail(id, 0.0, None, f"all weights of {name} are equal", cause)]
    if len(rows) > 1 and some and bool((rows == rows[0]).all()):
        return [fail(id, 0.0, None, f"all units of {name} have the same weights", cause)]
    gain = float(w.std()) * rows.shape[1] ** 0.5 if w.numel() > 1 else 1.0
    if gain > LARGE:
        text = f"weights of {name} are {gain:.0f} times as large as keeps the size of signals"
        return [warn(id, gain, LARGE, text, cause)]
    return []


def _rates(setup: TrainingSetup) -> list[float]:
    return [float(group["lr"]) for group in setup.optimizer.param_groups]


def simulate(setup: TrainingSetup, calls: int) -> list[list[float]]:
    """The rates of all groups before each of `calls` steps of the schedule of a set-up that is not
    used any more; [] where it cannot be played through."""
    scheduler, rates = setup.scheduler, [_rates(setup)]
    step: Any = getattr(scheduler, "step_update", None)
    plateau = isinstance(scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau)
    if plateau or (step is None and not hasattr(scheduler, "step")):
        return []
    setup.optimizer._opt_called = True  # keeps torch from warning about the order
    with suppress(Exception):  # a schedule with a step of its own form, or shorter than this
        for number in range(calls - 1):
            if step is not None:
                step(number + 1)
            else:
                scheduler.step()
            rates.append(_rates(setup))
    return rates


def find_peak(ctx: Context) -> None:
    """The highest rate of each group over the run: the start of a warm-up would hide everything."""
    setup = ctx.fresh()
    rates = [_rates(setup)]
    if setup.scheduler is not None:
        rates += simulate(setup, min(SIMULATED, ctx.declared.total_steps or 1000))
    ctx.peak_lrs = [max(column) for column in zip(*rates, strict=False)]


def check_schedule(ctx: Context) -> list[Check]:
    """The schedule over the run, stepped as in train_step, else per step or epoch as fits."""
    setup, total = ctx.fresh(), ctx.declared.total_steps
    if setup.scheduler is None or not total:
        return []
    if total > SIMULATED:
        why = f"{total} steps, and {SIMULATED} are played through at most"
        return [cannot_tell("schedule", why)]
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
        verdicts.append(_judge_rates([max(row) for row in rates], ctx.declared.accumulate))
    return [min(verdicts, key=lambda check: ("pass", "warn", "fail").index(check.status))]


def _stays_at_0(ctx: Context, setup: TrainingSetup) -> bool:
    """Whether all rates are exactly 0, and still are after some steps of the optimizer."""
    if max(_rates(setup)) > 0 or not any(ctx.peak_lrs) or not ctx.batches:
        return False
    for number in range(2 * ctx.declared.accumulate):
        ctx.step(setup, ctx.batch(number))
    return max(_rates(setup)) == 0


def _judge_rates(rates: list[float], accumulate: int) -> Check:
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
