"""`prepare` through `dvc` as people run it: killed at random moments, and with an own source."""

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

EXAMPLES = Path(__file__).parents[1] / "preparation/own_sources"
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


def test_an_edit_of_an_own_source_or_of_what_it_reads_prepares_again(tmp_path: Path) -> None:
    clone = new_clone(tmp_path / "project", tracking="false")
    data, source = clone / "data/raw", clone / "src/yours/source.py"
    write_images(data, {"cat": 30, "dog": 30})
    rows = [f"{name}/{n:03d}.png,{name},,{n}" for name in ("cat", "dog") for n in range(30)]
    table = data / "photos.csv"
    table.write_text("file,species,split,site\n" + "\n".join(rows) + "\n")
    shutil.copy(EXAMPLES / "table.py", source)
    set_params(clone, source="own", path="data/raw")
    run(clone, "python", "-m", "src.deps")
    assert "prepare: 2 classes" in run(clone, "dvc", "repro", "prepare")
    assert "Running stage" not in run(clone, "dvc", "repro", "prepare")
    for path, old, new in (
        (table, ",cat,", ",Cat,"),
        (source, '["species"]', '["species"].lower()'),
    ):
        assert old in path.read_text()
        path.write_text(path.read_text().replace(old, new))
        assert "Running stage 'prepare'" in run(clone, "dvc", "repro", "prepare")
    assert '"cat"' in (clone / "data/prepared/meta.json").read_text()
    source.write_text(source.read_text() + "# a comment\n")
    assert "Running stage 'prepare'" in run(clone, "dvc", "repro", "prepare")
    source.write_text("def own_source(params):\n    raise ValueError('no\\nkey')\n")
    printed = run(clone, "dvc", "repro", "prepare", code=255)
    assert "\nsrc/yours/source.py:2: ValueError: no key\n" in printed
