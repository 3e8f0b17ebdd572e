"""Metrics of src/yours/metrics.py: their names, their values, and the epoch that they choose."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from src.plumbing.errors import InputError
from src.reports.metrics import own_split_metrics
from src.training import own_metrics
from src.yours import metrics as yours
from tests.training.trainings import Splits, ended, make_training

LABELS = np.arange(60) % 3
PROBABILITIES = np.eye(3)[np.where(np.arange(60) < 15, 0, LABELS)]  # 50 of 60 are right


def use(monkeypatch: pytest.MonkeyPatch, **metrics: Any) -> None:
    monkeypatch.setattr(yours, "METRICS", metrics)


def of_label_0(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """The recall of class 0; NaN without a sample of it."""
    return float(np.mean(probabilities[labels == 0].argmax(axis=1) == 0))


def top_2(labels: np.ndarray, probabilities: np.ndarray) -> float:
    best = probabilities.argsort(axis=1)[:, -2:]
    return float((best == labels[:, None]).any(axis=1).mean())


@pytest.mark.parametrize(
    ("metrics", "line"),
    [
        ({"Top": (top_2, 0, 1)}, "must be lower case, .*, got 'Top'"),
        ({"top_low": (top_2, 0, 1)}, "not end in _low or _high, got 'top_low'"),
        ({"macro_f1": (top_2, 0, 1)}, "macro_f1 is a metric already"),
        ({"top": top_2}, r"top must be \(function, least value, greatest value\)"),
    ],
)
def test_names_and_entries(
    metrics: dict[str, Any], line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(monkeypatch, **metrics)
    with pytest.raises(InputError, match=f"src/yours/metrics.py: .*{line}"):
        own_metrics.names()


def test_no_name_of_metrics_json_is_free(finished: tuple[Path, object]) -> None:
    import json

    found = json.loads((finished[0] / "results/evaluate/metrics.json").read_text())["val"]
    whole = {name.removesuffix("_low").removesuffix("_high") for name in found}
    taken = {*own_metrics.OF_TRAINING, *own_metrics.OF_EVALUATION}
    assert whole - set(own_metrics.names()) == taken - {"loss", "groups"}


@pytest.mark.parametrize(
    ("value", "line"),
    [(1.5, "must be in 0 to 1, and is 1.5 on val"), (math.nan, "is nan on val"), ("x", "ValueErr")],
)
def test_a_value_outside_of_its_range_is_refused(
    value: Any, line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(monkeypatch, odd=(lambda *_: value, 0, 1))
    with pytest.raises(InputError, match=f"src/yours/metrics.py: odd .*{line}"):
        own_metrics.value("odd", LABELS, PROBABILITIES, "val")


def test_a_mistake_is_told_before_the_training(monkeypatch: pytest.MonkeyPatch) -> None:
    own_metrics.try_out(LABELS, 3)
    use(monkeypatch, top_2=(top_2, 0, 1), odd=(lambda *_: 2.0, 0, 1))
    with pytest.raises(InputError, match=r"odd must be in 0 to 1, and is 2\.0 on val"):
        own_metrics.try_out(LABELS, 3)


def test_the_interval_is_that_of_resampled_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    """For a share, it is that of the binomial distribution, but for what resampling moves."""
    share = (lambda labels, p: float((p.argmax(axis=1) == labels).mean()), 0, 1)
    use(monkeypatch, share=share)
    found = own_split_metrics(LABELS, PROBABILITIES, "val")
    assert found["share"] == pytest.approx(50 / 60)
    reach = 1.96 * math.sqrt(50 / 60 * 10 / 60 / 60)
    assert found["share_low"] == pytest.approx(50 / 60 - reach, abs=0.02)
    assert found["share_high"] == pytest.approx(50 / 60 + reach, abs=0.02)
    assert own_split_metrics(LABELS, PROBABILITIES, "val") == found
    assert own_split_metrics(LABELS, PROBABILITIES, "val", 1)["share_low"] != found["share_low"]


def test_groups_are_resampled_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each sample four times over, as a group: no interval gets narrower by that."""
    share = (lambda labels, p: float((p.argmax(axis=1) == labels).mean()), 0, 1)
    use(monkeypatch, share=share)
    one = own_split_metrics(LABELS, PROBABILITIES, "val")
    labels, probabilities = LABELS.repeat(4), PROBABILITIES.repeat(4, axis=0)
    groups = np.arange(60).repeat(4)
    assert own_split_metrics(labels, probabilities, "val", 0, groups) == pytest.approx(one)
    plain = own_split_metrics(labels, probabilities, "val")
    assert plain["share_high"] - plain["share_low"] < 0.6 * (one["share_high"] - one["share_low"])


@pytest.mark.filterwarnings("ignore:Mean of empty slice", "ignore:invalid value")
def test_resamples_without_a_class_do_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, rare=(of_label_0, 0, 1))
    labels = np.array([0] + [1] * 59)
    found = own_split_metrics(labels, np.eye(2)[labels], "val")
    assert (found["rare_low"], found["rare_high"]) == (1.0, 1.0)
    use(monkeypatch, rare=(lambda y, p: of_label_0(y, p) if len(set(y)) > 2 else math.nan, 0, 1))
    with pytest.raises(InputError, match="rare must be in 0 to 1, and is nan"):
        own_split_metrics(labels, np.eye(2)[labels], "val")


def test_it_chooses_the_epoch(few: Splits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = iter([0.5, 0.9, 0.7])
    use(monkeypatch, mine=(lambda *_: next(values), 0, 1))
    training = ended(few, tmp_path, best_by="val/mine", epochs=3)
    assert [row["val_mine"] for row in training.history] == [0.5, 0.9, 0.7]
    assert training.best.epoch == 2


def test_it_gets_the_probabilities_of_validation(
    few: Splits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def share(labels: np.ndarray, probabilities: np.ndarray) -> float:
        assert np.allclose(probabilities.sum(axis=1), 1)
        return float((probabilities.argmax(axis=1) == labels).mean())

    use(monkeypatch, share=(share, 0, 1))
    for loss in ("cross_entropy", "bce"):
        training = ended(few, tmp_path / loss, best_by="val/share", epochs=1, loss=loss)
        [row] = training.history
        assert row["val_share"] == pytest.approx(row["val_accuracy"])


def test_a_name_that_nobody_has_is_refused(few: Splits) -> None:
    with pytest.raises(InputError, match=r"best_by val/acuracy .*, did you mean val/accuracy\?$"):
        make_training(few, best_by="val/acuracy")
