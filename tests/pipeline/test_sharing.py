"""Results in the hands of others: what is pushed comes back elsewhere without any stage running."""

import json
import re
import sys
from pathlib import Path

import pytest

from tests.pipeline.clone import fingerprint_from_lock, lock, lock_of, run, runs

pytestmark = pytest.mark.slow(seconds=20)


def test_a_second_clone_runs_nothing_and_takes_an_experiment_over(
    clone: Path, tmp_path: Path
) -> None:
    run(tmp_path, "git", "init", "--quiet", "--bare", "--initial-branch=main", "origin.git")
    run(clone, "git", "remote", "add", "origin", str(tmp_path / "origin.git"))
    run(clone, "dvc", "remote", "add", "--quiet", "--default", "storage", str(tmp_path / "storage"))
    run(clone, "git", "commit", "--quiet", "--all", "--message", "remote")
    run(clone, "git", "push", "--quiet", "origin", "main")
    run(clone, "dvc", "push", "--quiet", "--run-cache")
    run(clone, "dvc", "exp", "push", "--quiet", "--rev", "HEAD~1", "origin", "higher")
    run(tmp_path, "git", "clone", "--quiet", "origin.git", "second")
    second = tmp_path / "second"

    run(second, "dvc", "pull", "--quiet", "--run-cache")
    printed = run(second, "dvc", "repro")
    assert "Running stage" not in printed
    assert printed.count("didn't change, skipping") == 5
    assert lock(second) == lock(clone)

    run(second, "dvc", "exp", "pull", "--quiet", "--rev", "HEAD~1", "origin", "higher")
    assert fingerprint_from_lock(lock_of(second, "higher"), "train") in runs(clone)
    # The store that both share: here the file of the first one.
    code = f"export MLFLOW_TRACKING_URI=sqlite:///{clone}/mlflow.db;"
    where = [f"{code} {sys.executable} -m src.where higher --json"]
    found = json.loads(run(second, "bash", "-c", *where))
    run_id = found["runs"]["train"]["run_id"]
    assert re.fullmatch("[0-9a-f]{32}", run_id)
    there = json.loads(run(clone, sys.executable, "-m", "src.where", "higher", "--json"))
    assert there["runs"]["train"]["run_id"] == run_id
    assert found["metrics"] == there["metrics"]
