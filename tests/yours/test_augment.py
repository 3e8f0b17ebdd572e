"""What `own_augment` must keep, whatever it changes."""

import pytest
import torch

from src.base.imports import ROOT
from src.plumbing import params
from src.yours.augment import own_augment

PARAMS = params.load(ROOT)


def images(channels: int) -> torch.Tensor:
    draws = torch.Generator().manual_seed(0)
    shape = (8, 32, 32, channels)
    return torch.randint(0, 256, shape, generator=draws, dtype=torch.uint8)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
@pytest.mark.parametrize("channels", [1, 3])
def test_it_gives_back_a_batch_of_pixels(channels: int, dtype: torch.dtype) -> None:
    changed = own_augment(images(channels).to(dtype), 0, 0, PARAMS)
    assert changed.shape == (8, 32, 32, channels)
    assert changed.isfinite().all()
    assert changed.min() >= 0
    assert changed.max() <= 255


def test_it_follows_from_seed_and_step_alone() -> None:
    """A training that was killed and goes on must see the same images."""
    first = own_augment(images(3), 7, 3, PARAMS)
    torch.manual_seed(1)
    own_augment(images(3), 7, 4, PARAMS)
    assert torch.equal(own_augment(images(3), 7, 3, PARAMS), first)


def test_it_leaves_the_random_state_of_torch_as_it_was() -> None:
    before = torch.get_rng_state()
    own_augment(images(3), 0, 0, PARAMS)
    assert torch.equal(torch.get_rng_state(), before)
