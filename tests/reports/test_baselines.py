"""The two baselines that a net has to beat."""

from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_digits

from src.base.files import write_json
from src.data.packed import PackedSplit
from src.data.writer import SplitWriter
from src.reports import baselines
from src.reports.baselines import Baselines, baseline_choice
from tests.conftest import run_stage, set_params


def test_baselines_on_digits(project: Path) -> None:
    """Logistic regression on digits is known to reach about 0.966 on a fifth held out."""
    set_params(project, source="digits", size=8, channels=1)
    run_stage(project, "prepare")
    train, val, test = (
        PackedSplit(project / "data/prepared", split) for split in ("train", "val", "test")
    )
    found = Baselines(train)
    assert found.majority == np.bincount(train.labels).argmax()
    logistic, majority = found.accuracy(test)
    assert logistic > 0.94
    assert majority == (test.labels == found.majority).mean()
    assert len(train) + len(val) + len(test) == len(load_digits().target)


def write_unbalanced(folder: Path, counts: list[int]) -> PackedSplit:
    """Class after class of grey images in order of sha256: the first by hash are all of class 0."""
    with SplitWriter(folder, "train", {"size": 2, "channels": 1}) as writer:
        for label, count in enumerate(counts):
            for _ in range(count):
                image = np.full((2, 2, 1), 50 * label + writer.count % 7, dtype=np.uint8)
                writer.add(image, label, "x", f"{writer.count:064x}")
    meta = {
        "classes": [str(label) for label in range(len(counts))],
        "size": 2,
        "channels": 1,
        "mean": [0.5],
        "std": [0.5],
        "shards": {"train": writer.shards},
    }
    write_json(folder / "meta.json", meta)
    return PackedSplit(folder, "train")


def test_the_baseline_sees_every_class(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train = write_unbalanced(tmp_path, [300, 3, 97])
    monkeypatch.setattr(baselines, "BASELINE_SAMPLES", 40)
    chosen = baseline_choice(train)
    # Shares of 30, 0.3 and 9.7 images; the first ones by hash of each class.
    assert chosen.tolist() == [*range(30), 300, *range(303, 312)]
    logistic, majority = Baselines(train).accuracy(train)
    assert logistic > 0.98
    assert majority == 0.75


def test_the_baseline_takes_images_by_their_hash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train = write_unbalanced(tmp_path, [60, 40])
    train.sha256.reverse()
    monkeypatch.setattr(baselines, "BASELINE_SAMPLES", 10)
    assert baseline_choice(train).tolist() == [*range(54, 60), *range(96, 100)]


@pytest.mark.parametrize("limit", [63, 64])
def test_the_baseline_takes_all_of_a_small_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int
) -> None:
    train = write_unbalanced(tmp_path, [50, 13])
    monkeypatch.setattr(baselines, "BASELINE_SAMPLES", limit)
    assert baseline_choice(train).tolist() == list(range(63))
