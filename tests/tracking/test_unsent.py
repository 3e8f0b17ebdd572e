"""`python -m src.sync`: what a store did not take is sent later, once, into the right runs."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from src.plumbing import locks
from src.plumbing.command import guarded
from src.plumbing.errors import GateError
from src.plumbing.stage import Stage
from src.sync import main, summary
from src.tracking import run as tracking
from src.tracking.journal import unsent
from src.tracking.journal.journal import load_record, lock_path
from src.tracking.journal.outbox import Outbox
from src.tracking.store import store
from tests.tracking.tracked_project import DIGEST, edit, evaluate, history, runs, train, train_until

NOWHERE = "sqlite:////proc/nothing/mlflow.db"


@pytest.fixture
def nowhere(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """The address of a store that cannot be opened; `delenv` brings the project's back."""
    # Records and leftovers are those of a store: the name of this one is that of the project's.
    monkeypatch.setattr(store, "name", lambda root: "the store")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", NOWHERE)
    return monkeypatch


def test_a_run_that_could_not_be_created_is(project: Path, nowhere: pytest.MonkeyPatch) -> None:
    stage = Stage("train")
    with tracking.start(stage) as run:
        run.log_metrics({"train/loss": 0.5}, step=1)
        run.log_input("data/prepared:train", DIGEST, "train")
        run.log_image("examples/a.png", b"a")
        run.set_tags({"model.md5": Stage("evaluate").deps_md5["models/model.safetensors"]})
    evaluate(stage.fingerprint)
    nowhere.delenv("MLFLOW_TRACKING_URI")
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
    client, _ = store.open_store(project)
    assert [file.path for file in client.list_artifacts(stored.info.run_id)] == ["examples"]
    # Nothing is left, and the next stages go into this run.
    again = unsent.send_all(project)
    assert (again.made, again.points, again.files, again.trouble) == (0, 0, 0, [])
    assert not (project / ".cache/waiting" / stage.fingerprint).exists()
    evaluate(stage.fingerprint)
    assert len(runs(project)) == 1


def test_an_ending_that_the_store_did_not_take_is_sent(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with tracking.start(Stage("train")) as run:
        assert isinstance(run, tracking.TrackedRun)
        run.log_metrics({"loss": 0.5}, step=1)
        run._shipper.client = None  # as when the server is gone
    [stored] = runs(project)
    assert stored.info.status == "RUNNING"
    unsent.send_all(project)
    [stored] = runs(project)
    assert stored.info.status == "FINISHED"
    assert not Outbox(project, stored.info.run_id).items()


WORKER = """
from src.plumbing.stage import Stage
from src.tracking import run as tracking
with tracking.start(Stage("train")) as run:
    run.log_metrics({"loss": 0.5}, 1)
    print("logged", flush=True)
    input()
"""


@pytest.mark.parametrize("by", ["the next start", "sync"])
def test_the_run_of_a_killed_process_is_closed(by: str, project: Path) -> None:
    from src.base.imports import ROOT

    worker = subprocess.Popen(
        [sys.executable, "-c", WORKER],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert worker.stdin
    assert worker.stdout
    assert worker.stdout.readline() == "logged\n"
    fingerprint = Stage("train").fingerprint
    sent = unsent.send_all(project)  # it lives: its run is its own
    assert (sent.closed, sent.busy) == (0, 1)
    worker.kill()
    worker.wait()
    worker.stdin.close()
    worker.stdout.close()
    assert [run.info.status for run in runs(project)] == ["RUNNING"]
    if by == "sync":
        assert unsent.send_all(project).closed == 1
    else:
        text = Path("params.yaml").read_text()
        Path("params.yaml").write_text(text.replace("lr: 0.001", "lr: 0.002"))
        train()
    record = load_record(project, fingerprint, store.name(project))
    assert record
    assert record.state == "killed"
    status = {run.info.run_id: run.info.status for run in runs(project)}
    assert status.pop(record.run_id) == "KILLED"
    assert list(status.values()) == ([] if by == "sync" else ["FINISHED"])


def test_a_run_that_is_gone_is_named(project: Path) -> None:
    train()
    [stored] = runs(project)
    with pytest.raises(KeyboardInterrupt):
        train_until(KeyboardInterrupt)
    newest = runs(project)[0]
    Outbox(project, newest.info.run_id).add("a.txt", b"a")
    client, _ = store.open_store(project)
    client.delete_run(newest.info.run_id)
    sent = unsent.send_all(project)
    assert sent.trouble == [f"run {newest.info.run_id} is not in the store any more"]
    assert Outbox(project, newest.info.run_id).files()
    assert stored.info.status == "FINISHED"


def test_a_dead_run_that_was_deleted_stops_no_other(project: Path) -> None:
    train()
    record = load_record(project, Stage("train").fingerprint, store.name(project))
    assert record
    record.state = "running"  # as after kill -9
    record.save()
    client, _ = store.open_store(project)
    client.delete_run(record.run_id)
    edit("params.yaml", "lr: 0.001 ", "lr: 0.002 ")
    train()
    [stored] = runs(project)
    assert (stored.info.status, stored.data.params["lr"]) == ("FINISHED", "0.002")
    assert unsent.send_all(project).trouble == []


@pytest.mark.parametrize("death", ["of the process", "of the server"])
def test_a_run_is_created_once_whenever_sync_ends(
    death: str, project: Path, nowhere: pytest.MonkeyPatch
) -> None:
    stage = Stage("train")
    with tracking.start(stage) as run:
        run.log_metrics({"train/loss": 0.5}, step=1)
        run.log_input("data/prepared:train", DIGEST, "train")
        run.log_image("examples/a.png", b"a")
    nowhere.delenv("MLFLOW_TRACKING_URI")

    def die(*arguments: object, **more: object) -> None:
        raise KeyboardInterrupt if death == "of the process" else ConnectionError("no answer")

    for module, name in ((store, "write"), (unsent, "add_points"), (unsent, "add_waiting")):
        with nowhere.context() as patch:
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


def test_what_waits_for_a_run_is_sent_before_another_takes_its_place(project: Path) -> None:
    with tracking.start(Stage("train")) as run:
        assert isinstance(run, tracking.TrackedRun)
        run._shipper.client = None  # as when the server is gone
        run.log_metrics({"loss": 0.5}, step=1)
    train()  # the same again
    second, first = runs(project)
    assert history(project, first, "loss") == [(1, 0.5)]
    assert first.info.status == "FINISHED"
    assert second.data.tags["repeat_of"] == first.info.run_id


def test_what_another_process_writes_is_left_to_it(
    project: Path, nowhere: pytest.MonkeyPatch
) -> None:
    train()
    nowhere.delenv("MLFLOW_TRACKING_URI")
    path = lock_path(project, Stage("train").fingerprint)
    with locks.try_hold(path) as held:
        assert held
        sent = unsent.send_all(project)
    assert (sent.made, sent.busy) == (0, 1)
    assert unsent.send_all(project).made == 1


def test_the_command_says_what_it_did(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["sync"])
    main()
    assert capsys.readouterr().out == "sync: nothing waited for sqlite:///mlflow.db\n"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://user:secret-word@127.0.0.1:9")
    with pytest.raises(GateError, match="everything waits") as raised:
        main()
    assert "secret-word" not in str(raised.value)
    assert summary(unsent.Sent(runs=2, points=5, files=1, made=1), "x") == (
        "sync: 5 points and 1 file of 2 runs sent to x; created 1 run"
    )


def test_trouble_with_this_disk_is_not_the_stores(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(project / ".cache", ignore_errors=True)
    (project / ".cache").write_text("a file")
    monkeypatch.setattr(sys, "argv", ["sync"])
    assert guarded(main) == 1
    printed = capsys.readouterr().err
    assert printed.startswith("cannot write ")
    assert "/.cache" in printed
