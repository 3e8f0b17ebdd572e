"""Does evaluation follow the training, also through an average of the weights?

The weights and statistics that evaluation really uses are read in the moment in which it calls the
net: of whatever module has the net's parameters, so that a copy, an average, and weights that are
exchanged for the while of an evaluation are seen alike.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from src.checks.afterwards.evaluation import small_loader
from src.checks.context import Context
from src.checks.learning.climb import at_rates
from src.checks.report import Check
from src.checks.setup import TrainingSetup

STEPS, LATER = 4, 24  # of the optimizer
ENTRIES = 4096  # of each parameter that are compared
LEFT_WARN, LEFT_FAIL = 0.8, 0.95  # of the random start in the average when the training ends
State = dict[str, Tensor]


@torch.no_grad()
def snapshot(model: nn.Module) -> State:
    """Parameters (of large ones the first entries) and buffers that are no counters, as float64."""
    found = {name: p.flatten()[:ENTRIES] for name, p in model.named_parameters()}
    found |= {name: b.flatten() for name, b in model.named_buffers() if b.is_floating_point()}
    return {name: value.detach().cpu().double().clone() for name, value in found.items()}


@contextmanager
def weights_used(model: nn.Module) -> Iterator[State]:
    """What the last net in evaluation mode held whose parameters are called like `model`'s."""
    shapes = {name: p.shape for name, p in model.named_parameters()}
    others: set[int] = set()
    used: State = {}

    def note(module: nn.Module, _: Any) -> None:
        if module.training or id(module) in others:
            return
        if {name: p.shape for name, p in module.named_parameters()} != shapes:
            others.add(id(module))
            return
        used.clear()
        used.update(snapshot(module))

    handle = nn.modules.module.register_module_forward_pre_hook(note)
    try:
        yield used
    finally:
        handle.remove()


def check_eval_follows(ctx: Context) -> list[Check]:
    """What evaluation says, and what it uses, moves with training."""
    setup = ctx.fresh()
    loader = small_loader(ctx)
    if loader is None:
        return []
    start = [p.detach().clone() for p in setup.model.parameters()]
    first = snapshot(setup.model)

    def look() -> tuple[dict[str, float], State]:
        with weights_used(setup.model) as used:
            return ctx.evaluate(setup, loader), used

    def train(first: int, last: int) -> None:
        with at_rates(setup.optimizer, ctx.peak_lrs):
            for number in range(first * accumulate, last * accumulate):
                ctx.step(setup, ctx.batches[number % len(ctx.batches)])

    accumulate = ctx.declared.accumulate
    before, _ = look()
    train(0, STEPS - 1)
    _, used = look()
    train(STEPS - 1, STEPS)
    trained = snapshot(setup.model)
    after, now = look()
    moved = any(not torch.equal(a, b) for a, b in zip(start, setup.model.parameters(), strict=True))
    names = [name for name, _ in setup.model.named_parameters()]
    if moved and (before == after or (now and _equal(names, first, now))):
        train(STEPS, LATER)  # an average may take in only every so many steps
        after, last = look()
        if before == after or (last and _equal(names, first, last)):
            text = f"what is evaluated does not move in {LATER} steps of the optimizer"
            causes = ["eval_of_other_weights", "average_too_slow"]
            return [Check("eval_follows", "fail", after.get("loss"), None, text, causes)]
    found = [Check("eval_follows", "pass", None, None, "evaluation follows the training")]
    if moved and now.keys() == first.keys():
        found += _statistics(setup, first, trained, now)
        found += _speed(ctx, setup, used, trained, now)
    return found


def _equal(names: list[str], a: State, b: State) -> bool:
    return all(torch.equal(a[name], b[name]) for name in names)


def _statistics(setup: TrainingSetup, first: State, trained: State, now: State) -> list[Check]:
    """Buffers that the training moves and that stand still in what is evaluated."""
    names = [name for name, _ in setup.model.named_buffers() if name in first]
    moving = [name for name in names if not torch.equal(first[name], trained[name])]
    still = [name for name in moving if torch.equal(first[name], now[name])]
    weights = [name for name, _ in setup.model.named_parameters()]
    if not moving or len(still) < len(moving) or _equal(weights, first, now):
        return []
    text = f"evaluation uses {len(still)} running statistics as they were before training "
    text += f"({', '.join(still[:2])}{' ...' if len(still) > 2 else ''}), with trained weights"
    causes = ["average_without_buffers", "eval_of_other_weights"]
    return [Check("eval_statistics", "fail", float(len(still)), 0.0, text, causes)]


def _speed(
    ctx: Context, setup: TrainingSetup, used: State, trained: State, now: State
) -> list[Check]:
    """Of an average of the weights: how much of the random start is left in it at the end, from the
    share of the way to the weights that the last step took it."""
    names = [name for name, _ in setup.model.named_parameters()]
    total = ctx.declared.total_steps
    if not total or used.keys() != now.keys():
        return []
    way = torch.cat([trained[name] - used[name] for name in names])
    went = torch.cat([now[name] - used[name] for name in names])
    size = torch.cat([trained[name] for name in names]).norm()
    # Too short a way says nothing; nor does an average that takes in only every so many steps.
    if float(way.norm()) < 1e-4 * float(size) or not bool(went.any()):
        return []
    share = float(way @ went / (way @ way))
    if not 0 < share < 1 or torch.equal(way, went):
        return []
    left = (1 - share) ** total
    text = f"a step takes the average of the weights {share:.2g} of the way to them: after "
    text += f"{total} steps {left:.0%} of it are the start"
    id, causes = "average_speed", ["average_too_slow", "eval_of_other_weights"]
    if left > LEFT_WARN:
        status = "fail" if left > LEFT_FAIL else "warn"
        return [Check(id, status, left, LEFT_WARN, text, causes)]
    return [Check(id, "pass", left, LEFT_WARN, text)]
