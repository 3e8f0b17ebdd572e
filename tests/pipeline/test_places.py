"""Where a project and its runs are: temporary workspaces that go, and a project that moves."""

import json
import shutil
import sys
from pathlib import Path

import pytest

from tests.pipeline.clone import commit, experiments, new_clone, run

pytestmark = pytest.mark.slow(seconds=60)

WHERE = (sys.executable, "-m", "src.where")
OF_TRAINING = {"data", "evaluate", "model", "train"}
# What MLflow's pages list of a run, in a process of its own.
LIST = """
import sys
from mlflow import MlflowClient
client = MlflowClient(sys.argv[1])
print(*[file.path for file in client.list_artifacts(sys.argv[2])])
"""


def files_of(folder: Path, store: str, run_id: str) -> set[str]:
    printed = run(folder, sys.executable, "-c", LIST, f"sqlite:///{folder}/{store}", run_id)
    return set(printed.splitlines()[-1].split())


def test_files_of_a_temporary_experiment_stay(tmp_path: Path) -> None:
    folder = tmp_path / "project"
    folder.mkdir()
    new_clone(folder)
    at_store = ("env", "MLFLOW_TRACKING_URI=sqlite:///runs.db")
    experiment = ("dvc", "exp", "run", "--temp", "--name", "loss", "-S", "best_by=val/loss")
    run(folder, *at_store, *experiment)
    run(folder, sys.executable, "-m", "src.clean")
    assert list(experiments(folder)) == ["loss"]
    about = json.loads(run(folder, *at_store, *WHERE, "loss", "--json"))["runs"]
    assert files_of(folder, "runs.db", about["train"]["run_id"]) >= OF_TRAINING
    assert files_of(folder, "runs.db", about["overfit-check"]["run_id"]) >= {"overfit_check"}
    assert not (folder / "mlruns").exists()


def test_a_project_that_moved_and_a_copy_of_it(clone: Path, tmp_path: Path) -> None:
    before = json.loads(run(clone, *WHERE, "--json"))["runs"]["train"]
    other = tmp_path / "other"
    shutil.move(clone, other)
    run(other, *WHERE)
    assert files_of(other, "mlflow.db", before["run_id"]) >= OF_TRAINING
    run(other, "dvc", "exp", "run", "--name", "moved", "-S", "lr=2e-3")
    assert not clone.exists()
    of_main = json.loads(run(other, *WHERE, "main", "--json"))["runs"]["train"]
    assert of_main["run_id"] == before["run_id"]
    after = json.loads(run(other, *WHERE, "moved", "--json"))["runs"]["train"]
    page = before["address"].rpartition("/runs/")[0]
    assert after["address"].startswith(f"{page}/runs/")  # in the same experiment
    for found in (before, after):
        assert files_of(other, "mlflow.db", found["run_id"]) >= OF_TRAINING

    copy = tmp_path / "copy"
    shutil.copytree(other, copy, symlinks=True)
    listing = sorted(path for path in other.rglob("*") if path.is_file())
    commit(copy, "as it was")
    run(copy, "dvc", "exp", "run", "--name", "copied", "-S", "lr=4e-3")
    assert sorted(path for path in other.rglob("*") if path.is_file()) == listing
    for name in ("moved", "copied"):
        found = json.loads(run(copy, *WHERE, name, "--json"))["runs"]["train"]
        assert files_of(copy, "mlflow.db", found["run_id"]) >= OF_TRAINING
