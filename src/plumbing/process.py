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
TAKE_SECONDS = 30.0  # for a `deferred` block to take a signal (choice)
INSIST_SECONDS = 60.0  # until a stage that outlives its parents gets SIGTERM again (choice)
LOOK_SECONDS = 0.1  # between two looks at processes that are about to end (choice)
SHELLS = ("sh", "bash", "dash", "zsh", "ksh", "fish")  # DVC runs a stage through $SHELL
# OSErrors that a person has to mend, such as a full disk or a file in the place of a folder.
CANNOT_WRITE = (errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EDQUOT, errno.ENOTDIR)


class Terminated(BaseException):
    """SIGTERM or SIGHUP arrived."""


_EXCEPTIONS: dict[int, type[BaseException]] = {
    signal.SIGINT: KeyboardInterrupt,
    signal.SIGTERM: Terminated,
    signal.SIGHUP: Terminated,
}
_waits = False  # whether a signal waits for the end of a `deferred` block
_arrived: int | None = None  # the signal that waits


def share_cores() -> None:
    """Let OpenMP's threads sleep while they wait, before torch is imported. When they spin, two
    trainings on two cores ran at half the speed together, three at a tenth (measured)."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def print_any_text() -> None:
    """Let stdout escape, as stderr does, what its encoding lacks, such as some names of files."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def handle_signals() -> None:
    """Raise KeyboardInterrupt or Terminated on the signals that ask a process to end."""
    for number in _EXCEPTIONS:
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup, or a job in the background
            signal.signal(number, _on_signal)


def end_at_once() -> None:
    """Let a further signal end the process in silence: all is put away, and Python is about to wait
    for threads and to run what was left for its end, where an exception is a traceback."""
    for number in _EXCEPTIONS:
        if signal.getsignal(number) is _on_signal:
            signal.signal(number, signal.SIG_DFL)


def _on_signal(number: int, frame: FrameType | None) -> None:
    global _arrived
    if _waits and _arrived is None:
        _arrived = number
        signal.signal(signal.SIGALRM, _on_alarm)
        # Again and again: in a destructor an exception is lost.
        signal.setitimer(signal.ITIMER_REAL, TAKE_SECONDS, TAKE_SECONDS)
    else:
        raise _EXCEPTIONS[number]


def _on_alarm(number: int, frame: FrameType | None) -> None:
    if _waits and _arrived is not None:
        raise _EXCEPTIONS[_arrived]


def at_work() -> None:
    """Tell, in a `deferred` block, that it does not stand still: a validation, or a step of many
    micro-batches, may take longer than a signal waits."""
    if _arrived is not None and signal.getitimer(signal.ITIMER_REAL)[0]:
        signal.setitimer(signal.ITIMER_REAL, TAKE_SECONDS, TAKE_SECONDS)


def _take() -> bool:
    if _arrived is None:
        return False
    signal.setitimer(signal.ITIMER_REAL, 0)
    return True


@contextmanager
def deferred() -> Iterator[Callable[[], bool]]:
    """Inside the block a first signal makes the yielded function return True: raised in a step it
    would leave half of it done. It is raised when the block ends, also in place of an error that it
    caused, but not in place of a checkpoint that could not be written; and where the block stands
    if for `TAKE_SECONDS` neither that function nor `at_work` is called: it may wait for what never
    comes. A
    second signal is raised at once. In another such block this is a part of that."""
    global _waits, _arrived
    if _waits:
        yield _take
        return
    _waits, _arrived = True, None
    try:
        yield _take
    except Exception as error:
        if _arrived is None or getattr(error, "errno", None) in CANNOT_WRITE:
            raise
    finally:
        _waits = False
        _take()
    if _arrived is not None:
        raise _EXCEPTIONS[_arrived]


def end_with_parents() -> None:
    """Where DVC runs this process, end it by SIGTERM as soon as DVC, or the shell between, is gone.
    A thread watches the chain of parents, which works on Linux and macOS alike."""
    if "DVC_STAGE" not in os.environ:
        return
    at_start = _parents()
    begun_by_dvc = _may_be_dvc(at_start[-1])

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
    """Whether the first parent that is no shell can be the DVC that began this process. If DVC was
    killed while Python started, that is the system's first process: nobody wants the result."""
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


def runs(process: "psutil.Process") -> bool:
    """Whether a process runs. One that has ended stays listed until its parent asks for its code,
    which the first process of a container, the parent of orphans, may never do."""
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
    """Ids of the parents up to the first that is no shell; 0 stands for one that cannot be seen."""
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
