"""`python -m src.sync`: what waits is sent once, into the right runs, even after a kill."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from src.base.imports import ROOT
from src.plumbing import locks
from src.plumbing.stage import Stage
from src.sync import main, summary
from src.tracking import run as tracking
from src.tracking.journal import unsent
from src.tracking.journal.journal import load_record, lock_path
from src.tracking.journal.outbox import Outbox
from src.tracking.store import store
from tests.conftest import run_main
from tests.tracking.tracked_project import (
    DIGEST,
    MODEL,
    NOWHERE,
    OTHER,
    artifacts,
    edit,
    evaluate,
    history,
    runs,
    store_at,
    train,
    train_record,
    train_until,
)


def train_without_a_store() -> Stage:
    """A training of which all waits, a point, a data set and an image."""
    stage = Stage("train")
    with store_at(NOWHERE), tracking.start(stage) as run:
        run.log_metrics({"train/loss": 0.5}, step=1)
        run.log_input("data/prepared:train", DIGEST, "train")
        run.log_image("examples/a.png", b"a")
        run.set_tags({"model.md5": Stage("evaluate").deps_md5[MODEL]})
    return stage


def test_a_run_that_could_not_be_created_is(project: Path, one_name: None) -> None:
    stage = train_without_a_store()
    with store_at(NOWHERE):
        evaluate()
    assert runs(project) == []
    sent = unsent.send_all(project)
    assert (sent.made, sent.runs, sent.points, sent.files) == (1, 1, 2, 1)
    [stored] = runs(project)
    assert stored.info.run_name == "train baseline"
    assert stored.info.status == "FINISHED"
    assert stored.info.start_time <= stored.info.end_time
    assert stored.data.tags["fingerprint"] == stage.fingerprint
    assert stored.data.params["lr"] == "0.001"
    assert history(project, stored, "train/loss") == [(1, 0.5)]
    assert history(project, stored, "test/accuracy") == [(0, 0.75)]
    [data] = stored.inputs.dataset_inputs
    assert data.dataset.digest == DIGEST
    assert [file.name for file in artifacts(project, stored).iterdir()] == ["examples"]
    # Nothing is left, and the next stages go into this run.
    again = unsent.send_all(project)
    assert (again.made, again.points, again.files, again.trouble) == (0, 0, 0, [])
    assert not (project / ".cache/waiting" / stage.fingerprint).exists()
    evaluate()
    assert len(runs(project)) == 1


@pytest.mark.parametrize("by", ["a repetition", "sync"])
def test_points_and_an_ending_that_the_store_did_not_take_are_sent(by: str, project: Path) -> None:
    with tracking.start(Stage("train")) as run:
        assert isinstance(run, tracking.TrackedRun)
        run._shipper.client = None  # as when the server is gone
        run.log_metrics({"loss": 0.5}, step=1)
    assert [run.info.status for run in runs(project)] == ["RUNNING"]
    if by == "sync":
        unsent.send_all(project)
    else:
        train()
    *repetitions, first = runs(project)
    assert history(project, first, "loss") == [(1, 0.5)]
    assert first.info.status == "FINISHED"
    assert not Outbox(project, first.info.run_id).items()
    repeated = [run.data.tags["repeat_of"] for run in repetitions]
    assert repeated == ([] if by == "sync" else [first.info.run_id])


WORKER = """
from src.plumbing.stage import Stage
from src.tracking import run as tracking
with tracking.start(Stage("train")) as run:
    run.log_metrics({"loss": 0.5}, 1)
    print("logged", flush=True)
    input()
"""


@pytest.mark.slow(seconds=4)
@pytest.mark.parametrize("by", ["the next start", "sync"])
def test_the_run_of_a_killed_process_is_closed(by: str, project: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command, pipe = [sys.executable, "-c", WORKER], subprocess.PIPE
    with subprocess.Popen(command, env=environment, stdin=pipe, stdout=pipe) as worker:
        assert worker.stdout
        assert worker.stdout.readline() == b"logged\n"
        sent = unsent.send_all(project)  # it lives: its run is its own
        assert (sent.closed, sent.busy) == (0, 1)
        worker.kill()
    assert [run.info.status for run in runs(project)] == ["RUNNING"]
    record = train_record(project)
    if by == "sync":
        assert unsent.send_all(project).closed == 1
    else:
        edit("params.yaml", "lr: 0.001", "lr: 0.002")
        train()
    closed = load_record(project, record.fingerprint, record.store)
    assert closed
    assert closed.state == "killed"
    status = {run.info.run_id: run.info.status for run in runs(project)}
    assert status.pop(record.run_id) == "KILLED"
    assert list(status.values()) == ([] if by == "sync" else ["FINISHED"])


def test_a_run_that_is_gone_is_named(project: Path) -> None:
    train()
    train_until(KeyboardInterrupt)
    newest = runs(project)[0]
    Outbox(project, newest.info.run_id).add("a.txt", b"a")
    store.open_store(project)[0].delete_run(newest.info.run_id)
    sent = unsent.send_all(project)
    assert sent.trouble == [f"run {newest.info.run_id} is not in the store any more"]
    assert Outbox(project, newest.info.run_id).files()
    assert [run.info.status for run in runs(project)] == ["FINISHED"]


def test_a_dead_run_that_was_deleted_stops_no_other(project: Path) -> None:
    train()
    record = train_record(project)
    record.state = "running"  # as after kill -9
    record.save()
    store.open_store(project)[0].delete_run(record.run_id)
    edit("params.yaml", "lr: 0.001 ", "lr: 0.002 ")
    train()
    [stored] = runs(project)
    assert (stored.info.status, stored.data.params["lr"]) == ("FINISHED", "0.002")
    assert unsent.send_all(project).trouble == []


@pytest.mark.parametrize("death", ["of the process", "of the server"])
def test_a_run_is_created_once_whenever_sync_ends(
    death: str, project: Path, one_name: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = train_without_a_store()

    def die(*arguments: object, **more: object) -> None:
        raise KeyboardInterrupt if death == "of the process" else ConnectionError("no answer")

    for module, name in ((store, "write"), (unsent, "add_points"), (unsent, "add_waiting")):
        with monkeypatch.context() as patch:
            patch.setattr(module, name, die)
            if death == "of the process":
                with pytest.raises(KeyboardInterrupt):
                    unsent.send_all(project)
            else:
                [trouble] = unsent.send_all(project).trouble
                assert trouble.endswith("no answer")
    sent = unsent.send_all(project)
    assert (sent.points, sent.files, sent.trouble) == (1, 1, [])
    [stored] = runs(project)
    assert stored.info.status == "FINISHED"
    assert history(project, stored, "train/loss") == [(1, 0.5)]
    assert len(stored.inputs.dataset_inputs) == 1
    assert not (project / ".cache/waiting" / stage.fingerprint).exists()


def test_what_another_process_writes_is_left_to_it(project: Path, one_name: None) -> None:
    with store_at(NOWHERE):
        train()
    path = lock_path(project, Stage("train").fingerprint)
    with locks.try_hold(path) as held:
        assert held
        sent = unsent.send_all(project)
    assert (sent.made, sent.busy) == (0, 1)
    assert unsent.send_all(project).made == 1


def test_the_command_says_what_it_did(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    nothing = "sync: nothing waited for sqlite:///mlflow.db\n"
    assert run_main(main, [], monkeypatch, capsys) == (0, nothing, "")
    with store_at("http://user:secret-word@127.0.0.1:9"):
        code, _, said = run_main(main, [], monkeypatch, capsys)
    assert (code, "everything waits" in said, "secret-word" in said) == (1, True, False)
    assert summary(unsent.Sent(runs=2, points=5, files=1, made=1), "x") == (
        "sync: 5 points and 1 file of 2 runs sent to x; created 1 run"
    )


def test_trouble_with_this_disk_is_not_the_stores(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(project / ".cache", ignore_errors=True)
    (project / ".cache").write_text("a file")
    code, _, said = run_main(main, [], monkeypatch, capsys)
    assert (code, said.startswith("cannot write "), "/.cache" in said) == (1, True, True)


class Killed(BaseException):
    """As kill -9: nothing of what would be done at the end is done."""


@pytest.fixture
def died_before_the_record(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(*arguments: Any) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(store, "write", killed)
        with pytest.raises(Killed), tracking.start(Stage("train")):
            pass


def test_a_run_without_a_record_is_found_again(project: Path, died_before_the_record: None) -> None:
    [begun] = runs(project)
    assert begun.info.status == "RUNNING"
    assert not list(project.glob(".cache/runs/*"))
    train()
    [stored] = runs(project)
    assert stored.info.run_id == begun.info.run_id
    assert stored.info.status == "FINISHED"
    assert stored.data.params["lr"] == "0.001"
    train()  # once only
    assert len(runs(project)) == 2


def test_a_run_without_a_record_is_closed_by_another_start(
    project: Path, died_before_the_record: None
) -> None:
    edit("params.yaml", "lr: 0.001 ", "lr: 0.5 ")
    train()
    other, begun = runs(project)
    assert begun.info.status == "KILLED"
    edit("params.yaml", "lr: 0.5 ", "lr: 0.001 ")
    train()
    assert {run.info.run_id for run in runs(project)} == {begun.info.run_id, other.info.run_id}


def test_another_store_makes_a_run_of_its_own(project: Path, died_before_the_record: None) -> None:
    with store_at(OTHER):
        train()
        assert [run.info.status for run in runs(project)] == ["FINISHED"]
    assert [run.info.status for run in runs(project)] == ["RUNNING"]
