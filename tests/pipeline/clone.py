"""The real pipeline in a repository of its own, through `dvc` as people run it: for slow tests."""

import json
import os
import shutil
import sqlite3
import subprocess
import tempfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import psutil
import pytest

from src.base.imports import ROOT
from src.experiments.queue import tasks
from src.plumbing import workspace
from src.plumbing.identity import fingerprint_of, locked_stage
from src.plumbing.process import wait_for
from tests import template
from tests.conftest import SMALL, set_params, working_in
from tests.sharing import once_for_all

IDENTITY = {
    "GIT_AUTHOR_NAME": "Test", "GIT_AUTHOR_EMAIL": "test@example.org",
    "GIT_COMMITTER_NAME": "Test", "GIT_COMMITTER_EMAIL": "test@example.org",
}  # fmt: skip


def environment() -> dict[str, str]:
    """The user's environment after `source .venv/bin/activate`, without what tests may have set."""
    dropped = ("DVC_", "MLFLOW_", "PYTEST_XDIST_")
    kept = {key: value for key, value in os.environ.items() if not key.startswith(dropped)}
    return {**kept, **IDENTITY, "PATH": workspace.search_path()}


def run(folder: Path, *command: str, code: int = 0) -> str:
    """Run a command, require its exit code, return what it printed."""
    ended = subprocess.run(
        command, cwd=folder, env=environment(), capture_output=True, text=True, timeout=1800
    )
    printed = ended.stdout + ended.stderr
    assert ended.returncode == code, f"{' '.join(command)}: {ended.returncode}\n{printed}"
    assert "Traceback" not in printed, printed
    return printed


def commit(folder: Path, message: str) -> None:
    run(folder, "git", "add", "--all")
    run(folder, "git", "commit", "--quiet", "--message", message)


# What stages, tools and people read of a repository; a project's own data and results stay out.
LEFT_OUT = ("results/", "dvc.lock", "tests/", "bench/", "data/", ".dvc/config")
CONFIG = """[core]
    analytics = false
    check_update = false
[cache]
    type = "reflink,hardlink,copy"
"""


def new_clone(folder: Path, **params: object) -> Path:
    """A repository with the files of this one as they are now, and small settings committed."""
    listed = run(ROOT, "git", "ls-files", "-co", "--exclude-standard").splitlines()
    for name in [name for name in listed if not name.startswith(LEFT_OUT)]:
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    template.write(folder)
    (folder / ".dvc/config").write_text(CONFIG)
    set_params(folder, **{**SMALL, "tracking": "true", **params})
    run(folder, "git", "init", "--quiet", "--initial-branch=main")
    commit(folder, "project")
    return folder


def shared_clone(factory: pytest.TempPathFactory) -> Path:
    """Results and an experiment `higher` (lr=0.003), made once. Read only: copy it."""
    with once_for_all("pipeline", factory) as shared:
        folder, done = shared / "project", shared / "done"
        if not done.exists():
            shutil.rmtree(folder, ignore_errors=True)  # of an attempt that failed
            new_clone(folder)
            run(folder, "dvc", "repro")
            commit(folder, "results")
            run(folder, "dvc", "exp", "run", "--name", "higher", "-S", "lr=3e-3")
            restore(folder)
            done.touch()
    return folder


def copy_of(folder: Path, target: Path) -> Path:
    """A copy of a repository that works like it: MLflow's store names files by absolute paths."""
    # What lies in .dvc/tmp belongs to the commands that ran in the folder.
    shutil.copytree(
        folder, target, ignore=lambda path, _: ["tmp"] if path == str(folder / ".dvc") else []
    )
    with closing(sqlite3.connect(target / "mlflow.db")) as store, store:
        for table, column in (("experiments", "artifact_location"), ("runs", "artifact_uri")):
            statement = f"UPDATE {table} SET {column} = replace({column}, ?, ?)"
            store.execute(statement, (str(folder), str(target)))
    return target


def restore(folder: Path) -> None:
    run(folder, "git", "checkout", "--quiet", "--", ".")
    run(folder, "dvc", "checkout", "--quiet", "--force")


def lock(folder: Path) -> str:
    return (folder / "dvc.lock").read_text()


def fingerprint_from_lock(lock_text: str, name: str) -> str | None:
    """The fingerprint of stage `name` in the text of a dvc.lock; None if the stage is not in it."""
    entry = locked_stage(lock_text, name)
    return None if entry is None else fingerprint_of(entry)


def lock_of(folder: Path, experiment: str) -> str:
    refs = run(folder, "git", "for-each-ref", "--format=%(refname)", "refs/exps").split()
    [ref] = [name for name in refs if name.endswith(f"/{experiment}")]
    return run(folder, "git", "show", f"{ref}:dvc.lock")


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


def accuracy_of(revision: dict) -> float:
    return revision["data"]["metrics"]["results/evaluate/metrics.json"]["data"]["test"]["accuracy"]


def watched_repro(folder: Path, on_line: Callable[[str, subprocess.Popen[str]], None]) -> str:
    """`dvc repro` that must fail; `on_line(line, process)` sees each line. Returns all."""
    process = subprocess.Popen(
        ["dvc", "repro"], cwd=folder, env=environment(), stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    printed = ""
    for line in process.stdout:
        printed += line
        on_line(line, process)
    assert process.wait(60) != 0
    assert "Traceback" not in printed, printed
    return printed


def queue_workers(folder: Path) -> list[psutil.Process]:
    with working_in(folder):
        return tasks.workers()


def run_queue(folder: Path) -> None:
    """`dvc exp run --run-all`. Output goes to a file: a worker that takes its last task from an
    empty queue misses its signal to end, and would hold a pipe open for ever."""
    with tempfile.TemporaryFile("w+") as output:
        command = ["dvc", "exp", "run", "--run-all"]
        ended = subprocess.run(
            command, cwd=folder, env=environment(), stdout=output, stderr=output, timeout=1800
        )
        output.seek(0)
        assert ended.returncode == 0, output.read()
    end_queue(folder)


def end_queue(folder: Path) -> None:
    if workers := queue_workers(folder):  # else the next one to start would hear of it
        run(folder, "dvc", "queue", "stop")
        wait_for(workers, 30)
