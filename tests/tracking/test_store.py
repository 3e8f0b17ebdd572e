"""Where runs are kept, and in which experiment."""

import shutil
from pathlib import Path

import pytest

from src.plumbing.errors import InputError
from src.plumbing.stage import Stage
from src.tracking import run as tracking
from src.tracking.store import store
from tests.tracking.tracked_project import artifacts, make_tracked_project, runs, train


def test_the_store_is_the_main_repository_s_also_in_a_temporary_workspace(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = project / ".dvc/tmp/exps/tmpxyz"
    ignore = shutil.ignore_patterns(".dvc", "mlflow.db")
    shutil.copytree(project, workspace, ignore=ignore)
    monkeypatch.chdir(workspace)
    for root in ("", str(project)):  # as a user who runs a stage by hand, as DVC
        monkeypatch.setenv("DVC_ROOT", root)
        train()
    assert not list(workspace.glob("ml*"))
    assert not (workspace / ".cache").exists()
    stored = runs(project)
    assert len(stored) == 2
    client, experiment_id = store.open_store(project)
    experiment = client.get_experiment(experiment_id)
    assert experiment.name == "project"
    assert experiment.artifact_location == f"file://{project}/mlartifacts"


def test_the_address_of_the_store(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert store.tracking_uri(project) == f"sqlite:///{project}/mlflow.db"
    for given, used in {
        "": f"sqlite:///{project}/mlflow.db",
        "http://127.0.0.1:5000": "http://127.0.0.1:5000",
        "sqlite:////other/runs.db": "sqlite:////other/runs.db",
        "sqlite:///runs.db": f"sqlite:///{project}/runs.db",  # not that of a temporary workspace
        "sqlite:///a%20b.db?timeout=5": f"sqlite:///{project}/a%20b.db?timeout=5",
    }.items():
        monkeypatch.setenv("MLFLOW_TRACKING_URI", given)
        assert store.tracking_uri(project / ".") == used


def test_the_file_of_a_store() -> None:
    root = Path("/somewhere/a b%20#c?ü")
    assert store.sqlite_file(store.local_uri(root)) == root / "mlflow.db"
    for uri, file in {
        "sqlite:////x/a%20b.db?timeout=5": Path("/x/a b.db"),
        "sqlite+pysqlite:////x/c%3Fd#e.db": Path("/x/c?d#e.db"),
        "http://127.0.0.1:5000": None,
        "postgresql://me:secret@example.org/runs": None,
        "": None,
    }.items():
        assert store.sqlite_file(uri) == file


def test_the_name_of_a_store(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert store.name(project) == "sqlite:///mlflow.db"
    for uri, name in {
        "sqlite:///runs.db": "sqlite:///runs.db",
        f"sqlite:///{project}/mlflow.db": "sqlite:///mlflow.db",
        "sqlite:////x/runs.db?timeout=5": "sqlite:////x/runs.db",
        "https://me:secret@example.org/team/?token=secret": "https://example.org/team",
    }.items():
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        assert store.name(project) == name


def test_a_folder_with_an_odd_name(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_tracked_project(tmp_path / "a b%20#c?ü", tmp_path_factory, monkeypatch)
    with tracking.start(Stage("train")) as run:
        run.log_artifact("params.yaml")
    [stored] = runs(folder)
    assert stored.info.run_id.encode() in (folder / "mlflow.db").read_bytes()
    assert (artifacts(folder, stored) / "params.yaml").exists()


def test_the_experiment(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    client, first = store.open_store(project)
    assert client.get_experiment(first).name == "project"
    assert store.open_store(project)[1] == first
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "another")
    named = store.open_store(project)[1]
    assert client.get_experiment(named).name == "another"
    client.delete_experiment(named)
    with pytest.raises(InputError, match=rf"another was deleted.* restore -x {named}`"):
        store.open_store(project)
    with pytest.raises(InputError), tracking.start(Stage("train")):
        pytest.fail("the stage must not begin")


def test_stages_below_mlflow_run_are_its_children(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, _ = store.open_store(project)
    experiment_id = client.create_experiment("chosen")
    parent = client.create_run(experiment_id).info.run_id
    monkeypatch.setenv("MLFLOW_RUN_ID", parent)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", experiment_id)
    train()
    child, unchanged = client.search_runs([experiment_id])
    assert child.data.tags["mlflow.parentRunId"] == parent
    assert unchanged.info.run_id == parent
    assert unchanged.info.status == "RUNNING"
    assert "stage" not in unchanged.data.tags
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", "0")
    assert client.get_experiment(store.open_store(project)[1]).name == "project"
    monkeypatch.delenv("MLFLOW_RUN_ID")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", experiment_id)  # not set by `mlflow run`
    assert client.get_experiment(store.open_store(project)[1]).name == "project"
