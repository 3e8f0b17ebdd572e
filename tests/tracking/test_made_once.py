"""A run is made once, also when its process dies between the store's answer and its record."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from src.plumbing.stage import Stage
from src.tracking import run as tracking
from src.tracking.journal.journal import load_record
from src.tracking.store import store
from tests.tracking.tracked_project import edit, runs, train


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


def test_another_store_makes_a_run_of_its_own(
    project: Path, died_before_the_record: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    [begun] = runs(project)
    shutil.copy(project / "mlflow.db", project / "other.db")
    client, _ = store.open_store(project)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///other.db")
    store.open_store(project)[0].delete_run(begun.info.run_id)
    train()
    [stored] = runs(project)
    assert (stored.info.status, client.get_run(begun.info.run_id).info.status) == (
        "FINISHED",
        "RUNNING",
    )
