"""Stores that are not there, break, or lose runs: the work goes on and no point is lost."""

import shutil
import sqlite3
import time
from pathlib import Path

import pytest

from src.plumbing.stage import Stage
from src.tracking import run as tracking
from src.tracking.store import store
from tests.tracking.tracked_project import DIGEST, evaluate, history, runs, train, train_until


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
    outbox = f".cache/waiting/{stage.fingerprint}"
    waiting = f"3 points wait in {journal}, 1 file in {outbox}"
    assert last == f"tracking: the store did not take everything; {waiting}"
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    train(value=0.5)  # the store is back: its run takes what waited
    [stored] = runs(project)
    assert history(project, stored, "loss") == [(0, 0), (1, 1), (2, 2)]
    assert not (project / journal).exists()
    assert not (project / outbox).exists()


def test_another_store_gets_a_run_of_its_own(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(project / "mlflow.db", project / "other.db")
    with pytest.raises(KeyboardInterrupt):
        train_until(KeyboardInterrupt)
    [first] = runs(project)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///other.db")
    with pytest.raises(KeyboardInterrupt):
        train_until(KeyboardInterrupt, step=2)
    [second] = runs(project)
    assert second.info.run_id != first.info.run_id
    assert history(project, second, "loss") == [(1, 0.5), (2, 0.25)]
    here = "sqlite:///mlflow.db"
    line = f"the run {first.info.run_id} is in {here}; {second.info.run_id} here gets its points"
    assert capsys.readouterr().err == f"tracking: {line}, too\n"
    monkeypatch.delenv("MLFLOW_TRACKING_URI")  # and back: nothing was lost
    with tracking.start(Stage("train")) as run:
        run.log_metrics({"loss": 0.125}, step=3)
    [again] = runs(project)
    assert again.info.run_id == first.info.run_id
    assert history(project, again, "loss") == [(1, 0.5), (2, 0.25), (3, 0.125)]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///other.db")
    assert [run.info.run_id for run in runs(project)] == [second.info.run_id]


def test_evaluate_finds_no_run_of_another_store(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(project / "mlflow.db", project / "other.db")
    train()
    [first] = runs(project)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///other.db")
    for _ in range(2):
        evaluate(Stage("train").fingerprint)
    [second] = runs(project)
    assert second.data.tags["restored"] == "true"
    assert history(project, second, "train/loss") == [(1, 0.5)]
    assert history(project, second, "test/accuracy") == [(0, 0.75)]
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    evaluate(Stage("train").fingerprint)
    [again] = runs(project)
    assert again.info.run_id == first.info.run_id
    assert history(project, again, "test/accuracy") == [(0, 0.75)]


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("garbage", "cannot be opened: file is not a database"),
        ("folder", "is a folder, not a SQLite file"),
        ("locked", "cannot be opened: database is locked"),
        ("below a file", "cannot be made: its folder is a file"),
    ],
)
def test_a_file_that_is_no_store_costs_a_line(
    kind: str,
    reason: str,
    project: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(store, "LOCK_SECONDS", 0.2)
    file = project / "mlflow.db"
    holder = sqlite3.connect(file)
    if kind == "locked":
        holder.execute("BEGIN EXCLUSIVE")
    elif kind == "below a file":
        file = project / "params.yaml/mlflow.db"
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{file}")
    else:
        file.unlink()
        file.mkdir() if kind == "folder" else file.write_text("garbage " * 100)
    stage = Stage("train")
    begin = time.monotonic()
    with tracking.start(stage) as run:
        run.log_metrics({"loss": 0.5}, 1)
    assert time.monotonic() - begin < 60
    holder.close()
    first, last = capfd.readouterr().err.splitlines()
    journal = f".cache/journal/{stage.fingerprint}.jsonl"
    assert first == f"tracking: {file} {reason}; 0 points wait in {journal}"
    assert last == f"tracking: the store did not take everything; 1 points wait in {journal}"


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
        run.log_image("examples/1.png", b"one")
    first, last = capsys.readouterr().err.splitlines()
    journal, outbox = (f".cache/{name}/{stored.info.run_id}" for name in ("journal", "waiting"))
    assert first.startswith("tracking: ")
    assert first.endswith(f"; 1 points wait in {journal}.jsonl")
    waiting = f"2 points wait in {journal}.jsonl, 1 file in {outbox}"
    assert last == f"tracking: the store did not take everything; {waiting}"
    (project / "mlflow.db").write_bytes(database)
    evaluate(stage.fingerprint)  # the next one that writes into the run sends them and ends it
    [stored] = runs(project)
    assert history(project, stored, "loss") == [(1, 0.5), (2, 0.25)]
    assert stored.data.tags["note"] == "1"
    folder = project / "mlartifacts" / stored.info.run_id / "artifacts"
    assert (folder / "examples/1.png").read_bytes() == b"one"
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
