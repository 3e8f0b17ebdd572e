"""Batches of augmented images that resemble their labels by chance more or less."""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from src.checks.context import draw
from src.checks.data import loaders


class Noisy:
    """Augmented items: four kinds of images under grain that hides a part of them."""

    def __init__(self, seed: int):
        self.random = torch.Generator().manual_seed(seed)
        self.kinds = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))

    def __len__(self) -> int:
        return 80

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        grain = torch.randn(1, 8, 8, generator=self.random)
        return self.kinds[index % 4] + 2.2 * grain, index % 4


class Loader:
    """Batches of 32 in a new order; `roll`: labels that lie so many places off."""

    def __init__(self, data: Noisy, roll: int):
        self.data, self.roll = data, roll

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for part in torch.randperm(80, generator=self.data.random)[:64].split(32):
            x, y = zip(*(self.data[int(index)] for index in part), strict=True)
            yield torch.stack(x), torch.tensor(y).roll(self.roll)


@pytest.mark.parametrize(
    ("roll", "unlucky", "status"), [(0, 0, "pass"), (0, 1, "pass"), (1, 1, "fail")]
)
def test_an_unlucky_batch_is_not_taken_for_a_misaligned_loader(
    roll: int, unlucky: int, status: str
) -> None:
    for seed in range(20):
        data = Noisy(seed)
        loader = Loader(data, roll)
        ctx: Any = SimpleNamespace(
            train_sample=draw(data, range(80), "train_data"),
            batches=list(Loader(data, unlucky)),
        )
        setup: Any = SimpleNamespace(train_data=data, train_loader=loader)
        [found] = loaders._resembling(ctx, setup)
        assert (found.status, seed) == (status, seed), found.message
