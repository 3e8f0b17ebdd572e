"""Where the files of runs are kept: they outlive workspaces, follow their project, and are never
written into the folder of another one."""

import shutil
import socket
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from src.plumbing.errors import InputError
from src.plumbing.stage import Stage
from src.tracking import run as tracking
from src.tracking.journal import unsent
from src.tracking.journal.outbox import Outbox
from src.tracking.store import files, pages, store
from tests.tracking.tracked_project import (
    runs,
    set_name,
    store_at,
    train_record,
    train_until,
)

TEMPORARY = ".dvc/tmp/exps/standalone/tmpxyz"
FILE = "params.yaml"


def train() -> None:
    """A training that logs a file."""
    with tracking.start(Stage("train")) as run:
        run.log_artifact(FILE, "train")


def folder_of(root: Path, run: Any) -> Path:
    """The folder that the store names for the files of a run."""
    return Path(run.info.artifact_uri.removeprefix("file://"))


def logged(root: Path, run: Any) -> list[str]:
    """The files of a run, as MLflow's pages find them."""
    client, _ = store.open_store(root)
    return [file.path for file in client.list_artifacts(run.info.run_id, "train")]


def location(root: Path) -> str:
    client, number = store.open_store(root)
    return str(client.get_experiment(number).artifact_location)


def listing(folder: Path) -> dict[str, bytes]:
    found = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


def in_workspace(project: Path, patch: pytest.MonkeyPatch) -> Path:
    """A temporary workspace of DVC, as working directory."""
    ignored = shutil.ignore_patterns(".dvc", ".cache", "*.db")
    workspace = Path(shutil.copytree(project, project / TEMPORARY, ignore=ignored))
    patch.chdir(workspace)
    patch.setenv("DVC_ROOT", str(project))
    return workspace


@pytest.mark.parametrize("address", ["sqlite:///other.db", "sqlite:///{outside}/runs.db"])
def test_files_outlive_a_temporary_workspace(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    """A SQLite file with a relative path; and, the relative, one outside of the project."""
    (tmp_path / "outside").mkdir()
    shutil.copy("other.db", tmp_path / "outside/runs.db")
    workspace = in_workspace(project, monkeypatch)
    with store_at(address.format(outside=tmp_path / "outside")):
        train()
        assert not list(workspace.glob("ml*"))
        monkeypatch.chdir(project)
        shutil.rmtree(workspace)
        [run] = runs(project)
        assert logged(project, run) == [f"train/{FILE}"]
        home = tmp_path / "outside" if "outside" in address else project
        assert folder_of(project, run) == home / "mlartifacts" / run.info.run_id / "artifacts"


def test_the_folder_for_each_kind_of_store(project: Path) -> None:
    """Also of a database without a server: MLflow would take the working directory."""
    for address, folder in {
        "": project / "mlartifacts",
        "sqlite:///sub/runs.db": project / "mlartifacts",
        "sqlite:////elsewhere/runs.db": Path("/elsewhere/mlartifacts"),
        "postgresql://me:secret@127.0.0.1/runs": project / "mlartifacts",
        "mysql+pymysql://127.0.0.1/runs": project / "mlartifacts",
        "http://127.0.0.1:5000": None,
        "https://example.org/team": None,
        "databricks": None,
    }.items():
        with store_at(address):
            assert store.files_folder(project) == folder


def test_an_experiment_whose_folder_is_a_temporary_workspace_is_mended(project: Path) -> None:
    """As it was stored before."""
    client = store.connect(project)
    lost = project / TEMPORARY / "mlruns/1"
    number = client.create_experiment("project", str(lost))
    assert store.open_store(project)[1] == number
    assert location(project) == (project / "mlartifacts").as_uri()


def test_a_file_never_goes_into_a_temporary_workspace(project: Path, tmp_path: Path) -> None:
    """A store outside of the project may be others', too: its paths are not written anew."""
    with store_at(f"sqlite:///{shutil.copy('other.db', tmp_path)}"):
        lost = project / TEMPORARY / "mlruns/1"
        store.connect(project).create_experiment("project", str(lost))
        with pytest.raises(InputError, match=r"^a temporary workspace of DVC goes, so no files"):
            train()
        assert not lost.exists()


def move(project: Path, target: Path, patch: pytest.MonkeyPatch) -> Path:
    project.rename(target)
    patch.chdir(target)
    return target


@pytest.mark.parametrize("name", ["", "flowers"])
def test_a_project_that_moved_takes_its_runs_along(
    project: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    name: str,
) -> None:
    """Also one without a name of its own, which is called by its folder."""
    set_name(project, name)
    train()
    [first] = runs(project)
    experiment = store.open_store(project)[1]
    other = move(project, tmp_path / "another place", monkeypatch)
    capsys.readouterr()
    assert store.open_store(other)[1] == experiment
    line = f"tracking: the project was at {project}: its runs have their files here now\n"
    assert capsys.readouterr().err == line
    assert logged(other, first) == [f"train/{FILE}"]
    train()
    assert not project.exists()
    second, first = runs(other)
    assert {run.info.experiment_id for run in (first, second)} == {experiment}
    for run in (first, second):
        assert logged(other, run) == [f"train/{FILE}"]
        assert folder_of(other, run).is_relative_to(other.as_uri().removeprefix("file://"))
    assert "the project was" not in capsys.readouterr().err  # once


def test_a_copy_leaves_the_original_alone(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train()
    before = listing(project)
    copy = Path(shutil.copytree(project, tmp_path / "copy"))
    monkeypatch.chdir(copy)
    train()
    assert len(runs(copy)) == 2
    assert listing(project) == before
    for run in runs(copy):
        assert logged(copy, run) == [f"train/{FILE}"]
    monkeypatch.chdir(project)
    [run] = runs(project)
    assert folder_of(project, run).is_relative_to(project)


def test_back_and_forth_as_when_it_is_mounted_in_a_container(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The relative: the same folder under two names in turn."""
    for place in (tmp_path / "mounted", project, tmp_path / "mounted"):
        train()
        project = move(project, place, monkeypatch)
        train()
        assert [logged(place, run) for run in runs(place)] == [[f"train/{FILE}"]] * len(runs(place))
    assert len(runs(project)) == 6


def test_a_registered_model_is_found_after_the_move(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train()
    client, _ = store.open_store(project)
    [run] = runs(project)
    client.create_registered_model("clothes")
    client.create_model_version("clothes", f"{run.info.artifact_uri}/train", run.info.run_id)
    other = move(project, tmp_path / "other", monkeypatch)
    client, _ = store.open_store(other)
    uri = client.get_model_version_download_uri("clothes", "1")
    assert uri == f"{other.as_uri()}/mlartifacts/{run.info.run_id}/artifacts/train"


def test_a_folder_that_somebody_chose_stays(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = tmp_path / "shared/mlartifacts"
    shared.parent.mkdir()
    for chosen in (shared.as_uri(), "s3://bucket/runs", "mlflow-artifacts:/7"):
        store.connect(project).create_experiment(chosen.replace("/", " "), chosen)
    other = move(project, tmp_path / "other", monkeypatch)
    client = store.open_store(other)[0]
    found = {item.artifact_location for item in client.search_experiments()}
    assert {shared.as_uri(), "s3://bucket/runs", "mlflow-artifacts:/7"} <= found
    for chosen in found:
        assert files.trouble(other, store.files_folder(other), chosen) == ""


@pytest.mark.parametrize("gone", [False, True])
def test_files_never_go_into_another_project(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gone: bool
) -> None:
    """The relative: two clones with one store outside of both, whose experiment keeps its files in
    the first; and that one when it has moved."""
    address = f"sqlite:///{shutil.copy('other.db', tmp_path)}"
    with store_at(address):
        client = store.connect(project)
        client.create_experiment("project", str(project / "mlruns/1"))
        run_id = client.create_run(store.open_store(project)[1]).info.run_id
        set_name(project, "project")
        ignored = shutil.ignore_patterns(".cache", "*.db")
        clone = Path(shutil.copytree(project, tmp_path / "clone", ignore=ignored))
        if gone:
            project.rename(tmp_path / "away")
        monkeypatch.chdir(clone)
        why = f"{project} is {'not here' if gone else 'another project'}, so no files of runs go "
        with pytest.raises(InputError, match=f"^{why}into {project}/mlruns/1, as the MLflow exp"):
            train()
        with pytest.raises(store.StoreError, match=why):
            store.log_file(clone, client, run_id, Path(FILE), "train")
        assert not (project / "mlruns").exists()
        monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "of the clone")  # the way out
        train()


def test_a_run_that_goes_on_after_the_move_keeps_its_files(
    project: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The folder of a run cannot be changed in a database: what is to go there waits."""
    with store_at(f"sqlite:///{shutil.copy('other.db', tmp_path)}"):
        client, number = store.open_store(project)
        run = client.create_run(number)
        elsewhere = tmp_path / "moved away/mlruns" / run.info.run_id / "artifacts"
        with closing(sqlite3.connect(tmp_path / "other.db")) as database, database:
            database.execute("UPDATE runs SET artifact_uri = ?", (str(elsewhere),))
        record = unsent.record_of(project, "f" * 64, run, "train", "finished")
        record.save()
        Outbox(project, record.run_id).add("train/curves.png", b"png")
        sent = unsent.send_all(project)
    assert sent.trouble == [f"run {record.run_id}: 0 points and 1 file wait"]
    assert f"{elsewhere.parents[2]} is not here, so no files " in capsys.readouterr().err
    assert not elsewhere.exists()
    assert [file.name for file in Outbox(project, record.run_id).files()] == ["curves.png"]


@pytest.mark.parametrize("copied", [True, False])
def test_a_run_of_the_original_is_not_gone_on_with_in_a_copy(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, copied: bool
) -> None:
    """The relative: both have the record of a run in a store that they share, and it has not ended.
    A project that moved goes on with it."""
    set_name(project, "flowers")
    with store_at(f"sqlite:///{shutil.copy('other.db', tmp_path)}"):
        train_until(KeyboardInterrupt)
        [first] = runs(project)
        client, _ = store.open_store(project)
        client.update_run(first.info.run_id, status="RUNNING")  # as it goes on over there
        record = train_record(project)
        record.state = "running"
        record.save()
        place = tmp_path / "other"
        shutil.copytree(project, place) if copied else project.rename(place)
        monkeypatch.chdir(place)
        sent = unsent.send_all(place)
        assert sent.closed == (0 if copied else 1)
        train()
        last, *others = runs(place)
        if copied:
            assert [run.info.status for run in others] == ["RUNNING"]
            assert last.data.tags["repeat_of"] == first.info.run_id
        else:
            assert (last.info.run_id, last.info.status) == (first.info.run_id, "FINISHED")


def test_a_store_that_can_only_be_read_is_still_shown(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train()
    other = move(project, tmp_path / "other", monkeypatch)
    monkeypatch.setattr(
        files, "bring_along", lambda *_: (_ for _ in ()).throw(sqlite3.OperationalError("readonly"))
    )
    assert len(runs(other)) == 1


def test_the_pages_of_a_copy_are_not_those_of_the_original(project: Path, tmp_path: Path) -> None:
    """The relative: `make ui` serves the original, and its note was copied."""
    with socket.create_server((pages.HOST, 0)) as server:
        port = server.getsockname()[1]
        pages.write_note(project, port)
        copy = Path(shutil.copytree(project, tmp_path / "copy"))
        assert pages.running_address(project) == f"http://127.0.0.1:{port}/"
        assert pages.running_address(copy) is None
