"""The MLflow run of a stage, and of a tool that looks at the workspace, in a real SQLite store."""

import json
import os
import shutil
from contextlib import suppress
from pathlib import Path

import pytest

from src.plumbing.errors import GateError
from src.plumbing.stage import Stage
from src.tracking import run as tracking
from src.tracking.about import provenance, uncommitted
from src.tracking.journal import shipping, unsent
from src.tracking.log import DESCRIPTION
from src.tracking.tool import log_run
from tests.tracking.tracked_project import (
    DIGEST,
    NOWHERE,
    artifacts,
    edit,
    history,
    runs,
    store_at,
    train,
    train_record,
    train_until,
    wait_until,
)


def test_a_run_holds_what_the_stage_logged(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(shipping, "BATCH", 1)  # several calls for the last points
    stage = Stage("train")
    Path("curves.png").write_bytes(b"curves")
    with tracking.start(stage) as run:
        run.log_metrics({"train/loss": 0.5, "val/loss": 0.75}, step=1)
        run.log_metrics({"train/loss": 0.25}, step=2)
        run.log_artifact("curves.png", "train")
        run.log_input("digits", DIGEST, "training")
        run.set_tags({"note": 1})
        run.describe("# About")
    [stored] = runs(project)
    assert stored.info.status == "FINISHED"
    assert stored.info.run_name == "train baseline"
    assert stored.data.params == provenance.params(stage)
    assert stored.data.tags["fingerprint"] == stage.fingerprint
    assert stored.data.tags["note"] == "1"
    assert "# About" in stored.data.tags["mlflow.note.content"].splitlines()
    assert history(project, stored, "train/loss") == [(1, 0.5), (2, 0.25)]
    [data] = stored.inputs.dataset_inputs
    assert (data.dataset.name, data.dataset.digest) == ("digits", DIGEST)
    assert [(tag.key, tag.value) for tag in data.tags] == [("mlflow.data.context", "training")]
    assert (artifacts(project, stored) / "train/curves.png").read_bytes() == b"curves"
    record = json.loads((project / f".cache/runs/{stage.fingerprint}.json").read_text())
    journal = project / f".cache/journal/{stored.info.run_id}.jsonl"
    assert record == {
        "run_id": stored.info.run_id,
        "experiment_id": stored.info.experiment_id,
        "name": "train baseline",
        "stage": "train",
        "state": "finished",
        "position": journal.stat().st_size,
        "store": "sqlite:///mlflow.db",
        "project": str(project),
    }
    assert capsys.readouterr() == ("", "")


def test_points_and_images_are_sent_while_the_run_goes_on(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shipping, "INTERVAL", 0.01)
    monkeypatch.setattr(shipping, "BATCH", 3)  # several calls for the seven points
    with tracking.start(Stage("train")) as run:
        for step in range(7):
            run.log_metrics({"loss": step}, step)
        run.log_image("examples/epoch_005.png", b"image")
        [stored] = runs(project)
        image = artifacts(project, stored) / "examples/epoch_005.png"
        wait_until(lambda: len(history(project, stored, "loss")) == 7 and image.exists())
        assert image.read_bytes() == b"image"
        assert runs(project)[0].info.status == "RUNNING"


@pytest.mark.parametrize("described", [False, True])
def test_a_run_that_fails_says_why(described: bool, project: Path) -> None:
    with suppress(GateError), tracking.start(Stage("train")) as run:
        if described:
            run.describe("What was found.")  # which says it better
        raise GateError("the loss is NaN; see https://me:s3cret@example.org/x")
    [stored] = runs(project)
    assert stored.info.status == "FAILED"
    note = stored.data.tags["mlflow.note.content"]
    assert "**Nothing changed** against" in note
    assert ("What was found." in note) == described
    line = "**Failed**: the loss is NaN; see https://example.org/x"
    assert (line in note) == (not described)


@pytest.mark.parametrize(
    ("error", "status"),
    [(ValueError, "FAILED"), (KeyboardInterrupt, "KILLED"), (SystemExit, "KILLED")],
)
def test_a_run_that_ends_early_goes_on_in_the_same_run(
    error: type[BaseException], status: str, project: Path
) -> None:
    train_until(error)
    [stored] = runs(project)
    assert stored.info.status == status
    assert train_record(project).state == status.lower()
    assert history(project, stored, "loss") == [(1, 0.5)]
    Path("src/added.py").write_text("added = 1\n")
    with tracking.start(Stage("train")) as run:
        run.log_metrics({"loss": 0.5}, step=1)
        run.log_metrics({"loss": 0.25}, step=2)
        assert runs(project)[0].info.status == "RUNNING"
    [again] = runs(project)
    assert again.info.run_id == stored.info.run_id
    assert again.info.status == "FINISHED"
    assert history(project, again, "loss") == [(1, 0.5), (2, 0.25)]
    tags = (stored.data.tags, again.data.tags)
    assert [tag["git.dirty"] for tag in tags] == ["false", "true"]  # written anew


def test_a_batch_that_is_sent_again_is_stored_once(project: Path) -> None:
    train_until(KeyboardInterrupt)
    record = train_record(project)
    # As if killed after the store took the batch and before the record said so.
    record.state, record.position = "running", 0
    record.save()
    train()
    [stored] = runs(project)
    assert history(project, stored, "loss") == [(1, 0.5)]
    assert len(history(project, stored, "nan")) == 1


def test_a_finished_run_that_is_forced_again_is_a_new_run(project: Path) -> None:
    train()
    train()
    second, first = runs(project)
    assert second.data.tags["repeat_of"] == first.info.run_id
    assert "repeat_of" not in first.data.tags
    assert history(project, first, "train/loss") == [(1, 0.5)]
    assert history(project, second, "train/loss") == [(1, 0.5)]


def test_with_tracking_off_nothing_is_written_but_the_lock_is_held(project: Path) -> None:
    edit("params.yaml", "tracking: true", "tracking: false")
    shutil.rmtree(project / ".cache", ignore_errors=True)
    database = (project / "mlflow.db").read_bytes()
    stage = Stage("train")
    for context in (tracking.start(stage), tracking.reopen(stage, stage.fingerprint, "0" * 32)):
        with context as run:
            run.log_metrics({"loss": 0.5}, step=1)
            run.log_artifact("no/such/file")
            run.log_image("examples/1.png", b"image")
            run.log_model(Path("no/such/folder"))
            run.log_input("digits", DIGEST, "training")
            run.set_tags({"note": 1})
            run.describe("text")
            holder = project / f".cache/locks/{stage.fingerprint}.pid"
            assert holder.read_text() == str(os.getpid())
    assert sorted(path.name for path in (project / ".cache").iterdir()) == ["locks"]
    assert (project / "mlflow.db").read_bytes() == database


def test_another_kind_of_machine_goes_on_in_a_run_of_its_own(project: Path) -> None:
    def killed(kind: str) -> None:
        with tracking.start(Stage("train"), kind) as run:
            run.set_tags({"machine.kind": kind})
            run.log_metrics({"loss": len(kind)}, step=1)
            raise KeyboardInterrupt

    for kind in ("cpu", "cuda", "cuda"):
        with pytest.raises(KeyboardInterrupt):
            killed(kind)
    second, first = runs(project)
    assert (first.data.tags["machine.kind"], second.data.tags["machine.kind"]) == ("cpu", "cuda")
    assert second.data.tags["repeat_of"] == first.info.run_id
    assert (first.info.status, second.info.status) == ("KILLED", "KILLED")
    assert history(project, first, "loss") == [(1, 3.0)]
    assert history(project, second, "loss") == [(1, 4.0)]
    with tracking.start(Stage("train")) as run:  # asked for no kind: it goes on
        run.set_tags({"machine.kind": "cuda + cpu"})
    assert [item.info.status for item in runs(project)] == ["FINISHED", "KILLED"]


def log_a_look(project: Path, **given: object) -> str | None:
    """A run of lr_find with next to nothing in it."""
    found = {"metrics": {"loss": [2.0, 1.0]}, "files": [], "data": {}, **given}
    return log_run(project, "lr_find", "a look", {"lr": "0.1"}, note="a note", **found)  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [1, uncommitted.LARGEST])  # one that is cut, too
def test_a_difference_in_any_encoding_is_kept_as_it_is(size: int, project: Path) -> None:
    Path("src/latin.py").write_bytes(b"# caf\xe9\r\n")
    Path("src/long.py").write_bytes(b"#" * size)
    log_a_look(project)
    [stored] = runs(project)
    difference = (artifacts(project, stored) / uncommitted.ARTIFACT).read_bytes()
    assert difference == uncommitted.difference()
    assert b"+# caf\xe9\r\n" in difference
    assert difference.endswith(uncommitted.CUT) == (size > 1)
    assert stored.info.status == "FINISHED"


def test_a_file_that_is_missing_costs_a_line(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_id = log_a_look(project, files=[project / "nosuch.png"], data={"data/prepared": DIGEST})
    [stored] = runs(project)
    assert (stored.info.run_id, stored.info.status) == (run_id, "FINISHED")
    assert history(project, stored, "loss") == [(0, 2.0), (1, 1.0)]
    assert stored.data.params == {"lr": "0.1"}
    assert (stored.data.tags["stage"], stored.data.tags[DESCRIPTION]) == ("lr_find", "a note")
    [data] = stored.inputs.dataset_inputs
    assert data.dataset.digest == DIGEST
    line = f"tracking: cannot log {project}/nosuch.png: there is no such file\n"
    assert capsys.readouterr().err == line


def test_without_a_store_the_run_waits(project: Path, one_name: None) -> None:
    for _ in range(2):  # each is a run of its own
        with store_at(NOWHERE):
            assert log_a_look(project, files=[project / "params.yaml"]) is None
    sent = unsent.send_all(project)
    assert (sent.made, sent.points, sent.files) == (2, 4, 2)
    assert [run.info.status for run in runs(project)] == ["FINISHED"] * 2
    assert history(project, runs(project)[0], "loss") == [(0, 2.0), (1, 1.0)]


def test_a_run_that_is_interrupted_ends_as_killed(project: Path) -> None:
    class Interrupting(list[float]):
        def __iter__(self) -> None:  # type: ignore[override]
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        log_a_look(project, metrics={"loss": Interrupting()})
    assert runs(project)[0].info.status == "KILLED"
