"""Whoever waits for a worker process learns of its end in seconds, and a signal ends the wait."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch

from src.base.files import write_json
from src.base.imports import ROOT
from src.data import workers
from src.data.packed import PackedSplit
from src.data.readers import Reading, read_batches, workers_kept
from src.data.writer import SplitWriter
from src.plumbing.errors import GateError
from src.plumbing.process import left_after

COUNT, SIDE = 200, 200  # 120 kB a sample: large enough to be sent as it lies in memory
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, size = tmp_path_factory.mktemp("packed"), {"size": SIDE, "channels": 3}
    draws = np.random.default_rng(0)
    with SplitWriter(folder, "train", size) as writer:
        for index in range(COUNT):
            image = draws.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
            writer.add(image, index % 3, f"{index}", f"{index:064x}")
    about = {"classes": ["a", "b", "c"], "mean": [0.5] * 3, "std": [0.3] * 3}
    write_json(folder / "meta.json", {**about, **size, "shards": {"train": writer.shards}})
    return folder


# Reads all batches and keeps them, in a process that takes signals as `train` does.
READS = """
import sys
from src.plumbing import process
from src.plumbing.command import guarded

def work():
    import numpy as np, torch
    from src.data.packed import PackedSplit
    from src.data.readers import Reading, read_batches, workers_kept
    process.TAKE_SECONDS = 1.0
    data = PackedSplit(sys.argv[1], "train")
    order = [np.arange(n % 200, n % 200 + 1) for n in range(int(sys.argv[2]))]
    kept = []
    with process.deferred():
        for batch in read_batches(data, order, torch.device("cpu"), Reading("workers", 2)):
            kept.append(batch)
            print("read", flush=True)
    assert all(torch.equal(rows[0], torch.from_numpy(data.rows(n))[0])
               for n, (rows, _) in zip(order, kept))

if __name__ == "__main__":
    {before}
    sys.exit(guarded(work))
"""


def reader(
    folder: Path, count: int, tmp_path: Path, before: str = "", **variables: str
) -> "subprocess.Popen[str]":
    script = tmp_path / "reads.py"
    script.write_text(READS.replace("{before}", before))
    return subprocess.Popen(
        [sys.executable, str(script), str(folder), str(count)],
        env={**os.environ, "PYTHONPATH": str(ROOT), **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def workers_of(process: "subprocess.Popen[str]") -> list[psutil.Process]:
    """Those that torch forked count as well."""
    assert process.stdout is not None
    assert process.stdout.readline() == "read\n"
    found = psutil.Process(process.pid).children()
    return [child for child in found if "resource_tracker" not in " ".join(child.cmdline())]


LIMIT = "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))"


@pytest.mark.parametrize(("before", "name"), [("", "x" * 90), (LIMIT, "x")], ids=["path", "files"])
def test_what_a_machine_allows_is_enough(
    folder: Path, tmp_path: Path, before: str, name: str
) -> None:
    """A TMPDIR in which the path of a socket is too long; and, which the report did not name, fewer
    open files than batches are kept. Each batch is what it is without workers."""
    long = tmp_path / name
    long.mkdir()
    process = reader(folder, 100, tmp_path, before, TMPDIR=str(long))
    try:
        printed, errors = process.communicate(timeout=60)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
    assert (process.returncode, errors) == (0, "")
    assert printed.count("read") == 100


def test_a_killed_worker_is_one_line(folder: Path, tmp_path: Path) -> None:
    process = reader(folder, 10**6, tmp_path)
    found = workers_of(process)
    begun = time.monotonic()
    found[-1].kill()
    _, errors = process.communicate(timeout=60)
    assert time.monotonic() - begun < 30
    assert process.returncode == 1
    assert errors.startswith("machine.reading: a worker was killed by signal 9 while it read a ba")
    assert "machine.workers" in errors
    assert len(errors.splitlines()) == 1
    assert not left_after(found, 30)


@pytest.mark.parametrize(
    ("number", "code", "line"),
    [(signal.SIGTERM, 143, "terminated\n"), (signal.SIGINT, 130, "interrupted\n")],
)
def test_a_signal_ends_the_wait_for_a_worker_that_stands_still(
    folder: Path, tmp_path: Path, number: int, code: int, line: str
) -> None:
    """It lives, so that nothing tells of its end: a disk that does not answer, or a debugger."""
    process = reader(folder, 10**6, tmp_path)
    found = workers_of(process)
    for worker in found:
        worker.suspend()
    time.sleep(1)  # what was read ahead is taken
    begun = time.monotonic()
    os.kill(process.pid, number)
    _, errors = process.communicate(timeout=60)
    assert time.monotonic() - begun < 30
    assert (process.returncode, errors) == (code, line)
    assert not left_after(found, 30)


def test_workers_end_with_the_block_and_with_the_one_who_reads(folder: Path) -> None:
    data = PackedSplit(folder, "train")
    batches = read_batches(data, [np.arange(4)] * 100, CPU, Reading("workers", 2))
    next(batches)
    found = [one for one in psutil.Process().children() if "spawn_main" in str(one.cmdline())]
    assert len(found) == 2
    batches.close()  # type: ignore[attr-defined]
    assert not left_after(found, 30)


def own_workers() -> list[psutil.Process]:
    found = psutil.Process().children()
    return [one for one in found if "spawn_main" in " ".join(one.cmdline())]


def test_workers_stay_for_the_next_batches_of_their_split(folder: Path) -> None:
    """In a block that keeps them; not those that were left with batches under way."""
    data, two = PackedSplit(folder, "train"), Reading("workers", 2)
    order = [np.arange(n, n + 4) for n in range(0, COUNT, 4)]

    def read() -> list[int]:
        for indices, (rows, labels) in zip(order, read_batches(data, order, CPU, two), strict=True):
            assert np.array_equal(rows.numpy(), data.rows(indices))
            assert np.array_equal(labels.numpy(), data.labels[indices])
        return sorted(one.pid for one in own_workers())

    with workers_kept():
        first = read()
        assert len(first) == 2
        assert read() == read() == first
        batches = read_batches(data, order, CPU, two)
        next(batches)
        batches.close()  # type: ignore[attr-defined]
        assert own_workers() == []
        others = read()
        assert not {*others} & {*first}
        own_workers()[0].kill()  # while it waits
        with pytest.raises(GateError, match="a worker was killed by signal 9 while it read a"):
            read()
        assert own_workers() == []
        read()
        found = own_workers()
    assert not left_after(found, 30)
    read()
    assert own_workers() == []


def test_an_error_of_a_worker_is_raised_where_its_batch_is_read(folder: Path) -> None:
    data = PackedSplit(folder, "train")
    order = [np.arange(4), np.arange(4), np.array([COUNT + 64])]
    batches = read_batches(data, order, CPU, Reading("workers", 2))
    assert len(next(batches)[0]) == len(next(batches)[0]) == 4
    with pytest.raises(IndexError):
        next(batches)


def leave(task: int) -> int:
    os._exit(3)


def test_a_worker_that_leaves_before_its_task_is_done_is_told() -> None:
    with (
        pytest.raises(workers.WorkerEnded, match="a worker ended") as caught,
        workers.started(leave, 1) as in_order,
    ):
        list(in_order([7, 8]))
    assert caught.value.task == 7
