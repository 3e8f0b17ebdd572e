import itertools
import shutil
import subprocess
from collections.abc import Callable
from typing import Any

import pytest

from src.tracking.store import store
from tests.conftest import run_main
from tests.experiments.stored_results import Project
from tests.tracking.tracked_project import empty_store

NewRun = Callable[[dict[str, str]], str]
Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """Calls a tool's `main` with arguments: exit code, stdout, stderr."""
    return lambda main, *arguments: run_main(main, arguments, monkeypatch, capsys)


def refusal(ended: tuple[int, str, str]) -> str:
    """The line with which a tool refused its input; it printed nothing else."""
    code, out, err = ended
    assert (code, out, err.count("\n")) == (2, "", 1), err
    return err


@pytest.fixture
def new_run(
    project: Project, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> NewRun:
    """Makes a run with these tags, newer than those before, in a store of the project: its id."""
    shutil.copy(empty_store(tmp_path_factory, monkeypatch), project.root)
    client, experiment = store.open_store(project.root)
    starts = itertools.count()

    def make(tags: dict[str, str]) -> str:
        return str(store.create_run(client, experiment, "run", tags, next(starts)).info.run_id)

    return make


@pytest.fixture
def processes(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What `subprocess.run` is called with from here on."""
    original = subprocess.run
    started: list[Any] = []

    def run(*arguments: Any, **options: Any) -> Any:
        started.append(arguments)
        return original(*arguments, **options)

    monkeypatch.setattr(subprocess, "run", run)
    return started
