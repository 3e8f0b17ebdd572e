"""Results in the hands of others: what is pushed comes back elsewhere without any stage running."""

import json
import re
import sys
from pathlib import Path

import pytest

from src.plumbing.identity import fingerprint_from_lock
from tests.pipeline.clone import lock, run, runs

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def elsewhere(clone: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A second clone of a project that was pushed: by git, and by DVC with its run cache."""
    folder = tmp_path_factory.mktemp("remotes")
    run(folder, "git", "init", "--quiet", "--bare", "--initial-branch=main", "origin.git")
    run(clone, "git", "remote", "add", "origin", str(folder / "origin.git"))
    run(clone, "dvc", "remote", "add", "--quiet", "--default", "storage", str(folder / "storage"))
    run(clone, "git", "commit", "--quiet", "--all", "--message", "remote")
    run(clone, "git", "push", "--quiet", "origin", "main")
    run(clone, "dvc", "exp", "run", "--temp", "--name", "faster", "-S", "lr=3e-3")
    run(clone, "dvc", "push", "--quiet", "--run-cache")
    run(clone, "dvc", "exp", "push", "--quiet", "origin", "faster")
    run(folder, "git", "clone", "--quiet", "origin.git", "second")
    return folder / "second"


def test_a_second_clone_runs_nothing(clone: Path, elsewhere: Path) -> None:
    run(elsewhere, "dvc", "pull", "--quiet", "--run-cache")
    printed = run(elsewhere, "dvc", "repro")
    assert "Running stage" not in printed
    assert printed.count("didn't change, skipping") == 5
    assert lock(elsewhere) == lock(clone)


def test_an_experiment_is_carried_over_and_leads_to_its_run(clone: Path, elsewhere: Path) -> None:
    run(elsewhere, "dvc", "exp", "pull", "--quiet", "origin", "faster")
    fingerprint = fingerprint_from_lock(
        run(elsewhere, "git", "show", f"{_ref(elsewhere, 'faster')}:dvc.lock"), "train"
    )
    assert fingerprint in runs(clone)
    # The store that both share: here the file of the first one.
    code = f"export MLFLOW_TRACKING_URI=sqlite:///{clone}/mlflow.db MLFLOW_EXPERIMENT_NAME=project;"
    where = [f"{code} {sys.executable} -m src.where faster --json"]
    found = json.loads(run(elsewhere, "bash", "-c", *where))
    run_id = found["runs"]["train"]["run_id"]
    assert re.fullmatch("[0-9a-f]{32}", run_id)
    there = json.loads(run(clone, sys.executable, "-m", "src.where", "faster", "--json"))
    assert there["runs"]["train"]["run_id"] == run_id
    assert found["metrics"] == there["metrics"]


def _ref(folder: Path, name: str) -> str:
    refs = run(folder, "git", "for-each-ref", "--format=%(refname)", "refs/exps").split()
    [found] = [ref for ref in refs if ref.endswith(f"/{name}")]
    return found
