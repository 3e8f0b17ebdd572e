"""Worker processes that read samples; what comes out does not depend on them."""

import itertools
import os
import time
from collections.abc import Generator, Iterable
from typing import Any, Protocol

from src.base.words import counted
from src.data import workers as processes
from src.plumbing.errors import GateError
from src.preparation.sources.base import Item


class Packer(Protocol):
    """Packs `chunk` samples of a kind at a time: each as a row with its sha256, or why not."""

    @property
    def chunk(self) -> int: ...

    def __call__(self, items: Iterable[Item]) -> list[Any]: ...


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
                with processes.started(packer, workers) as in_order:
                    for chunk, results in in_order(chunks):
                        yield from zip(chunk, results, strict=True)
    except MemoryError:
        raise GateError(_out_of_memory("memory ran out")) from None
    except processes.WorkerEnded as ended:
        items = ended.task or []
        at = f" among the {counted(len(items), 'sample')} from {items[0].name} on" if items else ""
        raise GateError(_out_of_memory(f"{ended}{at}")) from None


def worker_count(setting: str | int) -> int:
    """The value of machine.prepare_workers as a number."""
    if setting != "auto":
        return int(setting)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return min(cores or 1, MOST_WORKERS)


def _out_of_memory(what: str) -> str:
    return (
        f"prepare: {what}: if memory was short, set machine.prepare_workers to a smaller number; "
        "if it happens again at the same place, look at the samples there"
    )
