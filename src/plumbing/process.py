"""The process of a stage or tool: what ends it, and what it ends.

Signals become exceptions, so that `with` blocks close what is open; a training loop takes them
between two steps. A stage whose `dvc` has died ends too: nobody would record its result.
"""

import errno
import io
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import psutil

PARENT_SECONDS = 1.0  # between two looks at the parents (choice)
INSIST_SECONDS = 60.0  # until a stage that does not end without its parents is asked again (choice)
LOOK_SECONDS = 0.1  # between two looks at processes that are about to end (choice)
SHELLS = ("sh", "bash", "dash", "zsh", "ksh", "fish")  # DVC runs a stage through $SHELL
# Of an OSError that a person has to mend: a full or read-only disk, a missing permission, a file
# where a folder has to be.
CANNOT_WRITE = (errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EDQUOT, errno.ENOTDIR)


class Terminated(BaseException):
    """SIGTERM or SIGHUP arrived."""


_EXCEPTIONS: dict[int, type[BaseException]] = {
    signal.SIGINT: KeyboardInterrupt,
    signal.SIGTERM: Terminated,
    signal.SIGHUP: Terminated,
}
_dvc = ""  # what `own_dvc` returns
_waits = False  # whether a signal waits for the end of a `deferred` block
_arrived: int | None = None


def set_up() -> None:
    """What every stage and tool does before anything else."""
    handle_signals()
    share_cores()
    print_any_text()


def share_cores() -> None:
    """Let threads that wait for work sleep. OpenMP's spin: two trainings at a time on two cores ran
    at half the speed together, three at a tenth (measured). Call before torch is imported: it is
    read once."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def print_any_text() -> None:
    """Let stdout escape what its encoding lacks, such as a file name in a terminal of another
    alphabet, as stderr does."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def handle_signals() -> None:
    """Raise KeyboardInterrupt or Terminated on the signals that ask a process to end."""
    for number in _EXCEPTIONS:
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup, or a job in the background
            signal.signal(number, _on_signal)


def _on_signal(number: int, frame: FrameType | None) -> None:
    global _arrived
    if _waits and _arrived is None:
        _arrived = number
    else:
        raise _EXCEPTIONS[number]


@contextmanager
def deferred() -> Iterator[Callable[[], bool]]:
    """Inside the block a first signal only makes the yielded function return True; it is raised
    when the block ends, also in place of an error that it caused, as it does in workers; not in
    place of a disk that takes no checkpoint. A second one is raised at once.

    An exception in the middle of a step would leave half of it done, and one inside a destructor
    of the loader is lost.
    """
    global _waits, _arrived
    _waits, _arrived = True, None
    try:
        yield lambda: _arrived is not None
    except Exception as error:
        if _arrived is None or getattr(error, "errno", None) in CANNOT_WRITE:
            raise
    finally:
        _waits = False
    if _arrived is not None:
        raise _EXCEPTIONS[_arrived]


def end_with_parents() -> None:
    """When DVC runs this process: end it by SIGTERM as soon as DVC, or the shell between, is gone.

    A thread looks at the chain of parents, which works on Linux and macOS alike.
    """
    global _dvc
    if "DVC_STAGE" not in os.environ:
        return
    at_start = _parents()
    begun_by_dvc = _may_be_dvc(at_start[-1])
    _dvc = _mark(at_start[-1]) if begun_by_dvc else ""

    def watch() -> None:
        pause = threading.Event()
        while begun_by_dvc and _parents() == at_start:
            pause.wait(PARENT_SECONDS)
        print("the process that ran this stage has ended, so the stage ends too", file=sys.stderr)
        while True:
            os.kill(os.getpid(), signal.SIGTERM)
            pause.wait(INSIST_SECONDS)

    threading.Thread(target=watch, daemon=True).start()


def _may_be_dvc(pid: int) -> bool:
    """Whether the first parent that is no shell can be the DVC that began this process. One that
    was killed while Python started here has left it to the system's first process, whose parent
    never changes: such a stage would train to its end for nobody."""
    import psutil

    try:
        parent = psutil.Process(pid)
        if os.getsid(pid) != os.getsid(0):  # DVC begins its stages in its own session
            return False
        names = [parent.name(), *parent.cmdline()[:2]]
    except (psutil.Error, OSError):  # gone, or another user's
        return False
    # `dvc` itself, or a program in Python that uses it.
    return any(word in Path(name).name.lower() for name in names for word in ("dvc", "python"))


def own_dvc() -> str:
    """The process that ran this stage when it began, to be known again: its id and its start, in
    seconds since 1970; empty without a living DVC. Not who is the parent now: a stage whose shell
    was killed goes on for a moment as a child of the system's first process, which never ends."""
    return _dvc


def _mark(pid: int) -> str:
    import psutil

    try:
        return f"{pid} {psutil.Process(pid).create_time()}"
    except psutil.Error:
        return ""


def is_alive(mark: str) -> bool:
    """Whether the process runs that `own_dvc` named."""
    import psutil

    pid, _, started = mark.partition(" ")
    try:
        found = psutil.Process(int(pid))
        return found.create_time() == float(started) and runs(found)
    except (psutil.Error, ValueError):
        return False


def runs(process: "psutil.Process") -> bool:
    """Whether a process runs. One that ended is listed until its parent asks how, and the first
    process of a container, which adopts orphans, may never ask."""
    import psutil

    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def left_after(processes: Sequence["psutil.Process"], seconds: float) -> list["psutil.Process"]:
    """Those of the processes that still run when none runs any more, or after `seconds`."""
    end = time.monotonic() + seconds
    while (left := [one for one in processes if runs(one)]) and time.monotonic() < end:
        time.sleep(LOOK_SECONDS)
    return left


def wait_for(processes: Sequence["psutil.Process"], seconds: float) -> None:
    """Wait until none of the processes runs; those that still do after `seconds` are killed."""
    import psutil

    for one in left_after(processes, seconds):
        with suppress(psutil.Error):
            one.kill()
    left_after(processes, PARENT_SECONDS)


def _parents() -> list[int]:
    """The process ids of the parents up to the first that is no shell; at its end 0, which is no
    program's, for one that cannot be seen."""
    import psutil

    found: list[int] = []
    try:
        process = psutil.Process().parent()
        while process is not None:
            found.append(process.pid)
            if process.name() not in SHELLS:
                break
            process = process.parent()
    except psutil.Error:  # it ended while we looked: the chain has changed
        found.append(0)
    return found or [0]


def closed_part(path: str | bytes | os.PathLike[str] | None) -> Path | None:
    """The part of a path that is there and may not be read or entered."""
    whole = Path(os.fsdecode(path)) if path else None
    for place in (whole, *whole.parents) if whole else ():
        if os.path.lexists(place):
            needed = os.R_OK | (os.X_OK if place.is_dir() else 0)
            return None if os.access(place, needed) else place
    return None
