"""Worker processes that read samples; what comes out does not depend on them.

They are spawned, not forked: a fork copies locks that other threads hold, and this process has
threads (and, for torchvision's sets, torch). To start one takes 0.2 s of CPU (measured).
"""

import contextlib
import itertools
import multiprocessing
import os
import queue
import signal
import threading
import time
import traceback
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from multiprocessing import connection, resource_tracker
from typing import Any, Protocol

from src.base.words import counted
from src.plumbing import process
from src.plumbing.errors import GateError
from src.preparation.sources.base import Item


class Packer(Protocol):
    """Packs `chunk` samples of a kind at a time: each as a row with its sha256, or why not."""

    @property
    def chunk(self) -> int: ...

    def __call__(self, items: Iterable[Item]) -> list[Any]: ...


AHEAD = 3  # tasks per worker that wait or run (choice)
HEAD_START = 1.0  # seconds before workers start, so that small sets do without (choice)
MOST_WORKERS = 8  # by `auto`: beyond, the one process that writes is the limit (choice)


def read_in_order(
    items: Iterable[Item], packer: Packer, workers: int
) -> Generator[tuple[Item, Any], None, None]:
    """Each item with its result, in order; never more than a few tasks per worker in memory.
    GateError when memory runs out or a worker is killed. Close the iterator to end the workers."""
    remaining = iter(items)
    chunks = iter(lambda: list(itertools.islice(remaining, packer.chunk)), [])
    start = time.monotonic()
    try:
        for chunk in chunks:
            yield from zip(chunk, packer(chunk), strict=True)
            if workers and time.monotonic() - start >= HEAD_START:
                yield from _in_processes(chunks, packer, workers)
    except MemoryError:
        raise GateError(_out_of_memory("memory ran out")) from None


def worker_count(setting: str | int) -> int:
    """The value of machine.prepare_workers as a number."""
    if setting != "auto":
        return int(setting)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return min(cores or 1, MOST_WORKERS)


def _in_processes(
    chunks: Iterator[list[Item]], packer: Packer, count: int
) -> Iterator[tuple[Item, Any]]:
    workers: list[_Worker] = []
    tasks: deque[_Task] = deque()  # in the order of the items
    try:
        with process.deferred():  # one that was started is always in the list, to be ended
            for _ in range(count):
                workers.append(_Worker(packer))
        while True:
            for chunk in itertools.islice(chunks, count * AHEAD - len(tasks)):
                tasks.append(_Task(chunk))
                min(workers, key=lambda worker: len(worker.tasks)).send(tasks[-1])
            if not tasks:
                return
            while (results := tasks[0].results) is None:
                for ready in connection.wait([worker.results for worker in workers]):
                    next(worker for worker in workers if worker.results is ready).receive()
            yield from zip(tasks.popleft().items, results, strict=True)
    finally:  # also after an interrupt, or when the one who reads ends early
        for worker in workers:
            worker.end()


class _Task:
    def __init__(self, items: list[Item]):
        self.items = items
        self.results: list[Any] | None = None


class _Worker:
    """A process that does tasks one after the other. It shares no lock or pipe with others, so
    that it can be killed at any moment and its death is seen."""

    def __init__(self, packer: Packer):
        self.tasks: deque[_Task] = deque()
        context = multiprocessing.get_context("spawn")
        theirs, self.outbox = context.Pipe(duplex=False)
        self.results, inbox = context.Pipe(duplex=False)
        self.process = context.Process(target=_work, args=(packer, theirs, inbox), daemon=True)
        with _signals_blocked():
            self.process.start()
        theirs.close()
        inbox.close()

    def send(self, task: _Task) -> None:
        self.tasks.append(task)
        try:
            self.outbox.send(task.items)
        except BrokenPipeError:
            raise self._died() from None

    def receive(self) -> None:
        try:
            self.tasks[0].results = self.results.recv()
        except (EOFError, OSError):
            raise self._died() from None
        self.tasks.popleft()

    def end(self) -> None:
        self.process.kill()
        self.process.join()
        self.outbox.close()
        self.results.close()

    def _died(self) -> GateError:
        items = self.tasks[0].items if self.tasks else []
        at = f" among the {counted(len(items), 'sample')} from {items[0].name} on" if items else ""
        return GateError(_out_of_memory(f"a worker was killed{at}"))


def _out_of_memory(what: str) -> str:
    return (
        f"prepare: {what}: if memory was short, set machine.prepare_workers to a smaller number; "
        "if it happens again at the same place, look at the samples there"
    )


@contextlib.contextmanager
def _signals_blocked() -> Iterator[None]:
    """Processes started in the block miss the signals sent to all: this process ends them."""
    resource_tracker.ensure_running()  # it would unblock them when it starts
    blocked = {signal.SIGINT, signal.SIGHUP, signal.SIGTERM}
    old = signal.pthread_sigmask(signal.SIG_BLOCK, blocked)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, old)


def _work(packer: Packer, tasks: "connection.Connection", results: "connection.Connection") -> None:
    """What a worker does until the other end of `tasks` is gone, however that process ended."""
    waiting: queue.SimpleQueue[list[Item]] = queue.SimpleQueue()

    def receive() -> None:  # always ready, so that the other side never waits to send
        try:
            while True:
                waiting.put(tasks.recv())
        except (EOFError, OSError):
            os._exit(0)
        except BaseException as error:  # without this thread the other side would wait for ever
            if not isinstance(error, MemoryError):
                traceback.print_exc()
            os._exit(1)

    threading.Thread(target=receive, daemon=True).start()
    try:
        while True:
            results.send(packer(waiting.get()))
    except (MemoryError, BrokenPipeError):
        os._exit(1)
