"""Reading samples: resident on the device, or mapped with a thread or processes reading ahead."""

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch

from src.data.packed import PackedSplit
from src.data.workers import InOrder, WorkerEnded, started
from src.plumbing import process
from src.plumbing.errors import GateError, InputError

Batch = tuple[torch.Tensor, torch.Tensor]
Indices = Sequence[np.ndarray]

# Of the device's free memory, the most for one split: a training holds two. (choice)
RESIDENT_SHARE = 0.25
AHEAD = 3  # batches that the thread reads before they are asked for (choice)
PART_BYTES = 64 * 2**20  # copied at once on the way to the device (choice)
CGROUP = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class Reading:
    """`mode`: auto | resident | mapped | workers (so many processes). No mode changes a batch."""

    mode: str = "auto"
    workers: int = 0

    @classmethod
    def from_params(cls, params: Mapping[str, Any]) -> "Reading":
        """The keys `machine.reading` and `machine.workers` of params.yaml."""
        return cls(params["machine.reading"], params["machine.workers"])


MAPPED = Reading("mapped")  # for few batches, which are not worth moving all samples


def read_batches(
    data: PackedSplit, batches: Indices, device: torch.device, reading: Reading = MAPPED
) -> Iterator[Batch]:
    """Rows (of images uint8 B x H x W x C) and labels int64 B, on the device, for each index array
    (int64, B) of `batches`. Dropping the iterator ends its thread or processes (but see
    `workers_kept`), whose errors are raised here. InputError when `resident` is asked for and does
    not fit, GateError when a process that reads is killed."""
    return _at_work(TIERS[tier(data, device, reading)](data, batches, device, reading.workers))


def _at_work(batches: Iterator[Batch]) -> Iterator[Batch]:
    for batch in batches:
        process.at_work()
        yield batch


def tier(data: PackedSplit, device: torch.device, reading: Reading) -> str:
    """With auto: `resident` within RESIDENT_SHARE, then `workers` if any are set, else `mapped`."""
    if reading.mode != "auto":
        return reading.mode
    is_there = data in _resident and _resident[data][0] == device
    if is_there or data.nbytes <= RESIDENT_SHARE * free_memory(device):
        return "resident"
    return "workers" if reading.workers else "mapped"


def free_memory(device: torch.device) -> int:
    """Free bytes on the device; for CPU and MPS those of the host, or of its container if fewer."""
    import psutil

    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    free = psutil.virtual_memory().available
    try:
        limit = int((CGROUP / "memory.max").read_text())
        free = min(free, limit - int((CGROUP / "memory.current").read_text()))
    except (OSError, ValueError):  # no container, or one without a limit ("max")
        pass
    return free


# The samples that are on a device, as long as their PackedSplit lives.
_resident: WeakKeyDictionary[PackedSplit, tuple[torch.device, torch.Tensor]] = WeakKeyDictionary()


def _read_resident(
    data: PackedSplit, batches: Indices, device: torch.device, workers: int
) -> Iterator[Batch]:
    if not batches:
        return
    if data not in _resident or _resident[data][0] != device:
        _resident[data] = device, _to_device(data, device)
    rows = _resident[data][1]
    if device.type == "cpu":
        host = rows.numpy()
        for part in batches:  # a tenth of the time of torch's index_select (measured)
            yield torch.from_numpy(host.take(part, axis=0)), torch.from_numpy(data.labels[part])
        return
    sizes = [len(part) for part in batches]
    together = np.concatenate(batches)
    # All indices at once: to copy those of each step would wait for the device.
    indices = torch.from_numpy(together).to(device).split(sizes)
    labels = torch.from_numpy(data.labels[together]).to(device).split(sizes)
    for part, wanted in zip(indices, labels, strict=True):
        yield rows.index_select(0, part), wanted


def _to_device(data: PackedSplit, device: torch.device) -> torch.Tensor:
    """All samples of `data` on the device, N x the shape of a row."""
    per_part = max(1, PART_BYTES * len(data) // data.nbytes)
    try:
        dtype = torch.from_numpy(np.empty(0, data.dtype)).dtype
        rows = torch.empty((len(data), *data.shape), dtype=dtype, device=device)
        for start in range(0, len(data), per_part):
            part = np.arange(start, min(start + per_part, len(data)))
            rows[start : start + per_part] = torch.from_numpy(data.rows(part)).to(device)
    except (RuntimeError, MemoryError):  # torch raises its own for a GPU, a plain one for the host
        raise InputError(
            f"params.yaml: machine.reading resident needs {data.nbytes / 2**30:.1f} GiB "
            f"on {device} for {data.folder}, split {data.split}: set auto or mapped"
        ) from None
    return rows


def _read_mapped(
    data: PackedSplit, batches: Indices, device: torch.device, workers: int
) -> Iterator[Batch]:
    def read(indices: np.ndarray) -> Batch:
        return _on_host(data.rows(indices), data.labels[indices], device)

    # A new thread's GPU is the first one, which is also the one without a number.
    numbered = device.type == "cuda" and device.index is not None
    choose = partial(torch.cuda.set_device, device) if numbered else None
    pool = ThreadPoolExecutor(1, "reader", choose)
    try:
        following = iter(batches)
        waiting = deque(pool.submit(read, indices) for indices in islice(following, AHEAD))
        while waiting:
            batch = waiting.popleft().result()
            waiting.extend(pool.submit(read, indices) for indices in islice(following, 1))
            yield _moved(batch, device)
    finally:
        pool.shutdown(cancel_futures=True)


# In a block of `workers_kept`, the processes that wait for the next batches of a split.
_idle: dict[tuple[PackedSplit, int], tuple[ExitStack, InOrder]] | None = None


@contextmanager
def workers_kept() -> Iterator[None]:
    """Inside the block, processes that have read all they were asked for stay for the next batches
    of their split, such as another epoch's: to start them takes a second (measured). They end with
    the block."""
    global _idle
    _idle = {}
    try:
        yield
    finally:
        kept, _idle = _idle, None
        with ExitStack() as every:
            for ends, _ in kept.values():
                every.push(ends)


def _workers(data: PackedSplit, count: int) -> tuple[ExitStack, InOrder]:
    """Processes that read samples of `data`, kept or new, and what ends them."""
    if _idle and (kept := _idle.pop((data, count), None)):
        return kept
    with ExitStack() as ends:
        in_order = ends.enter_context(started(data.rows, count))
        return ends.pop_all(), in_order


def _read_with_workers(
    data: PackedSplit, batches: Indices, device: torch.device, workers: int
) -> Iterator[Batch]:
    ends, in_order = _workers(data, workers)
    read = 0
    try:
        with ends:
            try:
                for indices, rows in in_order(batches):
                    read += 1
                    yield _moved(_on_host(rows, data.labels[indices], device), device)
            finally:
                # Else there is something under way, which the next one would take for its own.
                if read == len(batches) and _idle is not None and (data, workers) not in _idle:
                    _idle[data, workers] = ends.pop_all(), in_order
    except WorkerEnded as ended:
        raise GateError(
            f"machine.reading: {ended} while it read a batch: if memory was short, set "
            "machine.workers to a smaller number, or machine.reading to mapped, which needs none"
        ) from None


def _on_host(rows: np.ndarray, labels: np.ndarray, device: torch.device) -> Batch:
    """A batch in pinned memory for a GPU, which copies out of it while the host goes on."""
    batch = torch.from_numpy(rows), torch.from_numpy(labels)
    return (batch[0].pin_memory(), batch[1].pin_memory()) if device.type == "cuda" else batch


def _moved(batch: Batch, device: torch.device) -> Batch:
    return batch[0].to(device, non_blocking=True), batch[1].to(device, non_blocking=True)


TIERS = {"resident": _read_resident, "mapped": _read_mapped, "workers": _read_with_workers}
