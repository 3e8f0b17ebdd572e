"""A schedule that is stepped, in the step or outside of it, and one that nobody steps."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from src.checks import TrainingSetup
from src.checks.learning import schedule
from src.checks.step import real_steps
from tests.checks.small_setup import loud


def scheduled(setup: TrainingSetup, rate: Callable[[int], float], stepped: bool) -> None:
    plain = setup.train_step
    setup.scheduler = torch.optim.lr_scheduler.LambdaLR(setup.optimizer, rate)

    def step(setup: TrainingSetup, batch: Any) -> Any:
        out = plain(setup, batch)  # type: ignore[misc]
        setup.scheduler.step()
        return out

    if stepped:
        setup.train_step = step


@pytest.mark.parametrize(
    ("rate", "stepped"),
    [
        (lambda step: min(1.0, step / 10), True),
        (lambda epoch: min(1.0, (epoch + 1) / 3), False),  # somebody steps it after each epoch
        (lambda epoch: 0.9**epoch, False),
    ],
)
def test_a_schedule_that_is_stepped_in_or_outside_of_the_step_is_fine(
    rate: Any, stepped: bool
) -> None:
    plant = lambda setup: scheduled(setup, rate, stepped)  # noqa: E731
    assert loud(plant, real_steps.check_steps, schedule.check_schedule) == {}


def test_a_warm_up_from_0_that_nobody_steps_is_found() -> None:
    found = loud(
        lambda setup: scheduled(setup, lambda step: min(1.0, step / 10), False),
        real_steps.check_steps,
        schedule.check_schedule,
    )
    assert found == {"schedule": ("warn", "schedule_never_stepped")}
