"""Worker processes that do one task after the other; the results come in the order of the tasks.

A worker shares no lock, socket or memory with others, so that it can be killed at any moment and
its end is seen at once. Results go through pipes: the sockets of torch's workers need a short
TMPDIR, and their shared memory, which holds 64 MB in a container of Docker, ends them where it is
full. Workers are spawned, not forked: a fork copies locks that other threads hold, and this process
has threads. To start one takes 0.2 s of CPU (measured).
"""

import os
import pickle
import queue
import signal
import threading
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import islice
from multiprocessing import connection, get_context, resource_tracker
from typing import Any

from src.plumbing import process

AHEAD = 3  # tasks per worker that wait or run (choice)
LARGE = 2**16  # bytes from which an array is not copied into a message (choice)


class WorkerEnded(Exception):
    """A worker ended before it had done `task`, the first of those it was given; None if it had
    none. The text says how it ended."""

    def __init__(self, how: str, task: Any):
        super().__init__(how)
        self.task = task


@contextmanager
def started(work: Callable[[Any], Any], count: int) -> Iterator["InOrder"]:
    """Start `count` workers, which end with the block. Yields a function: of an iterable of tasks
    it makes an iterator of (task, work(task)), in order, with a few tasks per worker in memory. An
    error of `work` is raised there; WorkerEnded when a worker is killed or memory runs out."""
    workers: list[_Worker] = []
    try:
        with process.deferred():  # one that was started is always in the list, to be ended
            for _ in range(count):
                workers.append(_Worker(work))
        yield partial(_results, workers)
    finally:  # also after an interrupt, or when the one who reads ends early
        for worker in workers:
            worker.end()


InOrder = Callable[[Iterable[Any]], Iterator[tuple[Any, Any]]]


def _results(workers: "list[_Worker]", given: Iterable[Any]) -> Iterator[tuple[Any, Any]]:
    remaining = iter(given)
    tasks: deque[_Task] = deque()  # in the order in which they were given
    while True:
        for task in islice(remaining, len(workers) * AHEAD - len(tasks)):
            tasks.append(_Task(task))
            min(workers, key=lambda worker: len(worker.tasks)).send(tasks[-1])
        if not tasks:
            return
        while not tasks[0].done:
            for ready in connection.wait([worker.results for worker in workers]):
                next(worker for worker in workers if worker.results is ready).receive()
        first = tasks.popleft()
        if isinstance(first.result, _Error):
            raise first.result.error
        yield first.given, first.result


class _Task:
    def __init__(self, given: Any):
        self.given = given
        self.done, self.result = False, None


class _Error:
    """What `work` raised, on its way to the process that gave the task."""

    def __init__(self, error: Exception):
        self.error = error


class _Worker:
    def __init__(self, work: Callable[[Any], Any]):
        self.tasks: deque[_Task] = deque()
        context = get_context("spawn")
        theirs, self.outbox = context.Pipe(duplex=False)
        self.results, inbox = context.Pipe(duplex=False)
        self.process = context.Process(target=_work, args=(work, theirs, inbox), daemon=True)
        with _signals_blocked():
            self.process.start()
        theirs.close()
        inbox.close()

    def send(self, task: _Task) -> None:
        self.tasks.append(task)
        try:
            self.outbox.send(task.given)
        except BrokenPipeError:
            raise self._ended() from None

    def receive(self) -> None:
        try:
            result = _receive(self.results)
        except (EOFError, OSError):
            raise self._ended() from None
        task = self.tasks.popleft()
        task.done, task.result = True, result

    def end(self) -> None:
        self.process.kill()
        self.process.join()
        self.outbox.close()
        self.results.close()

    def _ended(self) -> WorkerEnded:
        self.process.join()  # its end of the pipe is closed: it ends
        code = self.process.exitcode or 0
        how = f"was killed by signal {-code}" if code < 0 else "ended"
        return WorkerEnded(f"a worker {how}", self.tasks[0].given if self.tasks else None)


@contextmanager
def _signals_blocked() -> Iterator[None]:
    """Processes started in the block miss the signals sent to all: this process ends them."""
    resource_tracker.ensure_running()  # it would unblock them when it starts
    blocked = {signal.SIGINT, signal.SIGHUP, signal.SIGTERM}
    old = signal.pthread_sigmask(signal.SIG_BLOCK, blocked)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, old)


def _work(
    work: Callable[[Any], Any], tasks: "connection.Connection", results: "connection.Connection"
) -> None:
    """What a worker does until the other end of `tasks` is gone, however that process ended."""
    waiting: queue.SimpleQueue[Any] = queue.SimpleQueue()

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
            _send(results, _result(work, waiting.get()))
    except (MemoryError, BrokenPipeError):
        os._exit(1)


def _result(work: Callable[[Any], Any], task: Any) -> Any:
    try:
        return work(task)
    except MemoryError:
        raise
    except Exception as error:
        return _Error(error)


def _send(to: "connection.Connection", value: Any) -> None:
    """Send a value; large arrays go as they lie in memory."""
    buffers: list[pickle.PickleBuffer] = []

    def is_small(buffer: pickle.PickleBuffer) -> bool:
        if buffer.raw().nbytes >= LARGE:
            buffers.append(buffer)
            return False
        return True

    message = pickle.dumps(value, protocol=5, buffer_callback=is_small)
    views = [buffer.raw() for buffer in buffers]
    to.send((message, [view.nbytes for view in views]))
    for view in views:
        while view:
            view = view[os.write(to.fileno(), view) :]


def _receive(source: "connection.Connection") -> Any:
    """What `_send` sent; EOFError or OSError when the other process ended."""
    message, sizes = source.recv()
    buffers = [bytearray(size) for size in sizes]
    with open(source.fileno(), "rb", buffering=0, closefd=False) as file:
        for buffer in buffers:
            view = memoryview(buffer)
            while view:
                if not (count := file.readinto(view)):
                    raise EOFError
                view = view[count:]
    return pickle.loads(message, buffers=buffers)
