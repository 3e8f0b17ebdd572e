"""Graphs in memory are counted: losses that are kept with theirs are found."""

from collections import deque
from collections.abc import Callable
from typing import Any

import pytest
from torch import Tensor

from src.checks import TrainingSetup
from src.checks.step import real_steps
from tests.checks.small_setup import accumulated, loud


class Total:
    """A sum of losses that stays a tensor with its graph."""

    def __init__(self) -> None:
        self.sum: Any = 0.0

    def add(self, loss: Tensor) -> None:
        self.sum = self.sum + loss


def in_a_dict() -> Callable[[Tensor], object]:
    kept: dict[int, Tensor] = {}
    return lambda loss: kept.setdefault(id(loss), loss)


@pytest.mark.parametrize("accumulate", [1, 3])
@pytest.mark.parametrize("keep", [lambda: [].append, lambda: Total().add, in_a_dict])
def test_losses_kept_with_their_graphs_are_found(keep: Any, accumulate: int) -> None:
    plant = lambda setup: accumulated(setup, accumulate, keep())  # noqa: E731
    assert loud(plant, real_steps.check_steps).get("graphs") == ("warn", "graph_kept")


@pytest.mark.parametrize("window", [1, 10])
def test_a_short_window_of_losses_and_plain_numbers_are_fine(window: int) -> None:
    def plant(setup: TrainingSetup) -> None:
        few: deque[Tensor] = deque(maxlen=window)
        numbers: list[float] = []
        detached: list[Tensor] = []

        def keep(loss: Tensor) -> None:
            few.append(loss)
            numbers.append(loss.item())
            detached.append(loss.detach())

        accumulated(setup, 1, keep)

    assert "graphs" not in loud(plant, real_steps.check_steps)
