"""Randomness is a function of (seed, purpose, step)."""

import pytest
import torch

from src.base import randomness
from src.base.randomness import balanced_order

CPU = torch.device("cpu")


def test_balanced_sampling_draws_each_class_as_often() -> None:
    labels = torch.tensor([0] * 900 + [2] * 90 + [5] * 10)
    drawn = labels[balanced_order(0, 0, labels)]
    assert len(drawn) == 1000
    shares = torch.bincount(drawn) / 1000
    assert shares[[0, 2, 5]].tolist() == pytest.approx([1 / 3] * 3, abs=0.06)
    assert torch.equal(balanced_order(0, 1, labels), balanced_order(0, 1, labels))
    assert not torch.equal(balanced_order(0, 0, labels), balanced_order(0, 1, labels))
    rare = balanced_order(0, 0, labels)
    assert set(rare[labels[rare] == 5].tolist()) == set(range(990, 1000))


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
