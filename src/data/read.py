"""Items of a source into packed pictures: in this process or in workers, in the items' order.

Workers are spawned, not forked: a fork copies locks that other threads hold, and this process has
threads (and, for torchvision's sets, torch). The results do not depend on where they are made.
"""

import contextlib
import hashlib
import itertools
import multiprocessing
import os
import queue
import signal
import threading
import time
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass
from multiprocessing import connection, resource_tracker

import numpy as np
from PIL import Image

from src.data.decode import BadPicture
from src.data.fit import fit_picture
from src.data.sources.base import Item
from src.errors import GateError

CHUNK = 64  # pictures per task at most: small ones cost less than the way to a worker (measured)
CHUNK_BYTES = 2 * 2**20  # of packed pixels per task at most, so that memory has a bound (choice)
AHEAD = 3  # tasks per worker that wait or run (choice)
HEAD_START = 1.0  # seconds before workers start: small sets end sooner without (measured)
MOST_WORKERS = 8  # by `auto`: beyond, the one process that writes is the limit (choice)


@dataclass(frozen=True)
class Packed:
    """A picture that was read: sha256 (hex) of its content, `pixels` (uint8 H x W x C), sums of
    them and of their squares per channel, and what it was: width and height in pixels (upright),
    mode, whether it was turned, number of frames."""

    sha256: str
    pixels: np.ndarray
    sums: list[int]
    squares: list[int]
    width: int
    height: int
    mode: str
    turned: bool
    frames: int


@dataclass(frozen=True)
class Rejected:
    """A picture that cannot be used; see BadPicture."""

    reason: str
    remedy: str
    detail: str


Result = Packed | Rejected


@dataclass(frozen=True)
class Reader:
    """Reads items and fits them; the settings are those of `prepare:`."""

    size: int
    channels: int
    fit: str
    interpolation: str
    crop_ratio: float

    @property
    def chunk(self) -> int:
        """Pictures per task."""
        return max(1, min(CHUNK, CHUNK_BYTES // (self.size**2 * self.channels)))

    def __call__(self, items: Iterable[Item]) -> list[Result]:
        return [self._read(item) for item in items]

    def _read(self, item: Item) -> Result:
        try:
            content, picture = item.read()
        except BadPicture as error:
            return Rejected(error.reason, error.remedy, error.detail)
        pixels = fit_picture(
            picture.image, self.size, self.channels, self.fit, self.interpolation, self.crop_ratio
        )
        return Packed(
            hashlib.sha256(content).hexdigest(),
            pixels,
            *_sums(pixels),
            picture.image.width,
            picture.image.height,
            picture.mode,
            picture.turned,
            picture.frames,
        )


def _sums(pixels: np.ndarray) -> tuple[list[int], list[int]]:
    """Sum and sum of squares per channel, by Pillow's histogram: a third of numpy's time."""
    squeezed = pixels[:, :, 0] if pixels.shape[2] == 1 else pixels
    counts = np.array(Image.fromarray(squeezed).histogram()).reshape(-1, 256)
    values = np.arange(256)
    return (counts @ values).tolist(), (counts @ values**2).tolist()


def read_in_order(
    items: Iterable[Item], reader: Reader, workers: int
) -> Generator[tuple[Item, Result], None, None]:
    """Each item with its result, in order; never more than a few tasks per worker in memory.
    GateError when memory runs out or a worker is killed. Close the iterator to end the workers."""
    chunks = _chunked(iter(items), reader.chunk)
    start = time.monotonic()
    try:
        for chunk in chunks:
            yield from zip(chunk, reader(chunk), strict=True)
            if workers and time.monotonic() - start >= HEAD_START:
                yield from _in_processes(chunks, reader, workers)
    except MemoryError:
        raise GateError(_out_of_memory("memory ran out")) from None


def _chunked(items: Iterator[Item], size: int) -> Iterator[list[Item]]:
    while chunk := list(itertools.islice(items, size)):
        yield chunk


def worker_count(setting: str | int) -> int:
    """The value of machine.prepare_workers as a number."""
    if setting != "auto":
        return int(setting)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return min(cores or 1, MOST_WORKERS)


def _in_processes(
    chunks: Iterator[list[Item]], reader: Reader, count: int
) -> Iterator[tuple[Item, Result]]:
    workers: list[_Worker] = []
    tasks: deque[_Task] = deque()  # in the order of the items
    try:
        for _ in range(count):
            workers.append(_Worker(reader))
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
        self.results: list[Result] | None = None


class _Worker:
    """A process that answers tasks one after the other. It shares no lock or pipe with others, so
    that it can be killed at any moment and its death is seen."""

    def __init__(self, reader: Reader):
        self.tasks: deque[_Task] = deque()
        context = multiprocessing.get_context("spawn")
        theirs, self.outbox = context.Pipe(duplex=False)
        self.results, answers = context.Pipe(duplex=False)
        self.process = context.Process(target=_work, args=(reader, theirs, answers), daemon=True)
        with _signals_blocked():
            self.process.start()
        theirs.close()
        answers.close()

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
        at = f" among the {len(items)} pictures from {items[0].name} on" if items else ""
        return GateError(_out_of_memory(f"a worker was killed{at}"))


def _out_of_memory(what: str) -> str:
    return (
        f"prepare: {what}: if memory was short, set machine.prepare_workers to a smaller number; "
        "if it happens again at the same place, look at the pictures there"
    )


@contextlib.contextmanager
def _signals_blocked() -> Iterator[None]:
    """What a terminal or `kill` sends to all processes does not reach one that starts in the block:
    only this process answers it, and ends the others."""
    resource_tracker.ensure_running()  # it would unblock them when it starts
    blocked = {signal.SIGINT, signal.SIGHUP, signal.SIGTERM}
    old = signal.pthread_sigmask(signal.SIG_BLOCK, blocked)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, old)


def _work(reader: Reader, tasks: "connection.Connection", results: "connection.Connection") -> None:
    """What a worker does until the other end of `tasks` is gone, however that process ended."""
    waiting: queue.SimpleQueue[list[Item]] = queue.SimpleQueue()

    def receive() -> None:  # always ready, so that the other side never waits to send
        try:
            while True:
                waiting.put(tasks.recv())
        except (EOFError, OSError):
            os._exit(0)

    threading.Thread(target=receive, daemon=True).start()
    try:
        while True:
            results.send(reader(waiting.get()))
    except (MemoryError, BrokenPipeError):
        os._exit(1)
