"""In which experiment the runs of a project are, in every clone of it."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from src.base.imports import ROOT
from src.plumbing import git, identity
from src.plumbing.errors import InputError
from src.tracking.store import experiment, store
from tests.conftest import free_port
from tests.tracking.tracked_project import set_name, wait_until_up


@pytest.fixture
def named(project: Path) -> Path:
    """The project, in the folder `project`, with a name of its own."""
    set_name(project, "flowers")
    return project


@pytest.fixture
def shared(named: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same with the store of a team."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{named}/other.db")
    return named


def clone_of(project: Path, folder: Path) -> Path:
    return Path(shutil.copytree(project, folder, ignore=shutil.ignore_patterns(".cache", "*.db")))


def name_used(root: Path) -> str:
    client, number = store.open_store(root)
    return str(client.get_experiment(number).name)


def make(root: Path, name: str, **tags: str) -> str:
    """An experiment as it was made before projects had names, with a run."""
    client = store.connect(root)
    number = client.create_experiment(name)
    client.create_run(number, tags={key.replace("__", "."): value for key, value in tags.items()})
    return str(number)


def training() -> str:
    entry = identity.locked_stage(Path("dvc.lock").read_text(), "train")
    assert entry
    return identity.fingerprint_of(entry)


def test_it_is_called_by_the_project_in_every_clone(shared: Path, tmp_path: Path) -> None:
    first = store.open_store(shared)[1]
    assert store.open_store(clone_of(shared, tmp_path / "elsewhere"))[1] == first
    assert name_used(shared) == "flowers"


@pytest.mark.parametrize("chosen", ["", "trees"])
def test_two_clones_may_make_it_at_once(
    shared: Path, monkeypatch: pytest.MonkeyPatch, chosen: str
) -> None:
    """The other one was faster, after this one had found nothing."""
    from mlflow import MlflowClient

    made: list[str] = []
    create = MlflowClient.create_experiment

    def late(client: MlflowClient, name: str, *rest: Any, **named: Any) -> str:
        made.append(create(client, name, *rest, **named))
        return create(client, name, *rest, **named)

    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", chosen)
    monkeypatch.setattr(MlflowClient, "create_experiment", late)
    assert [store.open_store(shared)[1]] == made
    assert name_used(shared) == (chosen or "flowers")


# A client that makes the experiment when the other one, too, has looked for it in vain.
MAKES = """
import sys, time
from pathlib import Path
from mlflow import MlflowClient, MlflowException

create = MlflowClient.create_experiment

def late(client, *rest, **named):
    Path(sys.argv[1]).touch()
    while not Path(sys.argv[2]).exists():
        time.sleep(0.01)
    try:
        return create(client, *rest, **named)
    except MlflowException as error:
        print(error.error_code)
        raise

MlflowClient.create_experiment = late
from src.tracking.store import store
print(store.open_store(Path.cwd())[1])
"""


@pytest.mark.slow(seconds=30)
@pytest.mark.parametrize("chosen", ["", "trees"])
def test_two_clients_of_an_empty_server_may_make_it_at_once(
    named: Path, tmp_path: Path, chosen: str
) -> None:
    """Two processes and a real server, which lets one of them make it and refuses the other."""
    folder = tmp_path / "server"
    folder.mkdir()
    address = f"http://127.0.0.1:{(port := free_port())}"
    command = [sys.executable, "-P", "-m", "mlflow", "server", "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{folder}/mlflow.db"]
    with open(folder / "log", "wb") as log:
        server = subprocess.Popen(
            [*command, "--host", "127.0.0.1", "--port", str(port)],
            cwd=folder,
            env={**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    variables = {"MLFLOW_TRACKING_URI": address, "MLFLOW_EXPERIMENT_NAME": chosen}
    variables["PYTHONPATH"] = str(ROOT)
    signs = [tmp_path / "first", tmp_path / "second"]
    try:
        wait_until_up(server, f"{address}/health", folder / "log")
        clients = [
            subprocess.Popen(
                [sys.executable, "-c", MAKES, *map(str, order)],
                cwd=root,
                env={**os.environ, **variables},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for root, order in ((named, signs), (clone_of(named, tmp_path / "b"), signs[::-1]))
        ]
        ended = [client.communicate(timeout=300) for client in clients]
    finally:
        os.killpg(server.pid, signal.SIGKILL)  # the group that this test started
        server.wait()
    assert [errors for _, errors in ended] == ["", ""]
    printed = sorted((text.splitlines() for text, _ in ended), key=len)
    assert printed == [["1"], ["RESOURCE_ALREADY_EXISTS", "1"]]


def test_another_name_is_another_experiment(
    named: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert name_used(named) == "flowers"
    set_name(named, "trees")
    for line in ("earlier runs are in the experiment flowers; new ones go to trees\n", ""):
        assert name_used(named) == "trees"
        assert capsys.readouterr().err.removeprefix("tracking: ") == line


@pytest.mark.parametrize("chosen", ["", "trees"])
def test_one_that_was_renamed_is_gone_on_with(
    shared: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    chosen: str,
) -> None:
    """On MLflow's pages; the relative: one that MLFLOW_EXPERIMENT_NAME named."""
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", chosen)
    client, first = store.open_store(shared)
    client.rename_experiment(first, "Season 2026")
    elsewhere = clone_of(shared, tmp_path / "elsewhere")
    for root in (shared, elsewhere):
        assert store.open_store(root)[1] == first
        line = "tracking: the runs go on in the experiment Season 2026, which was called trees\n"
        assert capsys.readouterr().err == (line if chosen else "")
    assert [item.name for item in client.search_experiments()].count("Season 2026") == 1
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "Season 2026")  # by its name of today, too
    assert store.open_store(shared)[1] == first


@pytest.mark.parametrize("chosen", ["", "trees"])
def test_one_that_was_renamed_and_deleted_is_not_made_anew_in_silence(
    shared: Path, monkeypatch: pytest.MonkeyPatch, chosen: str
) -> None:
    """The relative: what is deleted is missing in a search."""
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", chosen)
    client, first = store.open_store(shared)
    client.rename_experiment(first, "old")
    client.delete_experiment(first)
    with pytest.raises(InputError, match=rf"^the MLflow experiment old was deleted.* -x {first}`"):
        store.open_store(shared)
    client.restore_experiment(first)
    assert store.open_store(shared)[1] == first


def test_a_new_one_of_the_old_name_is_what_was_asked_for(
    shared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "trees")
    client, first = store.open_store(shared)
    client.rename_experiment(first, "trees of 2025")
    second = client.create_experiment("trees")
    assert store.open_store(shared)[1] == second


def test_the_one_that_was_named_after_the_folder_is_kept(
    named: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old = make(named, "project")
    assert store.open_store(named)[1] == old
    line = "tracking: the runs go on in the experiment project, which has those of this project\n"
    assert capsys.readouterr().err == line
    assert store.open_store(named)[1] == old
    assert (capsys.readouterr().err, name_used(named)) == ("", "project")


def test_a_server_has_experiments_of_others(
    shared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One that has this folder's name is the project's if it has a run of its commits."""
    make(shared, "project", git__commit="0" * 40)
    elsewhere = clone_of(shared, tmp_path / "elsewhere")
    mine = make(shared, "elsewhere", git__commit=git.head())
    assert store.open_store(elsewhere)[1] == mine
    assert store.open_store(shared)[1] == mine  # a clone in a folder of another name finds it, too
    assert capsys.readouterr().err.count("\n") == 1


def test_a_clone_in_another_folder_finds_it_by_what_was_committed(
    shared: Path, tmp_path: Path
) -> None:
    make(shared, "somebody-else", fingerprint="0" * 64)
    first = make(shared, "folder-of-the-first", fingerprint=training())
    assert store.open_store(clone_of(shared, tmp_path / "second"))[1] == first


def test_runs_in_two_experiments_are_not_passed_over_in_silence(
    shared: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make(shared, "project", git__commit=git.head())
    new = make(shared, "flowers")
    assert store.open_store(shared)[1] == new
    line = "tracking: earlier runs are in the experiment project; new ones go to flowers\n"
    assert capsys.readouterr().err == line


def test_a_server_that_lets_nobody_mark_an_experiment(
    named: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = make(named, "project")

    def refuse(*_: object) -> None:
        raise PermissionError

    client = store.connect(named)
    monkeypatch.setattr(client, "set_experiment_tag", refuse)
    for _ in range(2):
        assert experiment.find(client, named, "file:///unused", own=True) == old


def test_a_name_that_is_none(named: Path) -> None:
    for text, line in {
        "[project]\n": "pyproject.toml: give the project a name",
        '[project]\nname = " "\n': "pyproject.toml: give the project a name",
        "project = 1\n": "pyproject.toml: give the project a name",
        "[project\n": "pyproject.toml cannot be read: ",
    }.items():
        (named / "pyproject.toml").write_text(text)
        with pytest.raises(InputError, match=f"^{line}"):
            store.open_store(named)
