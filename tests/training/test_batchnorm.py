"""BatchNorm layers count their batches together, and as they count alone."""

import pytest
import torch
from torch import nn

from src.training.batchnorm import Counters
from tests.training.trainings import Splits, make_learner, same_state


class Odd(nn.Module):
    """A layer that is called twice, one that never is, one that weighs by its count."""

    def __init__(self) -> None:
        super().__init__()
        self.twice, self.never = nn.BatchNorm1d(3), nn.BatchNorm1d(3)
        self.weighs = nn.BatchNorm1d(3, momentum=None)
        self.without = nn.BatchNorm1d(3, track_running_stats=False)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        return self.without(self.weighs(self.twice(self.twice(rows))))


def test_layers_count_as_often_as_they_are_called() -> None:
    alone, together = Odd(), Odd()
    counters = Counters(together)
    for number in range(3):
        rows = torch.rand(8, 3, generator=torch.Generator().manual_seed(number))
        alone(rows)
        with counters.together():
            together(rows)
    assert together.twice.num_batches_tracked == 6
    assert same_state(together.state_dict(), alone.state_dict())
    with counters.together():
        together.eval()(rows)
    assert same_state(together.state_dict(), alone.state_dict())


def test_an_error_leaves_the_counters(few: Splits) -> None:
    learner = make_learner(few[0])
    state = {key: value.clone() for key, value in learner.model.state_dict().items()}
    with pytest.raises(RuntimeError), learner.counted():
        learner.model(torch.zeros(1, 2, 3, 4))
    assert same_state(learner.model.state_dict(), state)


def test_another_model_has_other_counters(few: Splits) -> None:
    learner = make_learner(few[0])
    inputs = torch.rand(4, 3, 16, 16)
    for _ in range(2):
        learner.model = nn.Sequential(nn.BatchNorm2d(3))
        with learner.counted():
            learner.model(inputs)
        assert learner.model[0].num_batches_tracked == 1
