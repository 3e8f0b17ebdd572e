"""Which split a content falls into."""

import pytest

from src.data.split import split_of


def test_split_shares_and_seed() -> None:
    names = [f"{number:064x}" for number in range(20000)]
    splits = [split_of(name, 0, 0.2, 0.1) for name in names]
    assert splits.count("val") / 20000 == pytest.approx(0.2, abs=0.01)
    assert splits.count("test") / 20000 == pytest.approx(0.1, abs=0.01)
    other_val = [split_of(name, 0, 0.4, 0.1) for name in names]
    assert [s == "test" for s in splits] == [s == "test" for s in other_val]
    assert splits != [split_of(name, 1, 0.2, 0.1) for name in names]
