"""What a command costs: wall and CPU seconds, and the most memory of it and all that it starts."""

import os
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, thread_time

import psutil

SAMPLE_SECONDS = 0.1  # between two looks at the memory, at least
SAMPLE_SHARE = 0.02  # of a core, at most, for these looks


@dataclass(frozen=True)
class Cost:
    """Wall and CPU seconds, and the largest unique set size in bytes; all of the processes."""

    seconds: float
    cpu: float
    memory: int


def unique_bytes(process: psutil.Process) -> int:
    """The unique set size of a process and of all that it started."""
    total = 0
    for one in [process, *process.children(recursive=True)]:
        try:
            total += one.memory_full_info().uss
        except psutil.Error:  # it has just ended
            continue
    return total


def cost_of(
    command: Sequence[str], folder: Path, environment: Mapping[str, str] | None = None
) -> tuple[Cost, str]:
    """Run a command to its end: its cost, and what it printed. Ends the program if it fails. CPU
    counts the processes that it waited for, which those of this project's stages all are."""
    largest, ended = 0, threading.Event()
    log = folder / ".cache/measured.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(log, "w") as file:
        start = monotonic()
        child = subprocess.Popen(
            command, cwd=folder, env=environment, stdout=file, stderr=subprocess.STDOUT
        )

        def sample() -> None:
            nonlocal largest
            process, pause = psutil.Process(child.pid), SAMPLE_SECONDS
            while not ended.wait(pause):
                before = thread_time()
                try:
                    largest = max(largest, unique_bytes(process))
                except psutil.Error:
                    return
                pause = max(SAMPLE_SECONDS, (thread_time() - before) / SAMPLE_SHARE)

        thread = threading.Thread(target=sample)
        thread.start()
        try:
            _, status, used = os.wait4(child.pid, 0)
            seconds = monotonic() - start
        finally:
            ended.set()
            thread.join()
    child.returncode = os.waitstatus_to_exitcode(status)
    printed = log.read_text(errors="replace")
    if child.returncode:
        sys.exit(f"{' '.join(command)} ended with {child.returncode}:\n{printed[-2000:]}")
    return Cost(seconds, used.ru_utime + used.ru_stime, largest), printed
