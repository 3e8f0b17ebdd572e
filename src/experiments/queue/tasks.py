"""The trials among the experiments and in DVC's queue. DVC has no public interface to its queue but
tables, so this file alone uses its inside."""

import io
import logging
import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout, suppress
from pathlib import Path
from typing import Any

from src.plumbing import git, process
from src.plumbing.errors import InputError

COLLECT_SECONDS = 15.0  # for a worker to take in the result of a process that ended (choice)
# How a stage ended, in the log of its experiment; DVC itself always exits with 255.
EXITED = re.compile(r"exited with (-?\d+)")


def states(wanted: Callable[[str], Any]) -> dict[str, str]:
    """The state of the experiments whose names are `wanted`: finished, queued, running, failed (a
    stage said no) or killed."""
    found = unfinished(wanted)  # first: a task may come to its end between the two looks
    return found | {item.name: "finished" for item in git.experiments() if wanted(item.name)}


def unfinished(wanted: Callable[[str], Any]) -> dict[str, str]:
    """The state of each task of the queue that did not succeed, by name, if that is `wanted`."""
    if not Path(".dvc/tmp/exps/celery").is_dir():  # nothing was ever queued; opening makes folders
        return {}
    with _queue() as queue:
        found = {entry.name or "": "queued" for entry in queue.iter_queued()}
        working = None
        for entry in queue.iter_active():
            if not wanted(entry.name or ""):
                continue
            if working is None:
                working = bool(workers())
            alive = working and _alive(queue.proc.get(entry.stash_rev))
            if working and not alive and not _stays(entry.stash_rev, queue.iter_active):
                return unfinished(wanted)  # it came to its end just now
            found[entry.name] = "running" if alive else "killed"
        for entry, _ in queue.iter_failed():
            info = queue.proc.get(entry.stash_rev)
            found.setdefault(entry.name or "", _how_it_ended(info))
        return {name: state for name, state in found.items() if wanted(name)}


@contextmanager
def _queue() -> Iterator[Any]:
    """DVC's queue; InputError, in its words, if it does not open this project."""
    from dvc.repo import Repo

    try:
        repo = Repo()
    except Exception as error:  # DVC's own, and those of three libraries for git
        why = git.refusal() or " ".join(str(error).split())
        raise InputError(f"DVC does not open this project: {why}") from None
    with _quiet(), repo:
        yield repo.experiments.celery_queue


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what the parts of the queue log about dead processes, which is known here."""
    logging.disable(logging.WARNING)
    try:
        with redirect_stdout(io.StringIO()):  # DVC names what it killed
            yield
    finally:
        logging.disable(logging.NOTSET)


def _alive(info: Any) -> bool:
    """Whether the process of a task runs; one without a process is being set up."""
    import psutil

    if info is None:
        return True
    with suppress(psutil.NoSuchProcess):
        return info.returncode is None and process.runs(psutil.Process(info.pid))
    return False


def _stays(rev: str, active: Callable[[], Iterable[Any]]) -> bool:
    """Whether a task without a process stays active: its worker may end it yet, or have died."""
    end = time.monotonic() + COLLECT_SECONDS
    while time.monotonic() < end:
        time.sleep(0.5)
        if rev not in (entry.stash_rev for entry in active()):
            return False
    return True


def _how_it_ended(info: Any) -> str:
    """`failed` if a stage ended by itself with an error, else `killed`."""
    log = Path(info.stdout).read_text(errors="replace") if info and info.stdout else ""
    codes = [int(code) for code in EXITED.findall(log)]
    return "failed" if codes and 0 < codes[-1] < 128 else "killed"


def workers() -> list[Any]:
    """The processes of the queue's workers in this project."""
    import psutil

    here, found = Path.cwd().resolve(), {}
    for one in psutil.process_iter(["cmdline", "ppid"]):
        if "queue-worker" in (one.info["cmdline"] or []):
            with suppress(psutil.Error):
                if Path(one.cwd()).is_relative_to(here):
                    found[one.pid] = one
    # An experiment that a worker starts has the worker's words until it has its own.
    return [one for one in found.values() if one.info["ppid"] not in found]


def forget(names: Sequence[str]) -> None:
    """Take dead tasks out of the queue, so that their names can be queued again."""
    from dvc.repo.experiments.exceptions import UnresolvedExpNamesError
    from dvc.repo.experiments.queue.exceptions import CannotKillTasksError

    with _queue() as queue:
        active = {entry.name for entry in queue.iter_active()} & set(names)
        if active:
            # A task whose worker died counts as running for ever. The first call ends a process
            # that outlived its worker, the second marks the task as failed.
            for _ in range(2):
                with suppress(UnresolvedExpNamesError, CannotKillTasksError):
                    queue.kill(active, force=True)
        with suppress(UnresolvedExpNamesError):
            queue.remove(names)
