"""A schedule that is stepped, in the step or outside of it, and one that nobody steps."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from src.checks import TrainingSetup
from src.checks.net import settings
from src.checks.step import real_steps
from tests.checks.small_setup import after_each_step, loud


def scheduled(setup: TrainingSetup, rate: Callable[[int], float], stepped: bool) -> None:
    setup.scheduler = torch.optim.lr_scheduler.LambdaLR(setup.optimizer, rate)
    if stepped:
        after_each_step(setup, lambda setup: setup.scheduler.step())


@pytest.mark.parametrize(
    ("rate", "stepped", "expected"),
    [
        (lambda step: min(1.0, step / 10), True, {}),
        (lambda epoch: min(1.0, (epoch + 1) / 3), False, {}),  # somebody steps it after each epoch
        (lambda epoch: 0.9**epoch, False, {}),
        # A warm-up from 0 that nobody steps
        (lambda step: min(1.0, step / 10), False, {"schedule": ("warn", "schedule_never_stepped")}),
    ],
)
def test_a_schedule_that_nobody_steps_is_found(rate: Any, stepped: bool, expected: dict) -> None:
    plant = lambda setup: scheduled(setup, rate, stepped)  # noqa: E731
    assert loud(plant, real_steps.check_steps, settings.check_schedule) == expected
