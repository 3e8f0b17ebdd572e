"""The real pipeline in a repository of its own, through `dvc` as people run it: for slow tests."""

import json
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from src.base.imports import ROOT
from src.plumbing.process import wait_for
from tests.conftest import SMALL, set_params

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
        command, cwd=folder, env=environment(), capture_output=True, text=True, timeout=1800
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


def accuracy_of(revision: dict) -> float:
    return revision["data"]["metrics"]["results/evaluate/metrics.json"]["data"]["test"]["accuracy"]


def watched_repro(folder: Path, on_line: Callable[[str, subprocess.Popen[str]], None]) -> str:
    """`dvc repro` that must fail or be ended: `on_line(line, process)` sees each line as it comes.
    Returns all of them as soon as no process holds the output any more."""
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
    """The processes of the queue's workers there."""
    found = {
        process.pid: process
        for process in psutil.process_iter(["cmdline", "cwd", "ppid"])
        if "queue-worker" in (process.info["cmdline"] or [])
        and str(process.info["cwd"]).startswith(str(folder))
    }
    # What a worker starts is listed with the worker's words until it has its own.
    return [process for process in found.values() if process.info["ppid"] not in found]


def run_queue(folder: Path) -> None:
    """`dvc exp run --run-all`; no worker goes on. Its output goes to a file, as below."""
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
        end_queue(folder)
