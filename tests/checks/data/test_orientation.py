"""Augmentation that turns images of one class into another, and augmentation that does not."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from src.checks import TrainingSetup
from src.checks.data import orientation
from tests.checks.small_setup import CLASSES, loud


class Arrows(Dataset):
    """Wedges in four directions (`plain`: discs of four sizes); `augment` changes each draw."""

    def __init__(self, plain: bool, augment: Callable[[Tensor], Tensor] | None, seed: int):
        draws = torch.Generator().manual_seed(seed)
        place = torch.linspace(-1, 1, 12)
        down, right = torch.meshgrid(place, place, indexing="ij")
        wedge = ((down.abs() < 0.5 - 0.5 * right) & (right > -0.8)).float()
        faces = [wedge.flip(1), wedge, wedge.rot90(1), wedge.rot90(3)]
        if plain:
            faces = [(down**2 + right**2 < (0.3 + 0.2 * k) ** 2).float() for k in range(4)]
        self.y = torch.arange(160) % CLASSES
        moves = torch.randint(-1, 2, (160, 2), generator=draws).tolist()
        self.x = torch.stack(
            [faces[y].roll(move, (0, 1)) for y, move in zip(self.y.tolist(), moves, strict=True)]
        )[:, None].repeat(1, 3, 1, 1)
        self.x += 0.1 * torch.randn(self.x.shape, generator=draws)
        self.augment = augment

    def __len__(self) -> int:
        return len(self.y)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        if index >= len(self):
            raise IndexError(index)
        x = self.x[index]
        return (self.augment(x) if self.augment else x), int(self.y[index])


def by_chance(turn: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    return lambda x: turn(x) if torch.rand(()) < 0.5 else x


def moved(x: Tensor) -> Tensor:
    return x.roll(torch.randint(-2, 3, (2,)).tolist(), (1, 2)) + 0.05 * torch.randn(x.shape)


def findings(plain: bool, augment: Any) -> dict[str, tuple[str, str]]:
    def plant(setup: TrainingSetup) -> None:
        setup.train_data, setup.val_data = Arrows(plain, augment, 1), Arrows(plain, None, 2)
        setup.train_loader = DataLoader(setup.train_data, 16, shuffle=True)

    return loud(plant, orientation.check_orientation)


@pytest.mark.parametrize("name", ["mirrored", "upside down", "turned by 180 degrees"])
def test_arrows_must_not_be_turned(name: str) -> None:
    augment = by_chance(orientation.TURNS[name])
    found = {"turned": ("warn", "augmentation_destroys_label")}
    assert findings(False, augment) == found
    assert findings(False, lambda x: moved(augment(x))) == found


def test_arrows_may_be_moved() -> None:
    assert findings(False, moved) == {}
    assert findings(False, None) == {}


def test_discs_may_be_turned() -> None:
    assert findings(True, by_chance(orientation.TURNS["mirrored"])) == {}
    assert findings(True, by_chance(orientation.TURNS["turned by 90 degrees"])) == {}
