"""The commands of each page run in a clone, in the order of the page; so does its Python."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.conftest import free_port
from tests.docs import pages
from tests.docs.listed import LISTED, RUN
from tests.pipeline.clone import environment, run
from tests.tracking.tracked_project import wait_until_up

pytestmark = pytest.mark.slow(seconds=90)

SET_UP = "make setup && source .venv/bin/activate && "


def photos(folder: Path, classes: str, count: int = 40) -> Path:
    """A folder per class; they differ in brightness, so that a net has something to learn."""
    draws = np.random.default_rng(0)
    for level, name in enumerate(classes.split()):
        (folder / name).mkdir(parents=True)
        for number in range(count):
            pixels = draws.integers(100 * level, 100 * level + 60, (20, 20, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{number}.png")
    return folder


def a_table(clone: Path) -> None:
    folder = photos(clone / "data/raw", "cat dog")
    found = sorted(path.relative_to(folder).as_posix() for path in folder.glob("*/*.png"))
    rows = [f"{name},{name.split('/')[0]},{number}" for number, name in enumerate(found)]
    (folder / "labels.csv").write_text("\n".join(["file,species,site", *rows]))


def a_remote(clone: Path) -> None:
    photos(clone.parent / "camera", "cat dog")
    run(clone.parent, "git", "init", "--quiet", "--bare", "--initial-branch=main", "origin.git")
    run(clone, "git", "remote", "add", "origin", "../origin.git")
    run(clone, "git", "push", "--quiet", "--set-upstream", "origin", "main")


def a_stage(clone: Path) -> None:
    """The module and the entry as the page has them."""
    page = "docs/how-to/own-stage.md"
    (clone / "src/report.py").write_text(pages.blocks(page, "python")[0])
    [entry] = pages.blocks(page, "yaml")
    pipeline = (clone / "dvc.yaml").read_text()
    assert pipeline.count("\nstages:\n") == 1
    (clone / "dvc.yaml").write_text(pipeline.replace("\nstages:\n", f"\nstages:\n{entry}"))


# What a page takes for granted.
BEFORE: dict[str, Callable[[Path], object]] = {
    "docs/tutorial.md": lambda clone: photos(clone / "data/raw", "hat shoes"),
    "docs/how-to/own-stage.md": a_stage,
    "docs/how-to/share-data.md": a_remote,
    "docs/reference/sources.md": a_table,
}
# What stands for something of the reader's own, or would take minutes.
INSTEAD = {
    SET_UP: "",
    "/mnt/shared/images": "{parent}/storage",
    "/mnt/camera/images": "{parent}/camera",
    "<your repository>": "{parent}/origin.git",
    "model=resnet18": "model=test_vit",  # one that trains in seconds
}
NAMES = {"docs/how-to/keep-an-experiment.md": ("faster", "higher")}


def test_what_is_read_in_place_of_something_stands_on_a_page() -> None:
    text = "".join(map(pages.text_of, RUN))
    assert [old for old in INSTEAD if old not in text] == []


@pytest.mark.parametrize("page", RUN)
def test_the_commands_of_a_page(page: str, clone: Path) -> None:
    (clone / "requirements/install.sh").write_text("# the packages are there\n")
    run(clone, "git", "update-index", "--assume-unchanged", "requirements/install.sh")
    BEFORE.get(page, lambda clone: None)(clone)
    script = "\n".join(command for command in pages.commands(page) if command not in LISTED)
    for old, new in INSTEAD.items():
        script = script.replace(old, new.format(parent=clone.parent))
    old, new = NAMES.get(page, ("", ""))
    script = script.replace(old, new) if old else script
    assert script
    run(clone, "bash", "-exc", script)


def test_the_notebook_reads_a_commit_while_the_workspace_has_no_model(
    clone: Path, tmp_path: Path
) -> None:
    """From another folder, and without a change of DVC's cache."""
    cache = {path: path.read_bytes() for path in clone.glob(".dvc/cache/files/md5/*/*")}
    for name in ("models", "data/prepared"):
        (clone / name).rename(tmp_path / Path(name).name)
    Image.new("RGB", (30, 20)).save(tmp_path / "photo.jpg")
    code = "".join(pages.blocks("docs/how-to/notebook.md", "python"))
    code = code.replace("/home/ada/clothes", str(clone))
    assert str(clone) in code
    code += "print(images.shape, probabilities.shape, sorted(description['classes'])[0])\n"
    (tmp_path / "cells.py").write_text(code)
    for _ in range(2):
        assert run(tmp_path, sys.executable, "cells.py").startswith("(8, 16, 16, 3) (8, 3) ")
    assert len(cache) > 20
    assert {path: path.read_bytes() for path in cache} == cache


def test_the_packed_data_are_read_without_the_project(clone: Path) -> None:
    [code] = pages.blocks("docs/reference/packed-format.md", "python")
    code += "print(len(images) == meta['counts']['train'])"
    assert run(clone, sys.executable, "-c", code) == "True\n"


def test_a_model_in_the_registry_is_served(clone: Path, tmp_path: Path) -> None:
    where = json.loads(run(clone, sys.executable, "-m", "src.where", "--json"))
    store = {**environment(), "MLFLOW_TRACKING_URI": f"sqlite:///{clone}/mlflow.db"}
    [code] = pages.blocks("docs/how-to/serving.md", "python")
    code = code.replace("RUN_ID", where["runs"]["train"]["run_id"])
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=store, check=True)
    *_, ask, serve = pages.commands("docs/how-to/serving.md")
    port, log = str(free_port()), tmp_path / "log"
    Image.new("RGB", (30, 20)).save(tmp_path / "photo.jpg")
    with open(log, "wb") as output:
        server = subprocess.Popen(
            serve.replace("5001", port).split(),
            cwd=tmp_path,
            env=store,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        wait_until_up(server, f"http://127.0.0.1:{port}/ping", log)
        answer = json.loads(run(tmp_path, "bash", "-c", ask.replace("5001", port)))
        assert 0 < answer["predictions"][0]["probability"] <= 1
    finally:
        os.killpg(server.pid, signal.SIGKILL)  # the group that this test started
        server.wait()
