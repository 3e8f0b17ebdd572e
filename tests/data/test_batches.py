"""Order of the samples and what enters the net: functions of (seed, epoch, step) alone."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from src.data.batches import (
    leftover_remark,
    steps_per_epoch,
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
    assert rows == {row.tobytes() for row in data.rows(np.arange(len(data)))}


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
    ((images, labels),) = batches_of(data, batch_size=10_000)
    assert len(images) == len(labels) == len(data)


def test_what_an_epoch_leaves_out_is_said() -> None:
    assert leftover_remark(97, 64, "random") == (
        "train: an epoch is 1 step of 64 samples: 33 of 97 are left out, others in each"
    )
    assert leftover_remark(29, 10, "random").startswith("train: an epoch is 2 steps of 10 samples")
    assert leftover_remark(29, 10, "balanced") == ""  # drawn with replacement
    assert leftover_remark(1077, 32, "random") == leftover_remark(64, 64, "random") == ""
    assert "one step of 43 samples per epoch: there are no 64" in leftover_remark(
        43, 64, "balanced"
    )
