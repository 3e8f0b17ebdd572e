"""Facts that spoil a result, as the commands tell them: dark images, and samples that err together.

Through `python -m` and the files that it leaves, so that any version of the code can be asked.
"""

import json
import re
import shutil
from collections.abc import Callable
from math import sqrt
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from src.data.packed import PackedSplit
from src.model.create import create_model
from src.model.saved import save_model
from tests.conftest import python, set_params

PEOPLE = Path(__file__).parents[1] / "preparation/own_sources/people.py"


def run(project: Path, stage: str) -> str:
    ended = python(project, "-m", f"src.{stage}")
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


Write = Callable[[np.ndarray, Path], None]
# A scanner's images: values in 0..1 as each kind of file holds them.
SCANS: dict[str, Write] = {
    "12 bits in 16, .png": lambda x, path: Image.fromarray(
        (x * 4095).round().astype(np.uint16)
    ).save(path.with_suffix(".png")),
    "14 bits in 16, .tif": lambda x, path: Image.fromarray(
        (x * 16383).round().astype(np.uint16)
    ).save(path.with_suffix(".tif")),
    "floats up to 0.01, .tif": lambda x, path: Image.fromarray((x / 100).astype(np.float32)).save(
        path.with_suffix(".tif")
    ),
}


@pytest.mark.parametrize("kind", SCANS)
def test_images_that_come_out_dark_are_told_with_the_value_that_helps(
    kind: str, project: Path, tmp_path: Path
) -> None:
    """The example, 12 bits; relatives: 14 bits, floats."""
    draws = np.random.default_rng(0)
    for name in ("a", "b"):
        (tmp_path / "images" / name).mkdir(parents=True)
        for number in range(30):
            SCANS[kind](draws.random((16, 16)), tmp_path / "images" / name / f"{number:03d}")
    set_params(project, source="folder", path=tmp_path / "images", channels=1)
    printed = run(project, "prepare")
    assert PackedSplit(project / "data/prepared", "train").rows(range(20)).max() < 80
    found = re.search(r"so that the brightest becomes \d+ of 255: .* set (\S+)=(\S+)", printed)
    assert found, printed
    set_params(project, **{found[1]: found[2]})
    assert "brightest" not in run(project, "prepare")
    assert PackedSplit(project / "data/prepared", "train").rows(range(20)).max() > 230


def write_people(root: Path, count: int, each: int) -> list[tuple[str, str, str]]:
    """(path, class, person) of `each` images of each of `count` people, half of them cats, the
    others dogs. A person's images are much alike: a net errs on all of them or on none."""
    draws = np.random.default_rng(0)
    found = []
    for number in range(count):
        name, person = ("cat", "dog")[number % 2], f"p{number:03d}"
        folder = root / person / name
        folder.mkdir(parents=True)
        looks = draws.integers(0, 256, (16, 16, 3))
        for index in range(each):
            pixels = looks + draws.integers(-9, 10, looks.shape)
            image = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
            image.save(folder / f"{index}.png")
            found.append((f"{person}/{name}/{index}.png", name, person))
    return found


def by_table(project: Path, root: Path, rows: list[tuple[str, str, str]]) -> None:
    text = "\n".join(["path,label,person", *map(",".join, rows)])
    (root / "labels.csv").write_text(text + "\n")
    set_params(project, source="csv", csv_group_column="person")


def by_own_source(project: Path, root: Path, rows: list[tuple[str, str, str]]) -> None:
    shutil.copy(PEOPLE, project / "src/yours/source.py")
    set_params(project, source="own")


def save_net(project: Path) -> None:
    """A net with random weights as the model of the project."""
    meta = PackedSplit(project / "data/prepared", "val").meta
    net = create_model("test_resnet", classes=2, input_size=(3, 16, 16))
    about = {key: meta[key] for key in ("classes", "mean", "std")}
    about |= {"architecture": "test_resnet", "input_size": [3, 16, 16], "fit": "crop"}
    about |= {"interpolation": "bilinear", "epochs": 3, "best_epoch": 2, "fingerprint": "f" * 64}
    save_model(net.state_dict(), about, project / "models")


def width(group: dict[str, Any]) -> float:
    return float(group["accuracy_high"] - group["accuracy_low"])


@pytest.mark.slow(seconds=25)
@pytest.mark.parametrize("given", [by_table, by_own_source])
def test_intervals_are_as_wide_as_the_groups_make_them(
    given: Callable[..., None], project: Path, tmp_path: Path
) -> None:
    """The example, a column of a table; its relative, an own source. Twelve images of a person say
    no more than one, so an interval is about sqrt(12) times as wide as if they did."""
    each = 12
    rows = write_people(tmp_path / "images", 60, each)
    given(project, tmp_path / "images", rows)
    set_params(project, path=tmp_path / "images")
    run(project, "prepare")
    save_net(project)
    printed = run(project, "evaluate")
    for split, group in json.loads((project / "results/evaluate/metrics.json").read_text()).items():
        share = group["accuracy"]
        by_sample = 2 * 1.96 * sqrt(share * (1 - share) / group["n"])
        assert width(group) > by_sample * sqrt(each) / 2
        assert group["groups"] == group["n"] // each
        assert f"{split} accuracy" in printed
        assert f", over {group['groups']} groups)" in printed
