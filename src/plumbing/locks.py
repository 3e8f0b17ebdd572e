"""Lock files: what one process at a time may do, such as write the outputs of a stage."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def of_stage(name: str) -> Path:
    """The lock that a stage holds while it runs here."""
    return Path(".cache/locks") / f"stage-{name}.lock"


def running(name: str) -> str:
    """`process 123 runs train here` while the stage does; else empty. DVC deletes the outputs of a
    stage before it runs."""
    path = of_stage(name)
    if not path.exists():
        return ""
    with try_hold(path) as is_free:
        return "" if is_free else f"process {_holder(path)} runs {name} here"


def _holder(path: Path) -> str:
    try:
        return path.with_suffix(".pid").read_text()
    except OSError:
        return "?"


@contextmanager
def hold(path: Path, what: str) -> Iterator[None]:
    """Hold the lock file `path`; while another process does, wait and say so (`what` it does)."""
    with try_hold(path, what):
        # Not renamed into place: it is a hint for people, and holds a few bytes.
        path.with_suffix(".pid").write_text(str(os.getpid()))
        yield


@contextmanager
def try_hold(path: Path, what: str = "") -> Iterator[bool]:
    """Hold the lock file `path` if no process has it; yields whether it is held. With `what`, wait
    for it as `hold` does."""
    from filelock import FileLock, Timeout

    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        if not what:
            yield False
            return
        print(f"process {_holder(path)} {what}; waiting until it ends", file=sys.stderr, flush=True)
        lock.acquire(poll_interval=0.5)
    try:
        yield True
    finally:
        lock.release()
