"""Experiments as people run them: here, in temporary workspaces, in the queue, through MLflow."""

import json
import shutil
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

import pytest

from tests.pipeline.clone import (
    accuracy_of,
    commit,
    experiments,
    fingerprint_from_lock,
    lock,
    lock_of,
    new_clone,
    run,
    run_queue,
    runs,
)
from tests.preparation.image_folders import write_images

pytestmark = pytest.mark.slow(seconds=60)

REFRESH = "evaluate.refresh_batchnorm=train"  # what evaluate alone runs again for


def test_an_experiment_and_the_way_back(clone: Path) -> None:
    """Values that were tried before: served from the run cache, and still leading to their run."""
    count = len(runs(clone))
    old = fingerprint_from_lock(lock(clone), "train")
    printed = run(clone, "dvc", "exp", "run", "--name", "again", "-S", "lr=3e-3")
    assert "Running stage" not in printed
    fingerprint = fingerprint_from_lock(lock(clone), "train")
    assert fingerprint is not None
    assert fingerprint == fingerprint_from_lock(lock_of(clone, "higher"), "train") != old
    assert accuracy_of(experiments(clone)["again"]) == pytest.approx(
        runs(clone)[fingerprint]["zz_test/accuracy"], abs=1e-6
    )
    printed = run(clone, "dvc", "exp", "run", "--name", "back", "-S", "lr=0.001")
    assert "Running stage" not in printed
    assert fingerprint_from_lock(lock(clone), "train") == old
    assert len(runs(clone)) == count
    where = json.loads(run(clone, sys.executable, "-m", "src.where", "again", "--json"))
    with closing(sqlite3.connect(clone / "mlflow.db")) as store:
        (owner,) = store.execute(
            "SELECT run_uuid FROM tags WHERE key = 'fingerprint' AND value = ?", (fingerprint,)
        ).fetchone()
    assert where["runs"]["train"]["run_id"] == owner


def test_temp_and_queue_leave_their_runs_in_the_main_store(clone: Path) -> None:
    """And each runs the code of the moment in which it was begun or queued."""
    before = set(runs(clone))
    run(clone, "dvc", "exp", "run", "--temp", "--name", "small", "-S", "train_on=subset")
    path = clone / "src/reports/training.py"
    text = path.read_text()
    path.write_text(text.replace('"best_epoch": best.epoch,', '"marker": 7,'))
    assert "marker" in path.read_text()
    run(clone, "dvc", "exp", "run", "--queue", "--name", "marked", "-S", "patience=2")
    path.write_text(text)
    run_queue(clone)
    new = {key: value for key, value in runs(clone).items() if key not in before}
    assert len(new) == 2
    assert all("zz_test/accuracy" in metrics for metrics in new.values()), new
    shown = experiments(clone)
    assert accuracy_of(shown["small"]) > 0
    assert "data/subset" in lock_of(clone, "small").partition("  train:")[2].partition("outs:")[0]
    metrics = shown["marked"]["data"]["metrics"]["results/train/metrics.json"]["data"]
    assert metrics["marker"] == 7
    assert not list((clone / ".dvc/tmp/exps").glob("*/mlflow.db"))
    run(clone, "git", "diff", "HEAD", "--exit-code")


def test_own_pictures_here_and_in_a_temporary_workspace(tmp_path: Path) -> None:
    folder = new_clone(
        tmp_path / "own", source="folder", path="data/raw", epochs=1, tracking="false",
        on_fail="report",  # noise has nothing to learn on the subset
    )  # fmt: skip
    write_images(folder / "data/raw", {"cat": 40, "dog": 40})
    run(folder, "dvc", "add", "--quiet", "data/raw")
    commit(folder, "pictures")
    run(folder, "dvc", "repro")
    commit(folder, "results")
    assert "Running stage" not in run(folder, "dvc", "repro")
    picture = folder / "data/raw/cat/000.png"
    picture.unlink()  # it may be a link into the cache
    shutil.copy(folder / "data/raw/cat/001.png", picture)
    assert "Running stage 'prepare'" in run(folder, "dvc", "repro", "prepare")
    run(folder, "git", "checkout", "--quiet", "--", ".")
    run(folder, "dvc", "checkout", "--quiet")
    run(folder, "dvc", "exp", "run", "--temp", "--name", "temporary", "-S", REFRESH)
    assert accuracy_of(experiments(folder)["temporary"]) >= 0


def test_mlflow_run_does_what_exp_run_does(clone: Path) -> None:
    """What is not given keeps the value that was committed."""
    run(clone, "mlflow", "run", ".", "--env-manager", "local", "-P", "train_on=subset")
    locked = lock(clone).partition("  train:")[2]
    assert "train_on: subset" in locked
    assert "epochs: 3" in locked
    fingerprint = str(fingerprint_from_lock(lock(clone), "train"))
    assert "zz_test/accuracy" in runs(clone)[fingerprint]
