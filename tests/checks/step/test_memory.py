"""Graphs in memory are counted: losses that are kept with theirs are found."""

from collections import deque
from typing import Any

import pytest
from torch import Tensor

from src.checks import TrainingSetup
from src.checks.step import real_steps
from tests.checks.small_setup import loud


def keeping(setup: TrainingSetup, keep: Any, accumulate: int = 1) -> None:
    """A step that gives its loss to `keep`."""
    calls = 0

    def step(setup: TrainingSetup, batch: Any) -> dict[str, float]:
        nonlocal calls
        setup.model.train()
        loss = setup.loss_fn(setup.model(batch[0]), batch[1]) / accumulate
        loss.backward()
        calls += 1
        if calls % accumulate == 0:
            setup.optimizer.step()
            setup.optimizer.zero_grad()
        keep(loss)
        return {"loss": loss.item()}

    setup.train_step = step
    setup.declared = {**setup.declared, "accumulate": accumulate}


class Total:
    """A sum of losses that stays a tensor with its graph."""

    def __init__(self) -> None:
        self.sum: Any = 0.0

    def add(self, loss: Tensor) -> None:
        self.sum = self.sum + loss


@pytest.mark.parametrize("accumulate", [1, 3])
@pytest.mark.parametrize("keep", [lambda: [].append, lambda: Total().add, lambda: {}.setdefault])
def test_losses_kept_with_their_graphs_are_found(keep: Any, accumulate: int) -> None:
    def plant(setup: TrainingSetup) -> None:
        kept = keep()
        if kept.__name__ == "setdefault":
            numbered = kept
            kept = lambda loss: numbered(id(loss), loss)  # noqa: E731
        keeping(setup, kept, accumulate)

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

        keeping(setup, keep)

    assert "graphs" not in loud(plant, real_steps.check_steps)
