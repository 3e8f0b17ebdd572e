"""Small trainings to test with, and ways to run, interrupt and compare them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from src.data.batches import steps_per_epoch
from src.data.packed import PackedSplit
from src.data.readers import MAPPED, Reading
from src.plumbing.terminal import Progress
from src.training.checkpoint import Checkpoint
from src.training.learner import Learner, build_learner
from src.training.loop import Row, Training
from src.training.optimizer import create_optimizer
from tests import template

CPU = torch.device("cpu")
# The template's params, but for a small net and three epochs.
PARAMS: dict[str, Any] = {
    **template.values(),
    "model": "test_resnet",
    "epochs": 3,
    "batch_size": 16,
}

# What is drawn anew in each step.
DRAWN: dict[str, Any] = {
    "augment_scale": 0.5,
    "augment_vertical_flip": True,
    "augment_rotation": 20.0,
    "augment_color": 0.3,
    "augment_erase": 0.5,
    "mixup": 0.2,
    "cutmix": 1.0,
    "drop_rate": 0.2,
}

Splits = tuple[PackedSplit, PackedSplit]


def make_learner(data: PackedSplit, **options: Any) -> Learner:
    return build_learner({**PARAMS, **options}, data, CPU, steps_per_epoch(len(data), 16))


class Plain(nn.Module):
    """A net without BatchNorm, in float64."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(
            nn.Conv2d(3, 8, 3), nn.GroupNorm(2, 8), nn.ReLU(), nn.Flatten(), nn.Linear(1568, 3)
        ).double()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.net(images.double())


def give_net(learner: Learner, net: nn.Module, lr: float = 1e-3, **options: Any) -> None:
    """Another net for the learner, which an optimizer of its own takes."""
    learner.model = learner.forward = net
    learner.optimizer = create_optimizer(net, {**PARAMS, **options}, lr)


def plain_learner(train: PackedSplit, **options: Any) -> Learner:
    learner = make_learner(train, **{"optimizer": "sgd", "lr": 0.05, **options})
    give_net(learner, Plain(), 0.05, optimizer="sgd")
    return learner


def make_training(
    splits: Splits, device: torch.device = CPU, reading: Reading = MAPPED, **options: Any
) -> Training:
    params = {**PARAMS, "augment_flip": True, **options}
    return Training(params, *splits, device, reading)


class Killed(Exception):
    """Stands for a kill between two steps."""


class Interrupting(Progress):
    """Raises after a number of steps, counted from the start of this process."""

    def __init__(self, after: int | None):
        super().__init__(3, 6, 16, "images", 0, "off")
        self.after = after

    def advance(self) -> None:
        super().advance()
        if self.done == self.after:
            raise Killed


def checkpoint_in(
    folder: Path, minutes: float = 1e9, kind: str = "a", anywhere: bool = False
) -> Checkpoint:
    return Checkpoint(folder, "f" * 64, minutes, {"kind": kind}, anywhere)


def run(
    training: Training,
    folder: Path,
    after: int | None = None,
    minutes: float = 1e9,
    on_epoch: Callable[[Row], None] = lambda row: None,
    stopping: Callable[[], bool] = lambda: False,
) -> None:
    """Train to the end, with a checkpoint in `folder`; `Killed` in the step `after`."""
    training.run(checkpoint_in(folder, minutes), Interrupting(after), on_epoch, stopping)


def ended(splits: Splits, folder: Path, **options: Any) -> Training:
    training = make_training(splits, **options)
    run(training, folder)
    return training


def taken_up(training: Training, folder: Path) -> Training:
    """The training, at the point where the checkpoint in `folder` was saved."""
    saved = checkpoint_in(folder).load()
    assert saved is not None
    training.load_state_dict(saved)
    return training


def resumed(make: Callable[[], Training], folder: Path, after: int) -> Training:
    """A training, killed in the step `after`, that went on from its checkpoint to its end."""
    with pytest.raises(Killed):
        run(make(), folder, after, minutes=1e-9)
    training, saved = make(), checkpoint_in(folder).load()
    assert (saved is None) == (after == 1)  # before the first checkpoint: it starts over
    if saved:
        training.load_state_dict(saved)
    assert training.global_step == after - 1
    run(training, folder / "second")
    return training


def same_state(first: Any, second: Any) -> bool:
    """Whether two states, such as those of `state_dict`, are equal to the bit."""
    if isinstance(first, torch.Tensor):
        return torch.equal(first, second)
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(same_state(first[k], second[k]) for k in first)
    if isinstance(first, list | tuple):
        return len(first) == len(second) and all(map(same_state, first, second))
    return bool(first == second)
