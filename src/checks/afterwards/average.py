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
from torch.nn.modules.module import register_module_forward_pre_hook

from src.checks.afterwards.evaluation import small_loader
from src.checks.context import Context
from src.checks.reading import named
from src.checks.report import Check, above, fail, finding, ok
from src.checks.temporary import at_rates
from src.checks.training_setup import TrainingSetup

STEPS, LATER = 4, 24  # of the optimizer
ENTRIES = 4096  # of each parameter that are compared
LEFT_WARN, LEFT_FAIL = 0.8, 0.95  # of the random start in the average when the training ends
State = dict[str, Tensor]


@torch.no_grad()
def _snapshot(model: nn.Module) -> State:
    """Parameters (of large ones the first entries) and buffers that are no counters, as float64."""
    found = {name: p.flatten()[:ENTRIES] for name, p in model.named_parameters()}
    found |= {name: b.flatten() for name, b in model.named_buffers() if b.is_floating_point()}
    return {name: value.detach().cpu().double().clone() for name, value in found.items()}


@contextmanager
def _weights_used(model: nn.Module) -> Iterator[State]:
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
        used.update(_snapshot(module))

    with register_module_forward_pre_hook(note):
        yield used


def check_eval_follows(ctx: Context) -> list[Check]:
    """What evaluation says, and what it uses, moves with training."""
    setup, loader = ctx.fresh(), small_loader(ctx)
    if loader is None:
        return []
    start = [p.detach().clone() for p in setup.model.parameters()]
    first = _snapshot(setup.model)
    names = [name for name, _ in setup.model.named_parameters()]
    accumulate = ctx.declared.accumulate

    def evaluate() -> tuple[dict[str, float], State]:
        with _weights_used(setup.model) as used:
            return ctx.evaluate(setup, loader), used

    def train(begin: int, end: int) -> None:
        with at_rates(setup.optimizer, ctx.peak_lrs):
            for number in range(begin * accumulate, end * accumulate):
                ctx.step(setup, ctx.batch(number))

    before, _ = evaluate()
    train(0, STEPS - 1)
    _, used = evaluate()
    train(STEPS - 1, STEPS)
    trained = _snapshot(setup.model)
    after, now = evaluate()
    moved = any(not torch.equal(a, b) for a, b in zip(start, setup.model.parameters(), strict=True))
    if moved and (before == after or (now and _equal(names, first, now))):
        train(STEPS, LATER)  # an average may take in only every so many steps
        after, last = evaluate()
        if before == after or (last and _equal(names, first, last)):
            text = f"what is evaluated does not move in {LATER} steps of the optimizer"
            causes = ["eval_of_other_weights", "average_too_slow"]
            return [fail("eval_follows", after.get("loss"), None, text, *causes)]
    found = [ok("eval_follows", None, None, "evaluation follows the training")]
    if moved and now.keys() == first.keys():
        found += _statistics(setup, names, first, trained, now)
        found += _speed(ctx, names, used, trained, now)
    return found


def _equal(names: list[str], a: State, b: State) -> bool:
    return all(torch.equal(a[name], b[name]) for name in names)


def _statistics(
    setup: TrainingSetup, weights: list[str], first: State, trained: State, now: State
) -> list[Check]:
    """Buffers that the training moves and that stand still in what is evaluated."""
    names = [name for name, _ in setup.model.named_buffers() if name in first]
    moving = [name for name in names if not torch.equal(first[name], trained[name])]
    still = [name for name in moving if torch.equal(first[name], now[name])]
    if not moving or len(still) < len(moving) or _equal(weights, first, now):
        return []
    text = f"evaluation uses {len(still)} running statistics as they were before training "
    text += f"({named(still, 2)}), with trained weights"
    causes = ["average_without_buffers", "eval_of_other_weights"]
    return [fail("eval_statistics", float(len(still)), 0.0, text, *causes)]


def _speed(ctx: Context, names: list[str], used: State, trained: State, now: State) -> list[Check]:
    """Of an average of the weights: how much of the random start is left in it at the end, from the
    share of the way to the weights that the last step took it."""
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
    return [finding(above(left, LEFT_WARN, LEFT_FAIL), id, left, LEFT_WARN, text, *causes)]
