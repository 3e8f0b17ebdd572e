"""Many experiments through DVC's queue, run again when killed. A trial is known by its name:
nothing is stored beside DVC."""

import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from src.base.words import counted, either
from src.experiments.queue import tasks
from src.experiments.queue.configuration import Configuration
from src.plumbing import dvc_errors, workspace
from src.plumbing.errors import GateError, InputError
from src.plumbing.locks import hold
from src.plumbing.process import wait_for

POLL_SECONDS = 2.0  # between two looks at the queue (choice)
MOST_WORKERS = 64  # each is a process that trains (choice)
STOP_SECONDS = 15.0  # for a worker without work to end (choice)
LOCK = Path(".dvc/tmp/trials.lock")
ORDER = ("finished", "running", "queued", "failed", "killed")  # in which states are printed
ATTEMPTS = 3  # to go on with trials that were killed or wait for a worker, none ending (choice)


def enqueue(name: str, overrides: Sequence[str]) -> None:
    """Queue an experiment; `overrides` are the words `-S key=value`. InputError in DVC's words."""
    _dvc("exp", "run", "--queue", "--name", name, *overrides)


def check_workers(count: int | None) -> None:
    """InputError for a number of workers that no machine is good for; None is accepted."""
    if count is not None and not 1 <= count <= MOST_WORKERS:
        raise InputError(f"--workers must be in 1..{MOST_WORKERS}, got {count}")


def run(wanted: Mapping[str, list[str]], jobs: int, configuration: Configuration) -> None:
    """Run the trials `wanted` (name: overrides) with `jobs` workers, among them those that are at
    work already, until each trial has ended, and print a line whenever a state changes. Trials that
    were killed run again, failed ones do not. GateError if some never come to an end."""
    jobs, attempts, fewest = min(jobs, len(wanted)), 0, len(wanted)
    while attempts < ATTEMPTS:
        queue_missing(wanted, configuration)
        if not _waiting(tasks.states(wanted.__contains__)):
            return
        _start(jobs)
        try:
            _wait(wanted)
        except KeyboardInterrupt:
            print(
                "the workers go on with what is queued: the same command joins them, "
                "`dvc queue stop --kill` ends them",
                file=sys.stderr,
            )
            raise
        _stop()
        now = tasks.states(wanted.__contains__)
        left = [name for name in wanted if now.get(name) not in ("finished", "failed")]
        if not left:
            return
        # DVC's worker also ends with trials in the queue when it finds itself idle between two.
        attempts = 0 if len(left) < fewest else attempts + 1
        fewest = min(fewest, len(left))
    raise GateError(
        f"{left[0]} did not come to an end in {ATTEMPTS} attempts: `dvc queue status` and "
        f"`dvc queue logs {left[0]}` say more"
    )


def queue_missing(wanted: Mapping[str, list[str]], configuration: Configuration) -> list[str]:
    """Queue the trials that do not exist yet or were killed; returns their names. InputError or
    GateError if the workspace is not, or no longer, the configuration that they are named after."""
    if not str(here := Path.cwd().resolve()).isascii():
        raise InputError(f"DVC's queue takes no path beyond ASCII: move the project from {here}")
    with hold(LOCK, "queues trials here"):  # another one would queue the same names again
        known = tasks.states(wanted.__contains__)
        dead = [name for name, state in known.items() if state == "killed"]
        new = [name for name in wanted if name not in known or name in dead]
        if new:
            configuration.require_in_git()
            configuration.require_unchanged()
        if dead:
            _stop()
            tasks.forget(dead)
        for name in new:
            enqueue(name, wanted[name])
            try:
                # DVC took the workspace as it was at some moment of this.
                configuration.require_unchanged()
            except (GateError, InputError):
                tasks.forget([name])
                raise
    return new


def _start(jobs: int) -> None:
    """Start workers until `jobs` run. Those of a command that was stopped go on, and DVC starts
    another of the same name beside one that is too busy to answer it."""
    running = len(tasks.workers())
    if running > jobs:
        workers = f"{counted(running, 'worker')} {either(running, 'is', 'are')}"
        print(f"{workers} at work here already, not {jobs}", flush=True)
    if running < jobs:
        _dvc("queue", "start", "--jobs", str(jobs))


def _wait(wanted: Mapping[str, list[str]]) -> None:
    """Wait until no trial waits or runs, or no worker is left."""
    shown: dict[str, str] = {}
    idle = 0
    while True:
        time.sleep(POLL_SECONDS)
        now = tasks.states(wanted.__contains__)
        if now != shown:
            counts = Counter(now.values())
            print("  " + ", ".join(f"{counts[x]} {x}" for x in ORDER if counts[x]), flush=True)
            shown = now
        if not _waiting(now):
            return
        idle = 0 if tasks.workers() else idle + 1
        if idle * POLL_SECONDS > 30:  # they take some seconds to start
            return


def _waiting(now: Mapping[str, str]) -> bool:
    return not {"queued", "running"}.isdisjoint(now.values())


def _stop() -> None:
    """End the workers if none has work: one that takes its last task can miss its signal to end."""
    if "running" in tasks.unfinished(lambda _: True).values():
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
    with open(log, "wb") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env={**os.environ, "PATH": workspace.search_path()},
            start_new_session=True,
        )
        try:
            process.wait()
        except BaseException:
            # Killed while it queues, DVC leaves HEAD detached and the user's edits in the stash: in
            # a session of its own it gets no signal of the terminal, and outlives this wait.
            process.wait()
            raise
    if process.returncode:
        why = dvc_errors.reason(log.read_text(errors="replace"))
        raise InputError(f"`dvc {' '.join(arguments[:3])}` failed: {why}")
