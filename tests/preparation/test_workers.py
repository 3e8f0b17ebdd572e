"""Workers change nothing but the time: same bytes for any number, nothing left when one ends."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from src.data import workers as processes
from src.images import packing
from src.images.decode import Upright
from src.images.packing import Packed, Packer, Pixels
from src.plumbing.errors import GateError
from src.plumbing.process import left_after
from src.plumbing.terminal import Counted
from src.preparation import workers
from src.preparation.sources.base import Item
from src.preparation.workers import read_in_order, worker_count
from tests.conftest import packed, run_stage, set_params
from tests.preparation.image_folders import write_images

PACKER = Packer(8, 3, "crop", "bilinear", 1.0)


@pytest.fixture(autouse=True)
def workers_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "HEAD_START", 0)


def test_any_number_of_workers_gives_the_same_bytes(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packing, "CHUNK", 5)
    images = write_images(tmp_path / "images", {"cat": 60, "dog": 60}, size=(40, 30))
    for number in range(0, 60, 7):
        (images / f"dog/{number:03d}.png").write_bytes(b"broken" * number)
    set_params(project, source="folder", path=images, on_bad="skip")
    found = []
    for count in (0, 1, 2, 3):
        set_params(project, prepare_workers=count)
        packed(project)
        files = (project / "data/prepared").iterdir()
        found.append({path.name: path.read_bytes() for path in files})
    assert found[0].keys() == found[1].keys()
    assert found[0] == found[1] == found[2] == found[3]
    assert len(found[0]["rejects.csv"].splitlines()) == 1 + 9


def items(count: int) -> list[Item]:
    return [
        Item(f"image {n}", n % 7, Pixels(np.full((4, 4), n % 256, np.uint8))) for n in range(count)
    ]


@pytest.mark.parametrize("count", [1, 3])
def test_results_come_in_order_from_real_processes(count: int) -> None:
    seen = set()
    names = []
    for item, result in read_in_order(items(1000), PACKER, count):
        names.append(item.name)
        assert isinstance(result, Packed)
        assert result.row[0, 0, 0] == int(item.name.split()[1]) % 256
        seen |= {child.pid for child in psutil.Process().children()}
    assert names == [item.name for item in items(1000)]
    assert len(seen) >= count
    assert not left_after(own_workers(psutil.Process()), 60)


def own_workers(process: psutil.Process) -> list[psutil.Process]:
    found = []
    for child in process.children():
        with suppress(psutil.Error):
            if "spawn_main" in " ".join(child.cmdline()):
                found.append(child)
    return found


def test_only_a_few_are_read_ahead() -> None:
    """So that memory does not grow with the number of images."""
    taken = 0

    def counted() -> Iterator[Item]:
        nonlocal taken
        for item in items(5000):
            taken += 1
            yield item

    results = read_in_order(counted(), PACKER, 2)
    for done in range(1, 2000):
        next(results)
        # What waits or runs, and the tasks of this process before workers started.
        assert taken - done <= (2 * processes.AHEAD + 2) * packing.CHUNK
    results.close()
    assert not left_after(own_workers(psutil.Process()), 60)


class Deadly:
    """An image whose reading kills the process that does it."""

    def __call__(self) -> tuple[bytes, Upright]:
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError


def test_a_killed_worker_is_one_line() -> None:
    some = [*items(300), Item("the deadly one", 0, Deadly()), *items(300)]
    with pytest.raises(GateError) as caught:
        list(read_in_order(some, PACKER, 2))
    line = str(caught.value)
    assert "a worker was killed by signal 9 among the 64 samples from image 256 on" in line
    assert "machine.prepare_workers" in line
    assert "\n" not in line


class Hungry:
    def __call__(self) -> tuple[bytes, Upright]:
        raise MemoryError


def fail(kind: type[Exception]) -> None:
    raise kind


class Unpacked:
    """Fails where a worker takes it."""

    def __init__(self, kind: type[Exception]):
        self.kind = kind

    def __reduce__(self) -> tuple[object, tuple[type[Exception]]]:
        return fail, (self.kind,)


ENDED, RAN_OUT = "a worker ended among the ", "memory ran out: "


@pytest.mark.parametrize(
    ("read", "count", "words", "traces"),
    [
        (Unpacked(MemoryError), 1, ENDED, False),
        (Unpacked(ImportError), 1, ENDED, True),
        (Hungry(), 0, RAN_OUT, False),
        (Hungry(), 1, ENDED, False),
    ],
    ids=["taken", "imported", "read here", "read by a worker"],
)
def test_memory_that_runs_out_is_one_line(
    read: Any, count: int, words: str, traces: bool, capfd: pytest.CaptureFixture[str]
) -> None:
    """The machine's fault: no image is rejected. A worker that cannot take its images ends,
    or the stage would wait for it for ever."""
    some = [*items(100), Item("the large one", 0, read)]
    with pytest.raises(GateError, match=rf"{words}.*machine\.prepare_workers"):
        list(read_in_order(some, PACKER, count))
    assert ("Traceback" in capfd.readouterr().err) == traces


def test_the_number_of_workers() -> None:
    assert worker_count(0) == 0
    assert worker_count(5) == 5
    assert 1 <= worker_count("auto") <= workers.MOST_WORKERS


def test_progress_is_a_line_now_and_then(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for mode, seconds, lines in (("auto", 0.0, 2), ("auto", 60.0, 0), ("off", 0.0, 0)):
        monkeypatch.setattr(Counted, "SECONDS", seconds)
        with Counted("prepare", 150, "images", mode) as progress:
            for _ in range(150):
                progress.advance()
        printed = capsys.readouterr().err.splitlines()
        assert len(printed) == lines
        assert all(line.startswith("prepare: ") and " of 150 images" in line for line in printed)


def start(project: Path) -> "tuple[subprocess.Popen[str], list[psutil.Process]]":
    """A `prepare` in a session of its own, whose workers have started, and these."""
    stage = subprocess.Popen(
        [sys.executable, "-m", "src.prepare"],
        cwd=project,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    process = psutil.Process(stage.pid)
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and stage.poll() is None:
        found = own_workers(process)
        # Their threads start once they have all that they were given.
        if len(found) == 2 and all(child.num_threads() > 1 for child in found):
            return stage, found
        time.sleep(0.02)
    raise AssertionError(f"no workers: {stage.stderr.read() if stage.stderr else ''}")


@pytest.fixture
def long(project: Path) -> Path:
    """A project whose `prepare` takes half a minute."""
    set_params(project, synthetic_pictures=20000, synthetic_classes=4, size=64, prepare_workers=2)
    return project


@pytest.mark.slow(seconds=6)
@pytest.mark.parametrize(
    ("number", "everyone", "code", "line"),
    [
        (signal.SIGINT, True, 130, "interrupted\n"),
        (signal.SIGTERM, False, 143, "terminated\n"),
        (signal.SIGHUP, True, 143, "terminated\n"),
        (signal.SIGKILL, False, -9, ""),
    ],
)
def test_no_worker_outlives_the_stage(
    long: Path, number: int, everyone: bool, code: int, line: str
) -> None:
    stage, found = start(long)
    (os.killpg if everyone else os.kill)(stage.pid, number)
    _, errors = stage.communicate(timeout=120)
    assert (stage.returncode, errors) == (code, line)
    assert not left_after(found, 60)
    assert not (long / "data/prepared").exists()
    left = [path.name for path in (long / "data").iterdir() if "partial" in path.name]
    assert left == ([".prepared.partial"] if number == signal.SIGKILL else [])
    set_params(long, synthetic_pictures=50)
    run_stage(long, "prepare")
    assert not (long / "data/.prepared.partial").exists()
