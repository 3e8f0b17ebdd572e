"""Images, files and tags: sent by a thread, kept on disk while the store does not take them."""

import time
from pathlib import Path
from typing import Any

import pytest

from src.plumbing.stage import Stage
from src.tracking import run as tracking
from src.tracking.journal import shipping
from src.tracking.journal.outbox import Outbox
from src.tracking.store import store
from tests.tracking.tracked_project import runs, train, train_until

NOWHERE = "sqlite:////proc/nothing/mlflow.db"


def artifact(project: Path, run: Any, name: str) -> bytes:
    return (project / "mlartifacts" / run.info.run_id / "artifacts" / name).read_bytes()


def test_an_image_is_sent_while_the_run_goes_on(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shipping, "INTERVAL", 0.01)
    with tracking.start(Stage("train")) as run:
        run.log_image("examples/epoch_005.png", b"image")
        [stored] = runs(project)
        waiting = Outbox(project, stored.info.run_id)
        end = time.monotonic() + 120
        while waiting.items():
            assert time.monotonic() < end
            time.sleep(0.02)
        assert artifact(project, stored, "examples/epoch_005.png") == b"image"


def test_log_image_does_not_wait_for_a_call(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shipping, "INTERVAL", 0.01)
    with tracking.start(Stage("train")) as run:
        assert isinstance(run, tracking.TrackedRun)
        with run._shipper._lock:  # as while the server lets a call wait; here it would be for ever
            run.log_metrics({"loss": 0.5}, step=1)
            time.sleep(0.1)  # the thread waits for it now
            run.log_image("a.png", b"a")
    [stored] = runs(project)
    assert artifact(project, stored, "a.png") == b"a"


@pytest.mark.parametrize("killed", [False, True])
def test_what_waits_without_a_store_is_sent_by_the_next_run(
    killed: bool, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if killed:  # it has a run already
        with pytest.raises(KeyboardInterrupt):
            train_until(KeyboardInterrupt)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", NOWHERE)
    with tracking.start(Stage("train")) as run:
        run.log_image("examples/1.png", b"first")
        run.log_image("examples/1.png", b"again")
        Path("curves.png").write_bytes(b"curves")
        run.log_artifact("curves.png", "train")
        run.set_tags({"note": 1, "kept": "ü"})
    Path("curves.png").unlink()
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    with tracking.start(Stage("train")) as run:
        run.set_tags({"note": 2})
    [stored] = runs(project)
    assert artifact(project, stored, "examples/1.png") == b"again"
    assert artifact(project, stored, "train/curves.png") == b"curves"
    assert (stored.data.tags["note"], stored.data.tags["kept"]) == ("2", "ü")
    assert not list((project / ".cache/waiting").rglob("*.png"))


def test_another_store_gets_what_waits_and_the_first_keeps_it(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(KeyboardInterrupt):
        train_until(KeyboardInterrupt)
    [first] = runs(project)
    Outbox(project, first.info.run_id).add("a.png", b"a")
    (project / "other.db").write_bytes((project / "mlflow.db").read_bytes())
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///other.db")
    train()
    [second] = [run for run in runs(project) if run.info.run_id != first.info.run_id]
    assert second.info.status == "FINISHED"
    client, _ = store.open_store(project)
    assert [file.path for file in client.list_artifacts(second.info.run_id)] == ["a.png"]
    assert len(Outbox(project, first.info.run_id).files()) == 1


def test_a_file_that_the_store_refuses_holds_nothing_up(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shipping, "INTERVAL", 0.01)
    monkeypatch.setattr(shipping, "PAUSE", 0.01)
    with tracking.start(Stage("train")) as run:
        [stored] = runs(project)
        folder = project / "mlartifacts" / stored.info.run_id / "artifacts"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "a").write_bytes(b"a file where a folder would have to be")
        run.log_image("a/1.png", b"one")
        run.log_image("b/1.png", b"two")
        waiting = Outbox(project, stored.info.run_id)
        end = time.monotonic() + 120
        while [file.name for file in waiting.files()] != ["1.png"]:
            assert time.monotonic() < end
            time.sleep(0.02)
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

        def log_artifact(self, run_id: str, path: str, folder: str | None) -> None:
            sent.append(Path(path).read_bytes())
            if len(sent) == 1:
                outbox.add("a.png", b"new")

    while items := outbox.items():
        outbox.send(items[0], Client(), "run")  # type: ignore[arg-type]
    assert sent == [b"old", b"new"]
