"""The real pipeline in temporary clones, through `dvc` as people run it."""

import json
import os
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from src.pipeline import fingerprint_from_lock
from tests.closure import ROOT
from tests.conftest import SMALL, set_params
from tests.test_sources import write_pictures

pytestmark = pytest.mark.slow

IDENTITY = {
    "GIT_AUTHOR_NAME": "Test", "GIT_AUTHOR_EMAIL": "test@example.org",
    "GIT_COMMITTER_NAME": "Test", "GIT_COMMITTER_EMAIL": "test@example.org",
}  # fmt: skip


def environment() -> dict[str, str]:
    """The user's environment after `source .venv/bin/activate`, without what tests may have set."""
    dropped = ("DVC_", "MLFLOW_")
    kept = {key: value for key, value in os.environ.items() if not key.startswith(dropped)}
    path = f"{Path(sys.executable).parent}{os.pathsep}{kept['PATH']}"
    return {**kept, **IDENTITY, "PATH": path}


def run(folder: Path, *command: str, code: int = 0) -> str:
    """Run a command, require its exit code, return what it printed."""
    ended = subprocess.run(
        command, cwd=folder, env=environment(), capture_output=True, text=True, timeout=600
    )
    printed = ended.stdout + ended.stderr
    assert ended.returncode == code, f"{' '.join(command)}\n{printed}"
    assert "Traceback" not in printed, printed
    return printed


def commit(folder: Path, message: str) -> None:
    run(folder, "git", "add", "--all")
    run(folder, "git", "commit", "--quiet", "--message", message)


def new_clone(folder: Path, **params: object) -> Path:
    """A repository with the files of this one as they are now, and small settings committed."""
    listed = run(ROOT, "git", "ls-files", "-co", "--exclude-standard").splitlines()
    for name in listed:
        if (ROOT / name).is_file() and not name.startswith(("results/", "dvc.lock")):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    set_params(folder, **{**SMALL, "tracking": "true", **params})
    run(folder, "git", "init", "--quiet", "--initial-branch=main")
    commit(folder, "project")
    return folder


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone whose pipeline has run once and is committed. Tests leave it clean."""
    folder = new_clone(tmp_path_factory.mktemp("pipeline") / "project")
    run(folder, "dvc", "repro")
    commit(folder, "results")
    return folder


def restore(folder: Path) -> None:
    run(folder, "git", "checkout", "--quiet", "--", ".")
    run(folder, "dvc", "checkout", "--quiet", "--force")


def lock(folder: Path) -> str:
    return (folder / "dvc.lock").read_text()


def runs(folder: Path, stage: str = "train") -> dict[str, dict[str, float]]:
    """The latest metrics of each run of a stage in the store, by fingerprint."""
    with sqlite3.connect(folder / "mlflow.db") as store:
        tags = store.execute("SELECT run_uuid, key, value FROM tags").fetchall()
        rows = store.execute("SELECT run_uuid, key, value FROM latest_metrics").fetchall()
    by_run: dict[str, dict[str, str]] = {}
    for run_id, key, value in tags:
        by_run.setdefault(run_id, {})[key] = value
    return {
        found["fingerprint"]: {key: value for owner, key, value in rows if owner == run_id}
        for run_id, found in by_run.items()
        if found.get("stage") == stage
    }


def experiments(folder: Path) -> dict[str, dict]:
    """What `dvc exp show` says of each experiment, by name."""
    rows = json.loads(run(folder, "dvc", "exp", "show", "--json"))
    found = {}
    for row in rows:
        for experiment in row.get("experiments") or []:
            revision = experiment["revs"][0]
            found[experiment["name"] or revision["rev"]] = revision
    return found


def test_accuracy(revision: dict) -> float:
    return revision["data"]["metrics"]["results/evaluate/metrics.json"]["data"]["test"]["accuracy"]


test_accuracy.__test__ = False  # type: ignore[attr-defined]


def test_a_second_repro_runs_nothing(clone: Path) -> None:
    printed = run(clone, "dvc", "repro")
    assert "Running stage" not in printed
    assert run(clone, "git", "status", "--porcelain") == ""


def test_the_lock_is_the_same_in_a_forced_run_and_in_another_clone(
    clone: Path, tmp_path: Path
) -> None:
    run(clone, "dvc", "repro", "--force")
    run(clone, "git", "diff", "HEAD", "--exit-code", "--", "dvc.lock")
    other = tmp_path / "elsewhere"
    run(tmp_path, "git", "clone", "--quiet", str(clone), str(other))
    printed = run(other, "dvc", "repro")
    assert printed.count("Running stage") == 5
    run(other, "git", "diff", "HEAD", "--exit-code")
    (metrics,) = runs(other).values()
    assert "test/accuracy" in metrics


def test_the_fingerprint_of_the_lock_is_that_of_the_stage(clone: Path) -> None:
    about = json.loads((clone / "models/model.json").read_text())
    assert fingerprint_from_lock(lock(clone), "train") == about["fingerprint"]
    assert about["fingerprint"] in runs(clone)
    checked = fingerprint_from_lock(lock(clone), "overfit-check")
    assert checked in runs(clone, "overfit-check")


def test_what_cannot_change_a_result_does_not(clone: Path) -> None:
    before = lock(clone)
    set_params(clone, workers=2, checkpoint_minutes=0.0001, tracking="false", progress="auto")
    assert "Running stage" not in run(clone, "dvc", "repro")
    run(clone, "dvc", "repro", "--force")
    assert lock(clone) == before
    (clone / ".cache/checkpoints").mkdir(exist_ok=True)
    assert list((clone / ".cache/checkpoints").iterdir()) == []
    restore(clone)


# Stand-ins for what no stage lists as a dep: they show nothing, compare nothing, guard nothing.
STAND_INS = {
    "src/terminal.py": """
class Progress:
    def __init__(self, *_): pass
    def __enter__(self): return self
    def __exit__(self, *_): pass
    def advance(self): pass
    def show(self, *_): pass
    def epoch_done(self, row): pass
""",
    "src/stage.py": """
from pathlib import Path
from src import params, pipeline

class Stage:
    def __init__(self, name):
        self.name, self.params, self.root = name, params.load(), Path.cwd()
        self.entry = pipeline.stage_entry(name, self.params)
        self.deps_md5 = {dep: pipeline.md5_of(dep) for dep in self.entry.deps}
        declared = pipeline.declared_values(self.entry, self.params, pipeline.read_versions())
        self.fingerprint = pipeline.fingerprint(self.entry.cmd, self.deps_md5, declared)

    def changed_inputs(self): return []
    def confirm_inputs(self): pass

def run(name, main): main(Stage(name))
""",
}


def test_what_is_no_dep_changes_nothing(clone: Path) -> None:
    before = lock(clone)
    set_params(clone, tracking="false")
    for name, text in STAND_INS.items():
        (clone / name).write_text(text)
    assert "Running stage" not in run(clone, "dvc", "repro")
    run(clone, "dvc", "repro", "--force")
    assert lock(clone) == before
    restore(clone)


def test_an_experiment_and_the_way_back(clone: Path) -> None:
    """`exp run -S`, then the old value again: served from the run cache, still leads to its run."""
    run(clone, "dvc", "exp", "run", "--name", "faster", "-S", "lr=3e-3")
    fingerprint = fingerprint_from_lock(lock(clone), "train")
    assert fingerprint is not None
    assert "test/accuracy" in runs(clone)[fingerprint]
    assert test_accuracy(experiments(clone)["faster"]) == pytest.approx(
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


@contextmanager
def started_queue(folder: Path, log: Path, jobs: int) -> Iterator[None]:
    """The queue's workers, which end with the block. Their output goes to a file: a worker that
    finds the queue empty while it takes its last task misses its own signal to end, and would hold
    a pipe open for ever."""
    with open(log, "wb") as output:
        command = ["dvc", "queue", "start", "--jobs", str(jobs)]
        subprocess.run(command, cwd=folder, env=environment(), stdout=output, stderr=output)
    try:
        yield
    finally:
        run(folder, "dvc", "queue", "stop")
        workers = [
            process
            for process in psutil.process_iter(["cmdline", "cwd"])
            if "queue-worker" in (process.info["cmdline"] or [])
            and str(process.info["cwd"]).startswith(str(folder))
        ]
        _, left = psutil.wait_procs(workers, timeout=30)
        for worker in left:
            worker.kill()


def test_temp_and_queue_leave_their_runs_in_the_main_store(clone: Path, tmp_path: Path) -> None:
    before = set(runs(clone))
    run(clone, "dvc", "exp", "run", "--temp", "--name", "slow", "-S", "lr=1e-5")
    run(clone, "dvc", "exp", "run", "--queue", "-S", "seed=range(1,4)")
    with started_queue(clone, tmp_path / "queue.log", jobs=2):
        deadline = time.monotonic() + 400
        while "Running" in (status := run(clone, "dvc", "queue", "status")) or "Queued" in status:
            assert time.monotonic() < deadline, status
            time.sleep(2)
    assert status.count("Success") >= 3, status
    new = {key: value for key, value in runs(clone).items() if key not in before}
    assert len(new) == 4
    assert all("test/accuracy" in metrics for metrics in new.values()), new
    shown = experiments(clone)
    assert test_accuracy(shown["slow"]) > 0
    assert len([name for name in shown if test_accuracy(shown[name])]) >= 4
    assert not list((clone / ".dvc/tmp/exps").glob("*/mlflow.db"))
    run(clone, "git", "diff", "HEAD", "--exit-code")


def test_a_temporary_workspace_runs_its_own_code(clone: Path) -> None:
    """A queued experiment uses the code of the moment of queueing, not the main tree's."""
    path = clone / "src/training/outputs.py"
    text = path.read_text()
    path.write_text(text.replace('"best_epoch": best.epoch,\n    }', '"marker": 7,\n    }'))
    assert "marker" in path.read_text()
    run(clone, "dvc", "exp", "run", "--queue", "--name", "marked", "-S", "seed=77")
    path.write_text(text)
    run(clone, "dvc", "exp", "run", "--run-all")
    metrics = experiments(clone)["marked"]["data"]["metrics"]["results/train/metrics.json"]["data"]
    assert metrics["marker"] == 7
    restore(clone)


def repro_with_an_edit(folder: Path, edit: Callable[[], None]) -> str:
    """`dvc repro`, `edit()` as soon as the first epoch is done; what was printed."""
    process = subprocess.Popen(
        ["dvc", "repro"], cwd=folder, env=environment(), stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    lines = []
    edited = False
    for line in process.stdout:
        lines.append(line)
        if not edited and line.startswith("epoch "):
            edit()
            edited = True
    assert process.wait(60) != 0
    assert edited
    return "".join(lines)


@pytest.mark.parametrize(("edited", "seed"), [("params.yaml", 5), ("src/training/loop.py", 6)])
def test_an_edit_during_training_is_not_certified(clone: Path, edited: str, seed: int) -> None:
    set_params(clone, epochs=80, seed=seed, progress="auto")  # a line per epoch
    at_start = (clone / edited).read_text()
    before = fingerprint_from_lock(lock(clone), "train")

    def edit() -> None:
        for old, new in (("lr: 0.001", "lr: 0.002"), ("LOG_EVERY = 50", "LOG_EVERY = 51")):
            (clone / edited).write_text(at_start.replace(old, new))
            if old in at_start:
                return
        raise AssertionError("nothing was edited")

    printed = repro_with_an_edit(clone, edit)
    named = "params.yaml: lr" if edited == "params.yaml" else edited
    (line,) = [line for line in printed.splitlines() if "changed while the stage ran" in line]
    assert named in line
    assert "Traceback" not in printed
    assert fingerprint_from_lock(lock(clone), "train") == before

    # The edit kept: trained anew. The edit put back: the finished training is only written.
    assert "goes on" not in run(clone, "dvc", "repro")
    about = json.loads((clone / "models/model.json").read_text())
    assert about["fingerprint"] == fingerprint_from_lock(lock(clone), "train")
    (clone / edited).write_text(at_start)
    assert "train: goes on after epoch 80" in run(clone, "dvc", "repro")
    about = json.loads((clone / "models/model.json").read_text())
    assert about["fingerprint"] == fingerprint_from_lock(lock(clone), "train")
    restore(clone)


def test_an_edit_ahead_of_the_stage_that_it_is_for_is_not_certified(clone: Path) -> None:
    """DVC took `data/${train_on}` as train's input when it started; then params.yaml changed."""
    set_params(clone, seed=8)
    before = lock(clone).partition("  train:")[2]
    process = subprocess.Popen(
        ["dvc", "repro"], cwd=clone, env=environment(), stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    printed = ""
    for line in process.stdout:
        printed += line
        if line.startswith("Running stage 'overfit-check'"):
            set_params(clone, train_on="subset")
    assert process.wait(60) != 0
    assert "train: params.yaml changed while an earlier stage ran" in printed
    assert "Traceback" not in printed
    assert lock(clone).partition("  train:")[2] == before
    run(clone, "dvc", "repro")
    about = json.loads((clone / "models/model.json").read_text())
    assert about["fingerprint"] == fingerprint_from_lock(lock(clone), "train")
    restore(clone)


def test_a_killed_dvc_takes_its_stage_with_it(clone: Path) -> None:
    """Then the training goes on from where it was, into the bits of an undisturbed run."""
    set_params(clone, epochs=40, seed=9, progress="auto")
    process = subprocess.Popen(
        ["dvc", "repro"], cwd=clone, env=environment(), stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    printed = ""
    for line in process.stdout:  # ends when the stage, too, has closed its end
        printed += line
        if line.startswith("epoch ") and process.poll() is None:
            process.kill()
            process.wait(10)
    assert "so the stage ends too" in printed
    assert "train: stopped in epoch" in printed
    assert "epoch 40/40" not in printed
    assert "train: goes on after epoch" in run(clone, "dvc", "repro")
    resumed = lock(clone)
    run(clone, "dvc", "repro", "--force", "--single-item", "train")
    assert lock(clone) == resumed
    restore(clone)


RECIPES = sorted(
    path.stem for path in (ROOT / "recipes").glob("*.yaml") if path.stem.startswith("digits")
)


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone as it was committed, but for the size of the net and of the data to train on."""
    folder = new_clone(
        tmp_path_factory.mktemp("recipes") / "project",
        **{key: "digits" if key == "source" else value for key, value in SMALL.items()},
    )
    set_params(folder, channels=1, train_on="subset", size=32, on_fail="report", tracking="false")
    commit(folder, "digits")
    return folder


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_gives_the_same_lock_again(digits: Path, recipe: str) -> None:
    """Together the recipes use every switch that runs on the CPU."""
    words = run(digits, sys.executable, "-m", "src.recipe", recipe).split()
    run(digits, "dvc", "exp", "run", *words)
    before = lock(digits)
    run(digits, "dvc", "repro", "--force")
    assert lock(digits) == before
    restore(digits)


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("lr=abc", "params.yaml: lr must be a number > 0, got 'abc'"),
        ("lr=", "params.yaml: lr must be a number > 0, got nothing"),
        ("epochs=3.5", "params.yaml: epochs must be an integer >= 1, got '3.5'"),
        ("model=no_such_net", "params.yaml: model must be the name of a timm model"),
    ],
)
def test_wrong_values_end_in_one_line(clone: Path, override: str, line: str) -> None:
    before = lock(clone)
    printed = run(clone, "dvc", "exp", "run", "-S", override, code=255)
    assert sum(found.startswith(line) for found in printed.splitlines()) == 1, printed
    assert lock(clone) == before
    restore(clone)


def test_an_unknown_key_is_refused(clone: Path) -> None:
    path = clone / "params.yaml"
    path.write_text(path.read_text() + "nosuch: 1\n")
    printed = run(clone, "dvc", "repro", "--force", code=255)
    assert "params.yaml: unknown key nosuch" in printed
    restore(clone)


def test_train_on_the_subset(clone: Path) -> None:
    run(clone, "dvc", "exp", "run", "-S", "train_on=subset")
    fingerprint = fingerprint_from_lock(lock(clone), "train")
    assert "test/accuracy" in runs(clone)[str(fingerprint)]
    assert "data/subset" in lock(clone).partition("  train:")[2].partition("outs:")[0]
    restore(clone)


def test_a_comment_in_code_trains_and_evaluates_again(clone: Path) -> None:
    """Same bits, new identity: evaluate runs too, and the new run has its metrics."""
    path = clone / "src/train.py"
    path.write_text(path.read_text() + "# a comment\n")
    before = set(runs(clone))
    printed = run(clone, "dvc", "repro")
    assert "Running stage 'evaluate'" in printed
    (new,) = set(runs(clone)) - before
    assert "test/accuracy" in runs(clone)[new]
    restore(clone)


def test_a_failed_check_stops_before_train(clone: Path) -> None:
    printed = run(clone, "dvc", "exp", "run", "-S", "optimizer=sgd", "-S", "lr=50", code=255)
    assert "Running stage 'train'" not in printed
    assert "train does not start" in printed
    assert "lr_too_high" in printed
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
    assert test_accuracy(experiments(folder)["temporary"]) >= 0


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
