"""What enters the net is normalised, and comes back as it was; what the baseline gets to see."""

from pathlib import Path

import numpy as np
import pytest
import torch

from src.data.packed import PackedSplit
from src.images.baseline import features
from src.images.input import enter, leave


@pytest.fixture(scope="module")
def data(finished: tuple[Path, object]) -> PackedSplit:
    return PackedSplit(finished[0] / "data/prepared", "train")


def test_each_channel_is_normalised(data: PackedSplit) -> None:
    rows = data.rows(range(8))
    images = torch.from_numpy(rows)
    mean, std = [0.1, 0.2, 0.3], [0.5, 0.25, 0.2]
    entering = enter(images, mean, std)
    assert entering.shape == (8, 3, 16, 16)
    expected = (rows / 255 - np.array(mean)) / np.array(std)
    assert np.allclose(entering.numpy(), expected.transpose(0, 3, 1, 2), atol=1e-5)
    assert torch.equal(leave(entering, mean, std), images)


def test_prepared_images_enter_with_mean_zero_and_std_one(data: PackedSplit) -> None:
    everything = torch.from_numpy(data.rows(range(len(data))))
    entering = enter(everything, data.meta["mean"], data.meta["std"])
    assert entering.mean(dim=(0, 2, 3)).abs().max() < 1e-3
    assert (entering.std(dim=(0, 2, 3)) - 1).abs().max() < 1e-3


def test_the_baseline_sees_the_pixels(data: PackedSplit) -> None:
    rows = data.rows(range(3))
    assert np.allclose(features(rows), rows.reshape(3, -1) / 255)  # 16 px: nothing to average
