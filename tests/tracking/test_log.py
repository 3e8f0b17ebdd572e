"""What a stage logs, in MLflow's words; and what is done when its run has ended."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from src.plumbing import locks
from src.plumbing.errors import GateError
from src.plumbing.hashes import md5_of
from src.plumbing.stage import Stage
from src.tracking import run as tracking
from src.tracking.journal.journal import lock_path
from src.tracking.log import Log
from src.tracking.lookup import KIND
from tests.tracking.tracked_project import MODEL, artifacts, edit, evaluate, runs


class Noted(Log):
    """Keeps what reaches the two calls that others are made of."""

    def __init__(self) -> None:
        self.points: list[tuple[dict[str, float], int]] = []
        self.tags: dict[str, Any] = {}

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        self.points.append((dict(metrics), step))

    def set_tags(self, tags: Mapping[str, Any]) -> None:
        self.tags.update(tags)


def test_a_row_of_history_becomes_metrics_by_split() -> None:
    log = Noted()
    row = {"epoch": 3.0, "train_loss": 0.5, "val_macro_f1": 0.75, "lr": 0.1, "grad_norm": 2.0}
    log.log_epoch(row)
    metrics = {"train/loss": 0.5, "val/macro_f1": 0.75, "train/lr": 0.1, "train/grad_norm": 2.0}
    assert log.points == [(metrics, 3)]
    assert row["epoch"] == 3.0


def test_figures_that_have_a_curve_come_after_its_end_and_others_are_single_numbers() -> None:
    log = Noted()
    metrics = {"val": {"n": 9, "accuracy": 0.5, "own": 0.6}, "test": {"accuracy": 0.25}}
    log.log_evaluation(metrics, 12, best_by="val/own")
    assert log.points == [
        ({"val/n": 9.0}, 0),
        ({"val/accuracy": 0.5}, 13),
        ({"val/own": 0.6}, 13),
        ({"zz_test/accuracy": 0.25}, 0),
    ]


def test_test_comes_last_by_name_and_ends_of_intervals_have_no_charts() -> None:
    log = Noted()
    log.log_epoch({"epoch": 1, "lr": 0.1, "train_loss": 0.5, "val_loss": 0.5})
    ends = {"accuracy_low": 0.4, "accuracy_high": 0.6, "share_low": 0.5}
    values = {"accuracy": 0.5} | ends
    log.log_evaluation({"val": values, "test": values}, 1, "val/loss")
    names = sorted(name for metrics, _ in log.points for name in metrics)
    # The last is a figure of its own, not the end of one.
    assert names[-2:] == ["zz_test/accuracy", "zz_test/share_low"]
    assert names[:-2] == ["train/loss", "train/lr", "val/accuracy", "val/loss", "val/share_low"]


def test_curves_begin_at_step_1() -> None:
    log = Noted()
    log.log_curves({"subset": {"loss": [2.0, 1.0], "accuracy": [0.5, 1.0]}, "batch": {}}, "train")
    assert log.points == [
        ({"train/subset_loss": 2.0, "train/subset_accuracy": 0.5}, 1),
        ({"train/subset_loss": 1.0, "train/subset_accuracy": 1.0}, 2),
    ]


def test_the_machines_of_a_training_are_one_tag() -> None:
    log = Noted()
    log.log_machines(["cuda", "cpu"])
    assert log.tags == {KIND: "cuda + cpu"}


def test_data_are_inputs_and_a_training_gets_what_is_for_people(project: Path) -> None:
    folder = Path("data/prepared")
    (folder / "meta.json").write_text(json.dumps({"shards": {"train": 1, "val": 1}}))
    for name in ("train.csv", "val.csv", "train-images-00000.npy", "report.csv", "samples.png"):
        (folder / name).write_text(name)
    (folder / "more").mkdir()
    stage = Stage("train")
    with tracking.start(stage) as log:
        log.log_data("data/prepared", ("train", "val"))
    evaluation = Stage("evaluate")
    with tracking.reopen(evaluation, stage.fingerprint, evaluation.deps_md5[MODEL]) as log:
        log.log_data("data/prepared", ("test",))
    [stored] = runs(project)
    inputs = {
        (item.tags[0].value, item.dataset.name, item.dataset.digest)
        for item in stored.inputs.dataset_inputs
    }
    digest = md5_of("data/prepared")
    assert inputs == {
        ("train", "data/prepared:train", digest),
        ("val", "data/prepared:val", digest),
        ("evaluate test", "data/prepared:test", digest),
    }
    names = sorted(file.name for file in (artifacts(project, stored) / "data").iterdir())
    assert names == ["meta.json", "report.csv", "samples.png"]


def test_a_folder_without_meta_json_stops_nothing(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("data/prepared/meta.json").rename("data/prepared/other.json")
    with tracking.start(Stage("train")) as log:
        log.log_data("data/prepared", ("train",))
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("tracking: cannot log what data/prepared shows: ")
    assert runs(project)[0].info.status == "FINISHED"


@pytest.mark.parametrize("tracked", [True, False])
def test_what_comes_afterwards_is_done_when_all_was_sent_inside_the_lock(
    tracked: bool, project: Path
) -> None:
    if not tracked:
        edit("params.yaml", "tracking: true", "tracking: false")
    stage, done = Stage("train"), []

    def afterwards() -> None:
        with locks.try_hold(lock_path(project, stage.fingerprint)) as free:
            done.append(free)
        if tracked:
            [stored] = runs(project)
            assert stored.info.status == "FINISHED"
            assert stored.data.metrics == {"loss": 0.5}

    with tracking.start(stage, afterwards=afterwards) as log:
        log.log_metrics({"loss": 0.5}, step=1)
        assert not done
    assert done == [False]


@pytest.mark.parametrize("tracked", [True, False])
def test_what_comes_afterwards_is_not_done_for_a_run_that_failed_or_changed_its_inputs(
    tracked: bool, project: Path
) -> None:
    if not tracked:
        edit("params.yaml", "tracking: true", "tracking: false")
    with (
        pytest.raises(ValueError, match="no"),
        tracking.start(Stage("train"), afterwards=pytest.fail),
    ):
        raise ValueError("no")
    with (
        pytest.raises(GateError, match=r"lr changed while the stage ran"),
        tracking.start(Stage("train"), afterwards=pytest.fail),
    ):
        edit("params.yaml", "lr: 0.001 ", "lr: 0.002 ")


def test_the_md5_of_a_logged_model_leads_to_its_run(project: Path) -> None:
    with tracking.start(Stage("train")) as log:
        log.log_model(Path("models"))
    shutil.rmtree(".cache")
    evaluate()
    [stored] = runs(project)
    assert stored.data.tags["model.md5"] == md5_of(MODEL)
    assert stored.data.metrics["test/accuracy"] == 0.75
