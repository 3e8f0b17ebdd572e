"""Many experiments through DVC's queue: queued, run by its workers, and run again when killed.

Nothing is stored beside DVC: a trial is known by its name.
"""

import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from src.experiments.queue import tasks
from src.experiments.queue.tasks import State
from src.plumbing.errors import GateError, InputError
from src.plumbing.locks import hold
from src.plumbing.process import wait_for

POLL_SECONDS = 2.0  # between two looks at the queue (choice)
MOST_WORKERS = 64  # each is a process that trains (choice)
STOP_SECONDS = 15.0  # for a worker without work to end (choice)
LOCK = Path(".dvc/tmp/trials.lock")
ATTEMPTS = 3  # to go on with trials that were killed or wait for a worker, none ending (choice)


def enqueue(name: str, overrides: Sequence[str]) -> None:
    """Queue an experiment; `overrides` are the words `-S key=value`. InputError in DVC's words."""
    _dvc("exp", "run", "--queue", "--name", name, *overrides)


def check_workers(count: int | None) -> None:
    """InputError for a number of workers that no machine is good for; None asks for none."""
    if count is not None and not 1 <= count <= MOST_WORKERS:
        raise InputError(f"--workers must be in 1..{MOST_WORKERS}, got {count}")


def run(
    wanted: dict[str, list[str]],
    jobs: int,
    tell: Callable[[dict[str, State]], None],
    require_unchanged: Callable[[], None],
) -> None:
    """Run the trials `wanted` (name: overrides) with `jobs` workers, in which those that are there
    count, until each has ended; those that were killed run again, failed ones do not. GateError if
    some never come to an end; `require_unchanged` as for `queue_missing`."""
    prefix, jobs = _common(wanted), min(jobs, len(wanted))
    attempts, fewest = 0, len(wanted)
    while attempts < ATTEMPTS:
        queue_missing(wanted, require_unchanged)
        if not [s for s in _of(wanted, prefix).values() if s.state in ("queued", "running")]:
            return
        _start(jobs)
        try:
            _wait(wanted, prefix, tell)
        except KeyboardInterrupt:
            print(
                "the workers go on with what is queued: the same command joins them, "
                "`dvc queue stop --kill` ends them",
                file=sys.stderr,
            )
            raise
        _stop()
        now = _of(wanted, prefix)
        ended = [name for name, state in now.items() if state.state in ("finished", "failed")]
        left = [name for name in wanted if name not in ended]
        if not left:
            return
        # DVC's worker also ends with trials in the queue when it finds itself idle between two.
        attempts = 0 if len(left) < fewest else attempts + 1
        fewest = min(fewest, len(left))
    raise GateError(
        f"{left[0]} did not come to an end in {ATTEMPTS} attempts: `dvc queue status` and "
        f"`dvc queue logs {left[0]}` say more"
    )


def queue_missing(wanted: dict[str, list[str]], require_unchanged: Callable[[], None]) -> list[str]:
    """Queue those of the trials that are not there, or were killed; returns their names.
    `require_unchanged` raises if the workspace is no longer what their names stand for."""
    if not str(here := Path.cwd().resolve()).isascii():
        raise InputError(f"DVC's queue takes no path beyond ASCII: move the project from {here}")
    with hold(LOCK, "queues trials here"):  # another one would queue the same names again
        there = _of(wanted, _common(wanted))
        dead = [name for name, state in there.items() if state.state == "killed"]
        new = [name for name in wanted if name not in there or name in dead]
        if new:
            require_unchanged()
        if dead:
            _stop()
            tasks.forget(dead)
        for name in new:
            enqueue(name, wanted[name])
            try:
                require_unchanged()  # DVC took the workspace as it was some moment of this
            except (GateError, InputError):
                tasks.forget([name])
                raise
    return new


def line(now: dict[str, State]) -> str:
    """How many trials are in which state, in a line."""
    counts = Counter(state.state for state in now.values())
    order = ("finished", "running", "queued", "failed", "killed")
    return "  " + ", ".join(f"{counts[state]} {state}" for state in order if counts[state])


def _start(jobs: int) -> None:
    """See that `jobs` workers run. Those of a command that was stopped go on, and DVC starts
    another of the same name beside one that is too busy to answer it."""
    there = len(tasks.workers())
    if there > jobs:
        print(f"{there} workers are at work here already, not {jobs}", flush=True)
    if there < jobs:
        _dvc("queue", "start", "--jobs", str(jobs))


def _wait(
    wanted: dict[str, list[str]], prefix: str, tell: Callable[[dict[str, State]], None]
) -> None:
    """Until no trial waits or runs, or no worker is left."""
    told: dict[str, State] = {}
    idle = 0
    while True:
        time.sleep(POLL_SECONDS)
        now = _of(wanted, prefix)
        if now != told:
            tell(now)
            told = now
        if not [state for state in now.values() if state.state in ("queued", "running")]:
            return
        idle = 0 if tasks.workers() else idle + 1
        if idle * POLL_SECONDS > 30:  # they take some seconds to start
            return


def _of(wanted: dict[str, list[str]], prefix: str) -> dict[str, State]:
    return {name: state for name, state in tasks.states(prefix).items() if name in wanted}


def _common(names: Iterable[str]) -> str:
    return next(iter(names)).rpartition("-")[0] + "-"


def _stop() -> None:
    """End the workers if none has work: one that finds the queue empty while it takes its last
    task misses its own signal to end."""
    if "running" in tasks.unfinished("").values():
        return
    workers = tasks.workers()
    if not workers:
        return
    with suppress(InputError):
        _dvc("queue", "stop")
    wait_for(workers, STOP_SECONDS)


def _dvc(*arguments: str) -> None:
    command = [sys.executable, "-P", "-m", "dvc", *arguments]
    # Workers keep what they inherit: a pipe would stay open as long as they live.
    log = Path(".dvc/tmp/trials.log")
    log.parent.mkdir(parents=True, exist_ok=True)
    # The workers call `dvc` and the stages `python` by name: those of this environment.
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    with open(log, "wb") as output:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
            env={**os.environ, "PATH": path}, start_new_session=True,
        )  # fmt: skip
        try:
            process.wait()
        except BaseException:
            # Killed while it queues, DVC leaves HEAD detached and the user's edits in the stash. In
            # a session of its own it gets no signal of the terminal, and goes on alone if a second
            # one ends this wait.
            process.wait()
            raise
    if process.returncode:
        said = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
        error = [line for line in said if line.startswith("ERROR")] or said[-1:] or ["no reason"]
        raise InputError(f"`dvc {' '.join(arguments[:3])}` failed: {error[0]}")
