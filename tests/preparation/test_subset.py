"""The subset is small, balanced and stable."""

from pathlib import Path

import numpy as np
import pytest

from src.data.packed import PackedSplit
from src.subset import balanced_choice
from tests.conftest import run_stage, set_params


def test_subset_is_balanced_and_stable(finished: tuple[Path, object]) -> None:
    full = PackedSplit(finished[0] / "data/prepared", "train")
    chosen = balanced_choice(full, 9, seed=0)
    assert np.bincount(full.labels[chosen]).tolist() == [9, 9, 9]
    assert chosen == sorted(set(chosen))
    assert balanced_choice(full, 9, seed=1) != chosen
    assert set(balanced_choice(full, 5, seed=0)) < set(chosen)
    rarest = int(np.bincount(full.labels).min())
    assert np.bincount(full.labels[balanced_choice(full, 999, 0)]).tolist() == [rarest] * 3


def test_a_class_that_val_lacks_does_not_empty_the_subset(finished: tuple[Path, object]) -> None:
    full = PackedSplit(finished[0] / "data/prepared", "val")
    full.labels = np.where(full.labels == 1, 0, full.labels)
    chosen = balanced_choice(full, 5, seed=0)
    assert np.bincount(full.labels[chosen]).tolist() == [5, 0, 5]


def test_subset_keeps_the_statistics_of_the_full_data(finished: tuple[Path, object]) -> None:
    full = PackedSplit(finished[0] / "data/prepared", "train")
    small = PackedSplit(finished[0] / "data/subset", "train")
    assert (small.meta["mean"], small.meta["std"]) == (full.meta["mean"], full.meta["std"])
    assert set(small.sha256) <= set(full.sha256)
    number = full.sha256.index(small.sha256[4])
    assert np.array_equal(small.rows([4]), full.rows([number]))


def subset_of(project: Path) -> dict[str, PackedSplit]:
    run_stage(project, "subset")
    return {split: PackedSplit(project / "data/subset", split) for split in ("train", "val")}


def counts(splits: dict[str, PackedSplit]) -> dict[str, list[int]]:
    return {split: np.bincount(data.labels).tolist() for split, data in splits.items()}


@pytest.mark.parametrize("many", [1, 7])
@pytest.mark.parametrize("split", ["train", "val"])
def test_subset_per_class(copied: Path, split: str, many: int) -> None:
    before = counts(subset_of(copied))
    set_params(copied, **{f"{split}_per_class": many})
    assert counts(subset_of(copied)) == {**before, split: [many] * 3}


def test_subset_seed(copied: Path) -> None:
    first = subset_of(copied)
    before = {split: set(data.sha256) for split, data in first.items()}  # read when asked for
    text = (copied / "params.yaml").read_text()
    (copied / "params.yaml").write_text(text.replace("\n  seed: 0", "\n  seed: 1"))
    second = subset_of(copied)
    assert counts(first) == counts(second)
    assert all(before[split] != set(second[split].sha256) for split in first)
