"""Experiments as people run them: here, in temporary workspaces, in the queue, through MLflow."""

import json
import shutil
import sqlite3
import sys
import time
from pathlib import Path

import pytest

from src.plumbing.identity import fingerprint_from_lock
from tests.conftest import set_params
from tests.pipeline.clone import (
    accuracy_of,
    commit,
    experiments,
    lock,
    new_clone,
    restore,
    run,
    run_queue,
    runs,
    started_queue,
)
from tests.preparation.test_sources import write_pictures

pytestmark = pytest.mark.slow


def test_an_experiment_and_the_way_back(clone: Path) -> None:
    """`exp run -S`, then the old value again: served from the run cache, still leads to its run."""
    run(clone, "dvc", "exp", "run", "--name", "faster", "-S", "lr=3e-3")
    fingerprint = fingerprint_from_lock(lock(clone), "train")
    assert fingerprint is not None
    assert "test/accuracy" in runs(clone)[fingerprint]
    assert accuracy_of(experiments(clone)["faster"]) == pytest.approx(
        runs(clone)[fingerprint]["test/accuracy"], abs=1e-6
    )
    count = len(runs(clone))
    printed = run(clone, "dvc", "exp", "run", "--name", "back", "-S", "lr=0.001")
    assert "Running stage" not in printed
    assert len(runs(clone)) == count
    old = fingerprint_from_lock(lock(clone), "train")
    assert old != fingerprint
    where = json.loads(run(clone, sys.executable, "-m", "src.where", "faster", "--json"))
    with sqlite3.connect(clone / "mlflow.db") as store:
        (owner,) = store.execute(
            "SELECT run_uuid FROM tags WHERE key = 'fingerprint' AND value = ?", (fingerprint,)
        ).fetchone()
    assert where["runs"]["train"]["run_id"] == owner
    restore(clone)


def test_temp_and_queue_leave_their_runs_in_the_main_store(clone: Path, tmp_path: Path) -> None:
    before = set(runs(clone))
    run(clone, "dvc", "exp", "run", "--temp", "--name", "slow", "-S", "lr=1e-5")
    run(clone, "dvc", "exp", "run", "--queue", "-S", "seed=range(1,4)")
    with started_queue(clone, tmp_path / "queue.log", jobs=2):
        deadline = time.monotonic() + 900
        while (status := run(clone, "dvc", "queue", "status")).count("Success") < 3:
            assert "Failed" not in status, status
            assert time.monotonic() < deadline, status
            time.sleep(2)
    new = {key: value for key, value in runs(clone).items() if key not in before}
    assert len(new) == 4
    assert all("test/accuracy" in metrics for metrics in new.values()), new
    shown = experiments(clone)
    assert accuracy_of(shown["slow"]) > 0
    assert len([name for name in shown if accuracy_of(shown[name])]) >= 4
    assert not list((clone / ".dvc/tmp/exps").glob("*/mlflow.db"))
    run(clone, "git", "diff", "HEAD", "--exit-code")


def test_a_temporary_workspace_runs_its_own_code(clone: Path) -> None:
    """A queued experiment uses the code of the moment of queueing, not the main tree's."""
    path = clone / "src/reports/training.py"
    text = path.read_text()
    path.write_text(text.replace('"best_epoch": best.epoch,\n    }', '"marker": 7,\n    }'))
    assert "marker" in path.read_text()
    run(clone, "dvc", "exp", "run", "--queue", "--name", "marked", "-S", "seed=77")
    path.write_text(text)
    run_queue(clone)
    metrics = experiments(clone)["marked"]["data"]["metrics"]["results/train/metrics.json"]["data"]
    assert metrics["marker"] == 7
    restore(clone)


def test_own_pictures_here_and_in_a_temporary_workspace(tmp_path: Path) -> None:
    folder = new_clone(tmp_path / "own", source="folder", path="data/raw", epochs=1)
    write_pictures(folder / "data/raw", {"cat": 40, "dog": 40})
    set_params(folder, on_fail="report")  # noise has nothing to learn on the subset
    run(folder, "dvc", "add", "--quiet", "data/raw")
    commit(folder, "pictures")
    run(folder, "dvc", "repro")
    commit(folder, "results")
    assert "Running stage" not in run(folder, "dvc", "repro")
    picture = folder / "data/raw/cat/000.png"
    shutil.copy(folder / "data/raw/cat/001.png", tmp_path / "other.png")
    picture.unlink()
    shutil.copy(tmp_path / "other.png", picture)
    assert "Running stage 'prepare'" in run(folder, "dvc", "repro")
    run(folder, "git", "checkout", "--quiet", "--", ".")
    run(folder, "dvc", "checkout", "--quiet")
    run(folder, "dvc", "exp", "run", "--temp", "--name", "temporary", "-S", "epochs=2")
    assert accuracy_of(experiments(folder)["temporary"]) >= 0


def test_mlflow_run_does_what_exp_run_does(clone: Path) -> None:
    set_params(clone, epochs=2)
    commit(clone, "two epochs")
    run(clone, "dvc", "repro")
    commit(clone, "results of two epochs")
    run(clone, "mlflow", "run", ".", "--env-manager", "local", "-P", "lr=3e-3")
    locked = lock(clone).partition("  train:")[2]
    assert "lr: 0.003" in locked
    assert "epochs: 2" in locked
    fingerprint = str(fingerprint_from_lock(lock(clone), "train"))
    assert "test/accuracy" in runs(clone)[fingerprint]
    printed = run(clone, "mlflow", "run", ".", "--env-manager", "local", "-P", "epochs=abc", code=1)
    assert "params.yaml: epochs must be an integer >= 1, got 'abc'" in printed
    restore(clone)
