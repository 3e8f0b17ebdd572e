"""A run is made once, whenever the process or DVC is killed."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from src.plumbing import process
from src.plumbing.dvc_files import VERSIONS_FILE
from src.plumbing.stage import Stage
from src.tracking import run as tracking
from src.tracking.journal import opening, recorded
from src.tracking.journal.journal import load_record
from src.tracking.store import store
from tests.tracking.tracked_project import edit, history, runs, train, train_until


@pytest.fixture
def under_dvc(project: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The project as a stage sees it that DVC runs, with no result of it in dvc.lock."""
    monkeypatch.setenv("DVC_STAGE", "train")
    (project / ".dvc").mkdir()
    (project / ".dvc/config").touch()
    edit("params.yaml", "lr: 0.001 ", "lr: 0.5 ")
    ended = subprocess.Popen([sys.executable, "-c", ""])
    mark = process._mark(ended.pid)
    ended.wait()
    monkeypatch.setattr(process, "own_dvc", lambda: mark)  # killed after the stage
    return project


def test_a_result_that_dvc_is_about_to_write_is_not_lost(
    under_dvc: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alive = process._mark(os.getpid())
    monkeypatch.setattr(process, "own_dvc", lambda: alive)
    train()
    train_until_killed = pytest.raises(KeyboardInterrupt)
    with train_until_killed:  # a second one waited for the first, and is interrupted
        train_until(KeyboardInterrupt)
    second, first = runs(under_dvc)
    assert (first.info.status, second.info.status) == ("FINISHED", "KILLED")
    assert second.data.tags["repeat_of"] == first.info.run_id


def test_a_result_that_dvc_lost_goes_on_in_its_run(under_dvc: Path) -> None:
    train()  # DVC is killed before it writes dvc.lock
    train()
    [stored] = runs(under_dvc)
    assert stored.info.status == "FINISHED"
    assert "repeat_of" not in stored.data.tags
    assert history(under_dvc, stored, "train/loss") == [(1, 0.5)]  # once


def cached(stage: Stage) -> dict[str, Any]:
    """What DVC writes to the run cache after a stage."""
    values, versions = {}, {}
    for key, value in stage.declared.items():
        if key.startswith(VERSIONS_FILE):
            versions[key.partition(":")[2]] = value
        else:
            values[key] = value
    deps = [{"path": path, "hash": "md5", "md5": md5} for path, md5 in stage.deps_md5.items()]
    params = {"params.yaml": values, VERSIONS_FILE: versions}
    return {"cmd": stage.entry.cmd, "deps": deps, "params": params}


@pytest.mark.parametrize("place", ["dvc.lock", "the run cache"])
def test_a_result_that_dvc_has_is_repeated_in_a_new_run(under_dvc: Path, place: str) -> None:
    train()
    entry = cached(Stage("train"))
    if place == "dvc.lock":
        Path("dvc.lock").write_text(yaml.safe_dump({"stages": {"train": entry}}))
    else:
        file = under_dvc / ".dvc/cache/runs/ab/abc/def"
        file.parent.mkdir(parents=True)
        other = {**entry, "cmd": "python -m src.evaluate"}
        (file.parent / "other").write_text(yaml.safe_dump(other, sort_keys=False))
        assert recorded.is_lost(Stage("train"), process.own_dvc())
        file.write_text(yaml.safe_dump(entry, sort_keys=False))
    train()
    second, first = runs(under_dvc)
    assert second.data.tags["repeat_of"] == first.info.run_id


class Killed(BaseException):
    """As kill -9: nothing of what would be done at the end is done."""


@pytest.fixture
def died_before_the_record(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stage died between the answer of the store and its record."""

    def killed(*arguments: Any) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(store, "write", killed)
        with pytest.raises(Killed), tracking.start(Stage("train")):
            pass


def test_a_run_without_a_record_is_found_again(project: Path, died_before_the_record: None) -> None:
    [begun] = runs(project)
    assert begun.info.status == "RUNNING"
    assert load_record(project, Stage("train").fingerprint, store.name(project)) is None
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


def test_the_note_of_another_store_finds_nothing(
    project: Path, died_before_the_record: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, _ = store.open_store(project)
    fingerprint = Stage("train").fingerprint
    assert opening._begun(project, client, fingerprint)
    monkeypatch.setattr(store, "name", lambda root: "another store")
    assert opening._begun(project, client, fingerprint) is None
