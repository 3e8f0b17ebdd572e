"""Order of the samples and what enters the net: functions of (seed, epoch, step) alone."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from src.base import randomness
from src.data.batches import (
    ordered_batches,
    steps_per_epoch,
    to_input,
    told_of_rest,
    training_batches,
)
from src.data.packed import PackedSplit
from src.data.readers import Reading

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def data(finished: tuple[Path, object]) -> PackedSplit:
    return PackedSplit(finished[0] / "data/prepared", "train")


def batches_of(data: PackedSplit, **options: Any) -> list[tuple[torch.Tensor, torch.Tensor]]:
    options = {"seed": 0, "epoch": 0, "batch_size": 16, **options}
    return list(training_batches(data, device=CPU, **options))


def equal(first: list, second: list) -> bool:
    return len(first) == len(second) and all(
        torch.equal(one[0], two[0]) and torch.equal(one[1], two[1])
        for one, two in zip(first, second, strict=True)
    )


def test_an_epoch_visits_every_sample_at_most_once(data: PackedSplit) -> None:
    batches = batches_of(data)
    assert len(batches) == steps_per_epoch(len(data), 16) == len(data) // 16
    whole = batches_of(data, batch_size=len(data))[0]
    rows = {row.numpy().tobytes() for row in whole[0]}
    assert rows == {row.tobytes() for row in data.pictures(np.arange(len(data)))}


def test_pictures_and_labels_belong_together(data: PackedSplit) -> None:
    label_of = {
        picture.tobytes(): label
        for picture, label in zip(data.pictures(range(len(data))), data.labels, strict=True)
    }
    for pictures, labels in batches_of(data, epoch=3):
        for picture, label in zip(pictures, labels, strict=True):
            assert label_of[picture.numpy().tobytes()] == label


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_workers_change_nothing(data: PackedSplit, workers: int) -> None:
    assert equal(batches_of(data), batches_of(data, reading=Reading("workers", workers)))


def test_an_epoch_goes_on_from_any_step(data: PackedSplit) -> None:
    assert equal(batches_of(data)[3:], batches_of(data, first_step=3))


def test_order_follows_seed_and_epoch_alone(data: PackedSplit) -> None:
    torch.manual_seed(1)
    first = batches_of(data)
    torch.manual_seed(2)
    assert equal(first, batches_of(data))
    assert not equal(first, batches_of(data, epoch=1))
    assert not equal(first, batches_of(data, seed=1))


def test_reading_draws_nothing_from_the_global_generator(data: PackedSplit) -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    batches_of(data, reading=Reading("workers", 2))
    assert torch.equal(before, torch.get_rng_state())


def test_a_batch_larger_than_the_data_holds_all_of_it(data: PackedSplit) -> None:
    ((pictures, labels),) = batches_of(data, batch_size=10_000)
    assert len(pictures) == len(labels) == len(data)


def test_what_an_epoch_leaves_out_is_said() -> None:
    assert told_of_rest(97, 64, "random") == (
        "train: an epoch is 1 step of 64 pictures: 33 of 97 are left out, others in each"
    )
    assert told_of_rest(29, 10, "random").startswith("train: an epoch is 2 steps of 10 pictures")
    assert told_of_rest(29, 10, "balanced") == ""  # drawn with replacement
    assert told_of_rest(1077, 32, "random") == told_of_rest(64, 64, "random") == ""
    assert "one step of 43 pictures per epoch: there are no 64" in told_of_rest(43, 64, "balanced")


def test_evaluation_keeps_the_order(data: PackedSplit) -> None:
    labels = torch.cat([labels for _, labels in ordered_batches(data, CPU)])
    assert np.array_equal(labels.numpy(), data.labels)


def test_to_input_normalises_each_channel(data: PackedSplit) -> None:
    pictures = torch.from_numpy(data.pictures(range(8)))
    mean, std = [0.1, 0.2, 0.3], [0.5, 0.25, 0.2]
    entering = to_input(pictures, mean, std)
    assert entering.shape == (8, 3, 16, 16)
    expected = (data.pictures(range(8)) / 255 - np.array(mean)) / np.array(std)
    assert np.allclose(entering.numpy(), expected.transpose(0, 3, 1, 2), atol=1e-5)


def test_prepared_pictures_enter_with_mean_zero_and_std_one(data: PackedSplit) -> None:
    everything = torch.from_numpy(data.pictures(range(len(data))))
    entering = to_input(everything, data.meta["mean"], data.meta["std"])
    assert entering.mean(dim=(0, 2, 3)).abs().max() < 1e-3
    assert (entering.std(dim=(0, 2, 3)) - 1).abs().max() < 1e-3


def test_purposes_are_independent() -> None:
    numbers = {
        randomness.derive(seed, purpose, step)
        for seed in range(3)
        for purpose in ("weights", "order", "augment", "dropout")
        for step in range(50)
    }
    assert len(numbers) == 600
    assert all(0 <= number < 2**63 for number in numbers)


def test_a_step_seeds_dropout_whatever_came_before() -> None:
    ones = torch.ones(1000)
    randomness.seed_step(0, 7, CPU)
    first = torch.nn.functional.dropout(ones)
    torch.rand(13)
    randomness.seed_step(0, 7, CPU)
    assert torch.equal(first, torch.nn.functional.dropout(ones))
    randomness.seed_step(0, 8, CPU)
    assert not torch.equal(first, torch.nn.functional.dropout(ones))
