"""A search and a group of seeds through DVC's queue, killed in the middle."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import yaml

from src.experiments.search import space
from tests.conftest import set_params
from tests.pipeline.clone import (
    commit,
    environment,
    fingerprint_from_lock,
    queue_workers,
    run,
    runs,
)

pytestmark = pytest.mark.slow(seconds=150)

TRIALS = 5
# What only train and evaluate run again for.
SPACE = """
freeze_epochs: {choice: [0, 1, 2]}
best_by: {choice: [val/accuracy, val/macro_f1, val/loss]}
patience: {choice: [1, 2, 3]}
"""


def finished(folder: Path, prefix: str) -> dict[str, str]:
    """Commit of each finished experiment whose name begins with `prefix`; each must be one."""
    listed = run(folder, "git", "for-each-ref", "--format=%(objectname) %(refname)", "refs/exps")
    rows = [line.split() for line in listed.splitlines()]
    named = [(ref.rpartition("/")[2], rev) for rev, ref in rows if f"/{prefix}" in ref]
    assert len(dict(named)) == len(named)
    return dict(named)


def kill_all_below(folder: Path) -> None:
    """SIGKILL for the tool, the workers, and the experiments with their stages."""
    for process in psutil.process_iter():
        try:
            if Path(process.cwd()).is_relative_to(folder):
                process.kill()
        except (psutil.Error, OSError):
            continue


def start(folder: Path, log: Path, *command: str) -> subprocess.Popen[bytes]:
    """Begin `python -m command` in a folder, in a session of its own; its output goes to `log`."""
    with open(log, "wb") as output:
        return subprocess.Popen(
            [sys.executable, "-m", *command], cwd=folder, env=environment(), stdout=output,
            stderr=output, start_new_session=True,
        )  # fmt: skip


def wait_for(condition: Callable[[], bool], tool: subprocess.Popen[bytes], log: Path) -> None:
    """Until it holds; the tool must go on in the meantime."""
    deadline = time.monotonic() + 900
    while not condition():
        assert tool.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.5)


def test_a_search_that_is_interrupted_and_then_killed_goes_on(clone: Path, tmp_path: Path) -> None:
    folder = clone.resolve()
    (folder / "recipes/search.yaml").write_text(SPACE)
    commit(folder, "space")
    log = tmp_path / "search.log"
    search = (folder, log, "src.search", str(TRIALS), "--workers", "2")
    tool = start(*search)
    try:
        wait_for(lambda: len(finished(folder, "search-")) >= 1, tool, log)
        tool.send_signal(signal.SIGINT)
        assert tool.wait(60) == 130, log.read_text()
        assert "the workers go on" in log.read_text()
        assert 1 <= len(queue_workers(folder)) <= 2  # DVC's may have ended: no harm to the search
        tool = start(*search)
        counts: list[int] = []

        def some_are_done() -> bool:
            counts.append(len(queue_workers(folder)))
            return len(finished(folder, "search-")) >= 3

        wait_for(some_are_done, tool, log)
        assert max(counts) <= 2, counts
        assert len(finished(folder, "search-")) < TRIALS
        kill_all_below(folder)
        tool.wait(30)
        tool = start(*search)
        assert tool.wait(2400) == 0, log.read_text()
        assert "Traceback" not in log.read_text(), log.read_text()
        assert not queue_workers(folder)
    finally:
        if tool.poll() is None:
            os.killpg(tool.pid, signal.SIGKILL)
        kill_all_below(folder)
    revs = finished(folder, "search-")
    assert len(revs) == TRIALS
    dimensions = space.read(folder / "recipes/search.yaml")
    logged = runs(folder)
    wanted = space.trials(dimensions, 0, TRIALS, {})
    for name, rev in revs.items():
        params = yaml.safe_load(run(folder, "git", "show", f"{rev}:params.yaml"))
        values = wanted[int(name[-4:])]
        assert {key: str(params[key]) for key in values} == values
        lock = run(folder, "git", "show", f"{rev}:dvc.lock")
        assert "val/accuracy" in logged[str(fingerprint_from_lock(lock, "train"))]
    assert len({tuple(values.items()) for values in wanted}) == TRIALS
    again = run(folder, sys.executable, "-m", "src.search")
    assert again.count("search-") >= TRIALS
    assert f"of {TRIALS - 1} others cannot be told from the best" in again
    assert (folder / "results/search").is_dir()
    run(folder, "git", "diff", "HEAD", "--exit-code")


def test_seeds_whose_worker_ends_are_done_by_another_and_none_runs_again(
    clone: Path, tmp_path: Path
) -> None:
    set_params(clone, tracking="false")
    commit(clone, "untracked")
    log = tmp_path / "seeds.log"
    seeds = (clone, log, "src.seeds", "3")  # the commit has seed 0
    # A worker that ends with trials in the queue, as `dvc queue stop` asks it to: another goes on.
    tool = start(*seeds)
    wait_for(lambda: "1 running, 1 queued" in log.read_text(), tool, log)
    assert "1 of 3 are there" in log.read_text()
    run(clone, "dvc", "queue", "stop")
    assert tool.wait(600) == 0, log.read_text()
    assert "standard deviation" in log.read_text()
    assert len(finished(clone, "seeds-")) == 2
    assert start(*seeds).wait(900) == 0, log.read_text()
    assert "3 of 3 are there" in log.read_text()
    assert len(finished(clone, "seeds-")) == 2
