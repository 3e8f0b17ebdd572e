"""Averages of the weights that follow the training, and such that do not."""

import copy
import itertools
from collections.abc import Callable
from functools import partial
from typing import Any
from unittest.mock import patch

import pytest
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn, update_bn

from src.checks import TrainingSetup
from src.checks.afterwards import evaluation
from tests.checks import small_setup
from tests.checks.small_setup import after_each_step, loud


def averaged(
    setup: TrainingSetup,
    update: Any,
    made: Any = copy.deepcopy,
    before: Any = None,
    every: int = 1,
) -> None:
    """Evaluate on `made(model)`; `update(it, model)` follows steps, `before(it, setup)` first."""
    it, calls = made(setup.model), itertools.count(1)

    def follow(setup: TrainingSetup) -> None:
        if next(calls) % every == 0:
            update(it, setup.model)

    def evaluate(setup: TrainingSetup, loader: Any) -> dict[str, float]:
        if before is not None:
            before(it, setup)
        with patch.object(setup, "model", it):
            return small_setup.evaluate(setup, loader)

    after_each_step(setup, follow)
    setup.evaluate = evaluate


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
    averaged(setup, lerp(decay), **more)


def ema_of_torch(setup: TrainingSetup, decay: float = 0.95, **more: Any) -> None:
    made = partial(AveragedModel, multi_avg_fn=get_ema_multi_avg_fn(decay), **more)
    averaged(setup, AveragedModel.update_parameters, made)


def statistics_before_evaluation(setup: TrainingSetup) -> None:
    bring = lambda it, setup: update_bn(setup.train_loader, it)  # noqa: E731
    averaged(setup, lerp(0.9, buffers=False), before=bring)


def exchanged_meanwhile(setup: TrainingSetup, decay: float) -> None:
    """Parameters of an average are put into the net for the while of an evaluation."""
    shadow = [p.detach().clone() for p in setup.model.parameters()]

    def follow(setup: TrainingSetup) -> None:
        for a, b in zip(shadow, setup.model.parameters(), strict=True):
            a.lerp_(b.detach(), 1 - decay)

    @torch.no_grad()
    def put(model: nn.Module, values: list[Tensor]) -> None:
        for p, value in zip(model.parameters(), values, strict=True):
            p.copy_(value)

    def evaluate(setup: TrainingSetup, loader: Any) -> dict[str, float]:
        own = [p.detach().clone() for p in setup.model.parameters()]
        put(setup.model, shadow)
        found = small_setup.evaluate(setup, loader)
        put(setup.model, own)
        return found

    after_each_step(setup, follow)
    setup.evaluate = evaluate


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
        lambda setup: averaged(setup, AveragedModel.update_parameters, AveragedModel),
        statistics_before_evaluation,
        lambda setup: exchanged_meanwhile(setup, 0.95),
    ],
)
def test_averages_that_follow_are_fine(plant: small_setup.Plant) -> None:
    assert loud(plant, evaluation.check_eval_follows) == {}


@pytest.mark.parametrize(
    ("plant", "id", "cause"),
    [
        (
            lambda setup: averaged(setup, lerp(0.9, buffers=False)),
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
    found = loud(plant, evaluation.check_eval_follows)
    assert found.get(id, ("", ""))[1] == cause, found
