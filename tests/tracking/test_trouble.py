"""Stores that are missing, break or lose runs: work goes on, and what was logged waits on disk."""

import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from src.base.imports import ROOT
from src.plumbing.stage import Stage
from src.tracking import run as tracking
from src.tracking.journal import shipping
from src.tracking.journal.outbox import Outbox
from src.tracking.store import store
from tests.tracking.tracked_project import (
    DIGEST,
    NOWHERE,
    OTHER,
    artifacts,
    evaluate,
    history,
    runs,
    store_at,
    train,
    train_until,
    wait_until,
)


def test_a_store_that_was_deleted_gets_all_points_again(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train_until(KeyboardInterrupt)
    [old] = runs(project)
    store.open_store(project)[0].delete_run(old.info.run_id)
    with tracking.start(Stage("train")) as run:
        run.log_metrics({"loss": 0.25}, step=2)
    [new] = runs(project)
    assert new.info.run_id != old.info.run_id
    assert history(project, new, "loss") == [(1, 0.5), (2, 0.25)]
    line = f"the run {old.info.run_id} is not in the store any more; its points go to another one"
    assert capsys.readouterr().err == f"tracking: {line}\n"


def test_without_a_store_the_work_goes_on_and_points_wait(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stage = Stage("train")
    with store_at(NOWHERE), tracking.start(stage) as run:
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
    train(value=0.5)  # the store is back: its run takes what waited
    [stored] = runs(project)
    assert history(project, stored, "loss") == [(0, 0), (1, 1), (2, 2)]
    assert not (project / journal).exists()
    assert not (project / outbox).exists()


def test_another_store_gets_a_run_of_its_own(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train_until(KeyboardInterrupt)
    [first] = runs(project)
    Outbox(project, first.info.run_id).add("a.png", b"a")
    with store_at(OTHER):
        train_until(KeyboardInterrupt, step=2)
        [second] = runs(project)
        assert history(project, second, "loss") == [(1, 0.5), (2, 0.25)]
        client, _ = store.open_store(project)
        assert [file.path for file in client.list_artifacts(second.info.run_id)] == ["a.png"]
    assert len(Outbox(project, first.info.run_id).files()) == 1  # kept for that store
    assert second.info.run_id != first.info.run_id
    here = "sqlite:///mlflow.db"
    line = f"the run {first.info.run_id} is in {here}; {second.info.run_id} here gets its points"
    assert capsys.readouterr().err == f"tracking: {line}, too\n"
    with tracking.start(Stage("train")) as run:  # and back: nothing was lost
        run.log_metrics({"loss": 0.125}, step=3)
    [again] = runs(project)
    assert again.info.run_id == first.info.run_id
    assert history(project, again, "loss") == [(1, 0.5), (2, 0.25), (3, 0.125)]
    with store_at(OTHER):
        assert [run.info.run_id for run in runs(project)] == [second.info.run_id]


def test_evaluate_finds_no_run_of_another_store(project: Path) -> None:
    train()
    [first] = runs(project)
    with store_at(OTHER):
        for _ in range(2):
            evaluate()
        [second] = runs(project)
        assert second.data.tags["restored"] == "true"
        assert history(project, second, "train/loss") == [(1, 0.5)]
        assert history(project, second, "test/accuracy") == [(0, 0.75)]
    evaluate()
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
    assert last == f"tracking: the store did not take everything; 1 point waits in {journal}"


def test_a_finished_run_gets_no_points_of_one_without_a_store(project: Path) -> None:
    train()
    [first] = runs(project)
    with store_at(NOWHERE):
        train(value=0.25)
    train(value=0.25)
    second, again = runs(project)
    assert again.info.run_id == first.info.run_id
    assert history(project, again, "train/loss") == [(1, 0.5)]
    assert history(project, second, "train/loss") == [(1, 0.25)]
    assert second.data.tags["repeat_of"] == first.info.run_id


def test_a_store_that_fails_later_stops_nothing(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with tracking.start(Stage("train")) as run:
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
    assert first.endswith(f"; 1 point waits in {journal}.jsonl")
    waiting = f"2 points wait in {journal}.jsonl, 1 file in {outbox}"
    assert last == f"tracking: the store did not take everything; {waiting}"
    (project / "mlflow.db").write_bytes(database)
    evaluate()  # the next one that writes into the run sends them and ends it
    [stored] = runs(project)
    assert history(project, stored, "loss") == [(1, 0.5), (2, 0.25)]
    assert stored.data.tags["note"] == "1"
    assert (artifacts(project, stored) / "examples/1.png").read_bytes() == b"one"
    assert stored.info.status == "FINISHED"


def test_log_image_does_not_wait_for_a_call(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shipping, "INTERVAL", 0.01)
    with tracking.start(Stage("train")) as run:
        assert isinstance(run, tracking.TrackedRun)
        with run._shipper._lock:  # as while the server lets a call wait; here it would be for ever
            run.log_metrics({"loss": 0.5}, step=1)
            time.sleep(0.1)  # the thread waits for it now
            run.log_image("a.png", b"a")
    [stored] = runs(project)
    assert (artifacts(project, stored) / "a.png").read_bytes() == b"a"


@pytest.mark.parametrize("killed", [False, True])
def test_what_waits_without_a_store_is_sent_by_the_next_run(killed: bool, project: Path) -> None:
    if killed:  # it has a run already
        train_until(KeyboardInterrupt)
    with store_at(NOWHERE), tracking.start(Stage("train")) as run:
        run.log_image("examples/1.png", b"first")
        run.log_image("examples/1.png", b"again")
        Path("curves.png").write_bytes(b"curves")
        run.log_artifact("curves.png", "train")
        run.set_tags({"note": 1, "kept": "ü"})
    Path("curves.png").unlink()
    with tracking.start(Stage("train")) as run:
        run.set_tags({"note": 2})
    [stored] = runs(project)
    assert (artifacts(project, stored) / "examples/1.png").read_bytes() == b"again"
    assert (artifacts(project, stored) / "train/curves.png").read_bytes() == b"curves"
    assert (stored.data.tags["note"], stored.data.tags["kept"]) == ("2", "ü")
    assert not list((project / ".cache/waiting").rglob("*.png"))


def test_a_file_that_the_store_refuses_holds_nothing_up(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shipping, "INTERVAL", 0.01)
    monkeypatch.setattr(shipping, "PAUSE", 0.01)
    with tracking.start(Stage("train")) as run:
        [stored] = runs(project)
        folder = artifacts(project, stored)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "a").write_bytes(b"a file where a folder would have to be")
        run.log_image("a/1.png", b"one")
        run.log_image("b/1.png", b"two")
        waiting = Outbox(project, stored.info.run_id)
        wait_until(lambda: [file.name for file in waiting.files()] == ["1.png"])
        assert (folder / "b/1.png").read_bytes() == b"two"


@pytest.mark.parametrize("name", ["../a.png", "/tmp/a.png", "", "a/../../b.png"])
def test_a_name_that_leads_out_of_the_run_costs_a_line(
    name: str, project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with tracking.start(Stage("train")) as run:
        run.log_image(name, b"image")
    assert capsys.readouterr().err == (
        f"tracking: cannot keep {name}: {name!r} is no name of an artifact\n"
    )


def test_a_file_that_is_replaced_while_it_is_sent_is_sent_again(project: Path) -> None:
    outbox = Outbox(project, "run")
    outbox.add("a.png", b"old")
    sent = []

    class Client:
        """Takes an artifact, while the loop writes the next one of this name."""

        def get_run(self, run_id: str) -> Any:
            return SimpleNamespace(info=SimpleNamespace(artifact_uri="s3://bucket/run/artifacts"))

        def log_artifact(self, run_id: str, path: str, folder: str | None) -> None:
            sent.append(Path(path).read_bytes())
            if len(sent) == 1:
                outbox.add("a.png", b"new")

    while items := outbox.items():
        outbox.send(items[0], Client(), "run")  # type: ignore[arg-type]
    assert sent == [b"old", b"new"]


@pytest.mark.parametrize(
    ("uri", "hint"),
    [
        ("localhost:5000", "got localhost:5000, did you mean http://localhost:5000?"),
        (
            "me:secret@example.org/runs",
            "got example.org/runs, did you mean http://example.org/runs?",
        ),
        ("http:/localhost:5000", "got http:/localhost:5000"),
    ],
)
def test_an_address_without_its_scheme_costs_a_line_that_says_so(
    uri: str, hint: str, project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The work goes on. A password and a slash too few are two that nobody reported."""
    with store_at(uri), tracking.start(Stage("train")) as run:
        run.log_metrics({"loss": 0.5}, 1)
    lines = capsys.readouterr().err.splitlines()
    assert "MLFLOW_TRACKING_URI must begin like http://, https://, sqlite:/// or" in lines[0]
    assert f"{hint}; 0 points wait" in lines[0]
    assert "secret" not in "".join(lines)


@pytest.mark.parametrize("part", ["read the journal", "list the outbox"])
def test_a_disk_that_cannot_be_read_stops_nothing(
    part: str,
    project: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The thread that sends would end with a traceback, and the work at its end with the same."""
    monkeypatch.setattr(shipping, "INTERVAL", 0.01)

    def fail(*_: object) -> None:
        raise OSError(5, "Input/output error")

    with tracking.start(Stage("train")) as run:
        run.log_metrics({"loss": 0.5}, 1)
        if part == "read the journal":
            monkeypatch.setattr(shipping.Journal, "read", fail)
        else:
            monkeypatch.setattr(Outbox, "items", fail)
        time.sleep(0.3)
        run.log_image("a.png", b"a")
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "tracking: cannot read what waits: [Errno 5] Input/output error"
    assert not any("Traceback" in line for line in lines)


SILENT = """
import sys, threading
from src.plumbing.command import guarded
from src.plumbing.stage import Stage
from src.tracking import run as tracking
class Silent:
    "A server that takes a call and never answers."
    def __getattr__(self, name):
        print("asked", flush=True)
        threading.Event().wait()
def work():
    with tracking.start(Stage("train")) as run:
        run._shipper.client = Silent()
        run.log_metrics({"loss": 0.5}, 1)
        threading.Event().wait()
sys.exit(guarded(work))
"""


@pytest.mark.slow(seconds=20)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_does_not_wait_for_a_server_that_lets_calls_wait(
    number: int, project: Path
) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", SILENT],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout
    assert process.stdout.readline() == "asked\n"
    begun = time.monotonic()
    process.send_signal(number)
    try:
        _, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert time.monotonic() - begun < 30
    assert process.returncode == 128 + number
    first, last = errors.splitlines()
    assert first.startswith("tracking: the store does not answer; 1 point waits in .cache/journal/")
    assert last in ("terminated", "interrupted")
