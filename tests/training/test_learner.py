"""What of a net learns: a frozen backbone, fixed parameters."""

from typing import Any

import pytest
import torch
from torch import nn

from src.plumbing.errors import InputError
from src.training.learner import _require_what_it_needs
from src.training.loop import Training
from src.yours import net as yours
from tests.training.trainings import (
    PARAMS,
    Splits,
    make_learner,
    make_training,
    resumed,
    run,
    same_state,
)


def test_a_frozen_backbone_rests(few: Splits, tmp_path: Any) -> None:
    """Weights and BatchNorm statistics; the classifier learns; then all of it does."""
    training = make_training(few, freeze_epochs=1, epochs=2)
    before = {k: v.clone() for k, v in training.learner.model.state_dict().items()}
    seen: list[set[str]] = []

    def look(row: dict[str, float]) -> None:
        now = training.learner.model.state_dict()
        seen.append({name for name in now if not torch.equal(now[name], before[name])})

    run(training, tmp_path, on_epoch=look)
    assert seen[0] == {"fc.weight", "fc.bias"}
    assert {"conv1.0.weight", "bn1.running_mean", "fc.weight"} <= seen[1]


class Frozen(nn.Module):
    """A net with what has no weights of its own to tell that it rests."""

    def __init__(self) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.zeros(1, 1))  # the root has weights that rest
        self.norm = nn.BatchNorm2d(1, affine=False)
        self.body = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Dropout(0.5), nn.AdaptiveAvgPool2d(1))
        self.head_drop = nn.Dropout(0.5)
        self.head = nn.Linear(4, 3)

    def get_classifier(self) -> nn.Module:
        return self.head

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found = self.body(self.norm(x)).flatten(1) + self.token
        return self.head(self.head_drop(found))


def test_of_a_frozen_net_the_classifier_and_its_dropout_train(few: Splits) -> None:
    learner = make_learner(few[0])
    learner.model = Frozen()
    for frozen in (True, False):
        learner.freeze_backbone(frozen)
        learner.train_mode()
        modes = {name: module.training for name, module in learner.model.named_children()}
        modes["in the body"] = learner.model.body[1].training
        trains = {"head", "head_drop"}
        assert {name for name, on in modes.items() if on} == (trains if frozen else set(modes))
        assert learner.model.training  # a step calls train_mode for a net that is evaluated


class Scaled(nn.Module):
    """A net with a fixed scale: a Parameter that does not learn, or a buffer."""

    def __init__(self, classes: int, channels: int, as_parameter: bool) -> None:
        super().__init__()
        scale = torch.full((8, 1, 1), 2.0)
        if as_parameter:
            self.scale = nn.Parameter(scale, requires_grad=False)
        else:
            self.register_buffer("scale", scale)
        self.body = nn.Conv2d(channels, 8, 3)
        self.head = nn.Linear(8, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head((self.body(x).relu() * self.scale).mean(dim=(2, 3)))


def scaled_training(few: Splits, as_parameter: bool, **options: Any) -> Training:
    """With weights decayed and not: timm puts what is fixed into the groups only without decay."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(yours, "own_net", lambda k, channels, *_: Scaled(k, channels, as_parameter))
        return make_training(few, model="own", **options)


@pytest.mark.parametrize("weight_decay", [0.0, 0.05])
@pytest.mark.parametrize("freeze_epochs", [0, 1])
def test_a_fixed_parameter_changes_nothing(
    few: Splits, tmp_path: Any, weight_decay: float, freeze_epochs: int
) -> None:
    """Neither gradient norm nor clipping nor the weights: it is as if it were a buffer."""
    options = {"weight_decay": weight_decay, "freeze_epochs": freeze_epochs, "clip_grad": 0.05}
    found = []
    for as_parameter in (True, False):
        training = scaled_training(few, as_parameter, lr=1e-2, **options)
        run(training, tmp_path / str(as_parameter))
        found.append((training.learner.model.state_dict(), training.history))
        assert all(row["grad_norm"] > 0.05 for row in training.history)
    assert found[0][0]["scale"].unique().tolist() == [2.0]
    assert same_state(*found)


def test_a_net_with_a_fixed_parameter_goes_on_with_the_same_bits(
    few: Splits, tmp_path: Any
) -> None:
    def make() -> Training:
        return scaled_training(few, True, clip_grad=0.05, optimizer="sgd")

    whole = make()
    run(whole, tmp_path / "whole")
    second = resumed(make, tmp_path / "killed", 6)
    assert same_state(whole.state_dict(), second.state_dict())


def test_a_classifier_that_does_not_learn_cannot_train_alone(few: Splits, tmp_path: Any) -> None:
    training = make_training(few, freeze_epochs=1)
    training.learner._fixed = set(training.learner.model.parameters())
    with pytest.raises(InputError, match="freeze_epochs must be 0: the net keeps its classifier"):
        run(training, tmp_path)


def test_no_sum_of_gradients_in_a_cuda_graph() -> None:
    given = {**PARAMS, "compile": "reduce-overhead", "accumulate": 2}
    with pytest.raises(InputError, match="reduce-overhead sums no gradients on a GPU"):
        _require_what_it_needs(given, torch.device("cuda"))


def test_the_parameters_that_learn_are_those_of_the_present_optimizer(few: Splits) -> None:
    learner = make_learner(few[0])
    assert [id(p) for p in learner.learning()] == [id(p) for p in learner.model.parameters()]
    head = list(learner.model.parameters())[-2:]
    learner.optimizer = torch.optim.SGD(reversed(head), lr=0.1)
    assert [id(p) for p in learner.learning()] == [id(p) for p in head]
    learner.model = nn.Linear(2, 2)
    assert learner.learning() == []
