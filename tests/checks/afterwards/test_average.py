"""Averages of the weights that follow the training, and such that do not."""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn, update_bn

from src.checks import TrainingSetup
from src.checks.afterwards import average
from tests.checks import small_setup
from tests.checks.small_setup import loud


def averaged(
    setup: TrainingSetup, made: Any, update: Any, net: Any, before: Any = None, every: int = 1
) -> None:
    """Evaluation on an average: `made(model)` makes it, `update(it, model)` follows a step, and
    `net(it)` is evaluated."""
    it, calls, plain = made(setup.model), 0, setup.train_step

    def step(setup: TrainingSetup, batch: Any) -> Any:
        nonlocal calls
        out = plain(setup, batch)  # type: ignore[misc]
        calls += 1
        if calls % every == 0:
            update(it, setup.model)
        return out

    def evaluate(setup: TrainingSetup, loader: Any) -> dict[str, float]:
        if before is not None:
            before(it, setup)
        own, setup.model = setup.model, net(it)
        try:
            return small_setup.evaluate(setup, loader)
        finally:
            setup.model = own

    setup.train_step, setup.evaluate = step, evaluate


def lerp(decay: float, buffers: bool = True) -> Callable[[nn.Module, nn.Module], None]:
    """An update of a copy that averages parameters and copies buffers."""

    @torch.no_grad()
    def update(mine: nn.Module, model: nn.Module) -> None:
        for a, b in zip(mine.parameters(), model.parameters(), strict=True):
            a.lerp_(b, 1 - decay)
        for own, new in zip(mine.buffers(), model.buffers(), strict=True):
            own.copy_(new if buffers else own)

    return update


def ema(setup: TrainingSetup, decay: float, **more: Any) -> None:
    averaged(setup, copy.deepcopy, lerp(decay), lambda it: it, **more)


def ema_of_torch(setup: TrainingSetup, decay: float = 0.95, **more: Any) -> None:
    averaged(
        setup,
        lambda model: AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay), **more),
        lambda it, model: it.update_parameters(model),
        lambda it: it,
    )


def statistics_before_evaluation(setup: TrainingSetup) -> None:
    averaged(
        setup,
        copy.deepcopy,
        lerp(0.9, buffers=False),
        lambda it: it,
        before=lambda it, setup: update_bn(setup.train_loader, it),
    )


def exchanged_meanwhile(setup: TrainingSetup, decay: float) -> None:
    """Parameters of an average are put into the net for the while of an evaluation."""
    shadow = [p.detach().clone() for p in setup.model.parameters()]
    plain = setup.train_step

    def step(setup: TrainingSetup, batch: Any) -> Any:
        out = plain(setup, batch)  # type: ignore[misc]
        for a, b in zip(shadow, setup.model.parameters(), strict=True):
            a.lerp_(b.detach(), 1 - decay)
        return out

    @contextmanager
    def exchanged(model: nn.Module) -> Iterator[None]:
        own = [p.detach().clone() for p in model.parameters()]
        with torch.no_grad():
            for p, a in zip(model.parameters(), shadow, strict=True):
                p.copy_(a)
            yield
            for p, a in zip(model.parameters(), own, strict=True):
                p.copy_(a)

    def evaluate(setup: TrainingSetup, loader: Any) -> dict[str, float]:
        with exchanged(setup.model):
            return small_setup.evaluate(setup, loader)

    setup.train_step, setup.evaluate = step, evaluate


def mean_of_all(setup: TrainingSetup) -> None:
    averaged(setup, AveragedModel, lambda it, model: it.update_parameters(model), lambda it: it)


@pytest.mark.parametrize(
    "plant",
    [
        lambda setup: ema(setup, 0.9),
        lambda setup: ema(setup, 0.99),
        lambda setup: ema(setup, 0.9, every=2),
        lambda setup: ema(setup, 0.9, every=3),
        lambda setup: ema(setup, 0.9, every=10),
        ema_of_torch,
        lambda setup: ema_of_torch(setup, use_buffers=True),
        mean_of_all,
        statistics_before_evaluation,
        lambda setup: exchanged_meanwhile(setup, 0.95),
    ],
)
def test_averages_that_follow_are_fine(plant: small_setup.Plant) -> None:
    assert loud(plant, average.check_eval_follows) == {}


@pytest.mark.parametrize(
    ("plant", "id", "cause"),
    [
        (
            lambda setup: averaged(setup, copy.deepcopy, lerp(0.9, buffers=False), lambda it: it),
            "eval_statistics",
            "average_without_buffers",
        ),
        (lambda setup: ema(setup, 0.9999), "average_speed", "average_too_slow"),
        (lambda setup: exchanged_meanwhile(setup, 0.9999), "average_speed", "average_too_slow"),
        (
            lambda setup: ema_of_torch(setup, 0.9999, use_buffers=True),
            "average_speed",
            "average_too_slow",
        ),
        (lambda setup: ema(setup, 1.0), "eval_follows", "eval_of_other_weights"),
    ],
)
def test_averages_that_do_not_follow_are_found(
    plant: small_setup.Plant, id: str, cause: str
) -> None:
    found = loud(plant, average.check_eval_follows)
    assert found.get(id, ("", ""))[1] == cause, found
