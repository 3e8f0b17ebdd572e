"""Stores that are not there, break, or lose runs: the work goes on and no point is lost."""

from pathlib import Path

import pytest

from src.stage import Stage
from src.tracking import run as tracking
from src.tracking import store
from tests.tracked_project import (
    DIGEST,
    evaluate,
    history,
    runs,
    train,
    train_until,
)


def test_a_store_that_was_deleted_gets_all_points_again(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(KeyboardInterrupt):
        train_until(KeyboardInterrupt)
    [old] = runs(project)
    client, _ = store.open_store(project)
    client.delete_run(old.info.run_id)
    with tracking.start(Stage("train")) as run:
        run.log_metrics({"loss": 0.25}, step=2)
    [new] = runs(project)
    assert new.info.run_id != old.info.run_id
    assert history(project, new, "loss") == [(1, 0.5), (2, 0.25)]
    line = f"the run {old.info.run_id} is not in the store any more; its points go to another one"
    assert capsys.readouterr().err == f"tracking: {line}\n"


def test_without_a_store_the_work_goes_on_and_points_wait(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stage = Stage("train")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:////proc/nothing/mlflow.db")
    with tracking.start(stage) as run:
        for step in range(3):
            run.log_metrics({"loss": step}, step)
        run.log_artifact("params.yaml")
        run.log_input("digits", DIGEST, "training")
        run.describe("text")
    journal = f".cache/journal/{stage.fingerprint}.jsonl"
    first, last = capsys.readouterr().err.splitlines()
    assert first.startswith("tracking: ")
    assert first.endswith(f"; 0 points wait in {journal}")
    assert last == f"tracking: the store did not take everything; 3 points wait in {journal}"
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    train(value=0.5)  # the store is back: its run takes what waited
    [stored] = runs(project)
    assert history(project, stored, "loss") == [(0, 0), (1, 1), (2, 2)]
    assert not (project / journal).exists()


def test_a_finished_run_gets_no_points_of_one_without_a_store(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train()
    [first] = runs(project)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:////proc/nothing/mlflow.db")
    train(value=0.25)
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    train(value=0.25)
    second, again = runs(project)
    assert again.info.run_id == first.info.run_id
    assert history(project, again, "train/loss") == [(1, 0.5)]
    assert history(project, second, "train/loss") == [(1, 0.25)]
    assert second.data.tags["repeat_of"] == first.info.run_id


def test_a_store_that_fails_later_stops_nothing(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stage = Stage("train")
    with tracking.start(stage) as run:
        [stored] = runs(project)
        database = (project / "mlflow.db").read_bytes()
        (project / "mlflow.db").write_bytes(b"broken" * 1000)
        run.log_metrics({"loss": 0.5}, step=1)
        run.set_tags({"note": 1})
        run.describe("text")
        run.log_metrics({"loss": 0.25}, step=2)
    first, last = capsys.readouterr().err.splitlines()
    journal = f".cache/journal/{stored.info.run_id}.jsonl"
    assert first.startswith("tracking: ")
    assert first.endswith(f"; 1 points wait in {journal}")
    assert last == f"tracking: the store did not take everything; 2 points wait in {journal}"
    (project / "mlflow.db").write_bytes(database)
    evaluate(stage.fingerprint)  # the next one that writes into the run sends them and ends it
    [stored] = runs(project)
    assert history(project, stored, "loss") == [(1, 0.5), (2, 0.25)]
    assert stored.info.status == "FINISHED"


def test_a_file_that_is_missing_stops_nothing(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with tracking.start(Stage("train")) as run:
        run.log_artifact("no/such/file")
        run.set_tags({"note": 1})
        run.log_metrics({"loss": 0.5}, step=1)
    [stored] = runs(project)
    assert stored.data.tags["note"] == "1"
    assert stored.info.status == "FINISHED"
    [line] = capsys.readouterr().err.splitlines()
    assert "no/such/file" in line
