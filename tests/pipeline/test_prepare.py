"""`prepare` killed at random moments, through `dvc` as people run it."""

import random
import shutil
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from src.plumbing.process import left_after
from tests.conftest import set_params
from tests.pipeline.clone import commit, environment, lock, new_clone, run
from tests.preparation.image_folders import write_images

pytestmark = pytest.mark.slow(seconds=60)

KILLS = 3
SLOWEST = 0.9  # of the undisturbed time: a kill hits the stage at work, also near its end


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (folder / "data/prepared").iterdir()}


def stage_of(dvc: psutil.Process) -> psutil.Process | None:
    """The process of the stage below a `dvc repro`."""
    try:
        for child in dvc.children(recursive=True):
            if "src.prepare" in child.cmdline():
                return child
    except psutil.Error:
        pass
    return None


def kill(stage: psutil.Process | None) -> list[psutil.Process]:
    """Kill the stage, if it has not ended; returns its workers."""
    workers: list[psutil.Process] = []
    if stage is not None:
        with suppress(psutil.NoSuchProcess):
            workers = stage.children(recursive=True)
            stage.kill()
    return workers


def test_a_killed_prepare_leaves_no_trace(tmp_path: Path) -> None:
    clone = new_clone(tmp_path / "project", tracking="false", prepare_workers=2)
    pictures = clone / "data/raw"
    write_images(pictures, {"cat": 400, "dog": 400}, size=(300, 200))
    (pictures / "cat/000.png").write_bytes(b"")
    set_params(clone, source="folder", path="data/raw", on_bad="skip", size=48)
    run(clone, "dvc", "add", "data/raw")
    commit(clone, "pictures")
    undisturbed = Path(shutil.copytree(clone, tmp_path / "undisturbed", symlinks=True))
    start = time.monotonic()
    run(undisturbed, "dvc", "repro", "prepare")
    seconds = time.monotonic() - start

    moments = random.Random(0)
    killed = whole = 0
    for _ in range(4 * KILLS):
        start = time.monotonic()
        dvc = subprocess.Popen(
            ["dvc", "repro", "prepare", "--force"], cwd=clone, env=environment(),
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        process = psutil.Process(dvc.pid)
        stage = None
        while stage is None and dvc.poll() is None:
            stage = stage_of(process)
            time.sleep(0.01)
        time.sleep(moments.uniform(0, SLOWEST * seconds))
        workers = kill(stage)
        if dvc.wait(60) == 0:  # it had ended before
            seconds = min(seconds, time.monotonic() - start)
            continue
        killed += 1
        assert not left_after(workers, 60)
        if (clone / "data/prepared").exists():  # killed after the rename that ends it
            assert contents(clone) == contents(undisturbed)
            whole += 1
        if killed - whole == KILLS:
            break
    assert killed - whole >= KILLS // 2
    printed = run(clone, "dvc", "repro", *["--force"] * (clone / "dvc.lock").exists(), "prepare")
    assert "Running stage 'prepare'" in printed
    assert contents(clone) == contents(undisturbed)
    assert lock(clone) == lock(undisturbed)
    assert sorted(path.name for path in (clone / "data").iterdir()) == sorted(
        ["README.md", "builtin", "weights", "raw", "raw.dvc", "prepared", ".gitignore"]
    )
