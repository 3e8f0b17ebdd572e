"""Metrics against scikit-learn and against counts by hand."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from sklearn import metrics as reference
from sklearn.datasets import load_digits

from src import metrics as metrics_module
from src.data.pack import SplitWriter
from src.data.packed import PackedSplit
from src.files import write_json
from src.metrics import (
    Baselines,
    _pixels,
    baseline_choice,
    interval,
    per_class_rows,
    softmax,
    split_metrics,
)
from tests.conftest import run_stage, set_params


@pytest.fixture(scope="module")
def predictions() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(300, 5)).astype(np.float32) * 3
    labels = np.where(rng.random(300) < 0.6, logits.argmax(1), rng.integers(0, 4, 300))
    return labels, softmax(logits)


def test_split_metrics(predictions: tuple[np.ndarray, np.ndarray]) -> None:
    labels, probabilities = predictions
    found = split_metrics(labels, probabilities)
    guess = probabilities.argmax(1)
    assert found["n"] == 300
    assert found["accuracy"] == pytest.approx(reference.accuracy_score(labels, guess))
    f1 = [reference.f1_score(labels == k, guess == k, zero_division=0) for k in range(5)]
    assert found["macro_f1"] == pytest.approx(np.mean(f1))
    assert found["log_loss"] == pytest.approx(-np.log(probabilities[range(300), labels]).mean())
    assert found["accuracy_low"] < found["accuracy"] < found["accuracy_high"]


def test_a_class_without_samples_counts_in_macro_f1() -> None:
    probabilities = np.eye(3)[[0, 1, 0, 1]] * 0.97 + 0.01
    found = split_metrics(np.array([0, 1, 0, 1]), probabilities)
    assert found["accuracy"] == 1
    assert found["macro_f1"] == pytest.approx(2 / 3)


def test_interval_is_wilson() -> None:
    """Wilson 1927, by its formula, and at the ends."""
    z, k, n = 1.959964, 90, 100
    centre = (k / n + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * np.sqrt(k / n * (1 - k / n) / n + z * z / (4 * n * n))
    assert interval(k, n) == pytest.approx((centre - half, centre + half), abs=1e-6)
    assert interval(100, 100)[1] == 1
    assert interval(0, 100)[0] == 0


def test_softmax_survives_large_logits() -> None:
    found = softmax(np.array([[1000.0, 0.0], [0.0, 0.0]], dtype=np.float32))
    assert found.tolist() == [[1.0, 0.0], [0.5, 0.5]]


def test_per_class_rows(predictions: tuple[np.ndarray, np.ndarray]) -> None:
    labels, probabilities = predictions
    guess = probabilities.argmax(1)
    rows = per_class_rows(labels, guess, ["a", "b", "c", "d", "e"])
    name, pictures, precision, recall, _ = rows[1]
    hits = ((labels == 1) & (guess == 1)).sum()
    assert (name, pictures) == ("b", (labels == 1).sum())
    assert precision == pytest.approx(hits / (guess == 1).sum())
    assert recall == pytest.approx(hits / (labels == 1).sum())


def test_files_of_evaluate_agree_with_each_other(finished: tuple[Path, object]) -> None:
    folder = finished[0] / "results/evaluate"
    metrics = json.loads((folder / "metrics.json").read_text())
    with open(folder / "predictions.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    for split in ("val", "test"):
        mine = [row for row in rows if row["split"] == split]
        hits = [row["label"] == row["prediction"] for row in mine]
        assert metrics[split]["n"] == len(mine)
        assert metrics[split]["accuracy"] == pytest.approx(np.mean(hits), abs=1e-6)
        loss = -np.mean([np.log(float(row[f"probability {row['label']}"])) for row in mine])
        assert metrics[split]["log_loss"] == pytest.approx(loss, rel=1e-4)
        labels = [row["label"] for row in mine]
        assert max(map(labels.count, labels)) / len(labels) >= metrics[split]["majority_accuracy"]
    data = PackedSplit(finished[0] / "data/prepared", "test")
    names = [data.meta["classes"][label] for label in data.labels]
    assert [row["label"] for row in rows if row["split"] == "test"] == names


def test_no_key_in_two_metrics_files(finished: tuple[Path, object]) -> None:
    train = json.loads((finished[0] / "results/train/metrics.json").read_text())
    evaluate = json.loads((finished[0] / "results/evaluate/metrics.json").read_text())
    assert not set(train) & set(evaluate)
    assert set(evaluate) == {"val", "test"}
    assert set(evaluate["val"]) == {
        "n", "accuracy", "accuracy_low", "accuracy_high", "macro_f1", "log_loss",
        "baseline_accuracy", "majority_accuracy",
    }  # fmt: skip


def test_validation_loss_of_the_best_epoch_is_that_of_evaluate(
    finished: tuple[Path, object],
) -> None:
    """The kept weights, written, read again and evaluated by other code, give the same numbers."""
    about = json.loads((finished[0] / "models/model.json").read_text())
    metrics = json.loads((finished[0] / "results/evaluate/metrics.json").read_text())
    with open(finished[0] / "results/train/history.csv", newline="") as file:
        best = list(csv.DictReader(file))[about["best_epoch"] - 1]
    assert float(best["val_accuracy"]) == metrics["val"]["accuracy"]
    assert float(best["val_loss"]) == pytest.approx(metrics["val"]["log_loss"], rel=1e-4)


def test_baselines_on_digits(project: Path) -> None:
    """Logistic regression on digits is known to reach about 0.966 on a fifth held out."""
    set_params(project, source="digits", size=8, channels=1)
    run_stage(project, "prepare")
    train, val, test = (
        PackedSplit(project / "data/prepared", split) for split in ("train", "val", "test")
    )
    baselines = Baselines(train)
    assert baselines.majority == np.bincount(train.labels).argmax()
    logistic, majority = baselines.accuracy(test)
    assert logistic > 0.94
    assert majority == (test.labels == baselines.majority).mean()
    assert len(train) + len(val) + len(test) == len(load_digits().target)


def write_unbalanced(folder: Path, counts: list[int]) -> PackedSplit:
    """Class after class of grey pictures in ascending order of sha256, so that the first pictures
    by hash are all of class 0."""
    with SplitWriter(folder, "train", (2, 2, 1)) as writer:
        for label, count in enumerate(counts):
            for _ in range(count):
                picture = np.full((2, 2, 1), 50 * label + len(writer.rows) % 7, dtype=np.uint8)
                writer.add(picture, label, "x", f"{len(writer.rows):064x}")
    meta = {"classes": [str(label) for label in range(len(counts))], "size": 2, "channels": 1,
            "mean": [0.5], "std": [0.5], "shards": {"train": writer.shards}}  # fmt: skip
    write_json(folder / "meta.json", meta)
    return PackedSplit(folder, "train")


def test_the_baseline_sees_every_class(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train = write_unbalanced(tmp_path, [300, 3, 97])
    monkeypatch.setattr(metrics_module, "BASELINE_PICTURES", 40)
    chosen = baseline_choice(train)
    # Shares of 30, 0.3 and 9.7 pictures; the first ones by hash of each class.
    assert chosen.tolist() == [*range(30), 300, *range(303, 312)]
    logistic, majority = Baselines(train).accuracy(train)
    assert logistic > 0.98
    assert majority == 0.75


def test_the_baseline_takes_pictures_by_their_hash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train = write_unbalanced(tmp_path, [60, 40])
    train.sha256.reverse()
    monkeypatch.setattr(metrics_module, "BASELINE_PICTURES", 10)
    assert baseline_choice(train).tolist() == [*range(54, 60), *range(96, 100)]


@pytest.mark.parametrize("limit", [63, 64])
def test_the_baseline_takes_all_of_a_small_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int
) -> None:
    train = write_unbalanced(tmp_path, [50, 13])
    monkeypatch.setattr(metrics_module, "BASELINE_PICTURES", limit)
    assert baseline_choice(train).tolist() == list(range(63))


def test_pixels_are_averaged_over_blocks(finished: tuple[Path, object]) -> None:
    data = PackedSplit(finished[0] / "data/prepared", "val")
    rows = _pixels(data, np.arange(3))
    assert np.allclose(rows, data.pictures(range(3)).reshape(3, -1) / 255)  # 16 px: nothing to do
