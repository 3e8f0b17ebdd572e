"""Each way to keep a data set, as the page has it, is packed with the settings beside it."""

import csv
import re
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from src.preparation.sources.own import Sample
from src.yours import source as yours
from tests.conftest import packed, set_params
from tests.docs import pages
from tests.images.test_torchvision import lay_out, mnist_files
from tests.preparation.image_folders import write_images, write_splits
from tests.preparation.test_parquet import table
from tests.preparation.test_webdataset import samples, write_shard

PAGE = "docs/how-to/your-data.md"
DIGITS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
COUNTS = {"cat": 40, "dog": 40}


def a_table(raw: Path, header: list[str], row: Callable[[int], list[object]]) -> None:
    write_images(raw, {"images": 80})
    for number in range(80):
        (raw / f"images/{number:03d}.png").rename(raw / f"images/{number}.jpg")
    with open(raw / "labels.csv", "w", newline="") as file:
        csv.writer(file).writerows([header, *map(row, range(80))])


def flat(raw: Path) -> None:
    for name in COUNTS:
        write_images(raw.parent / "made", {name: 40})
        raw.mkdir(exist_ok=True)
        for path in (raw.parent / "made" / name).iterdir():
            path.rename(raw / f"{name}_{path.name}")


def archive(raw: Path) -> None:
    made = write_images(raw.parent / "made", COUNTS)
    with zipfile.ZipFile(raw.parent / "images.zip", "w") as file:
        for path in made.rglob("*.png"):
            file.write(path, path.relative_to(made))
    with zipfile.ZipFile(raw.parent / "images.zip") as file:
        file.extractall(raw)


def parquet(raw: Path) -> None:
    (raw / "data").mkdir(parents=True)
    pq.write_table(table(0, 80, ["cat", "dog"]), raw / "data/train-00000-of-00001.parquet")


# By the first words of the rows: what makes the data, and the classes that come out.
WAYS: dict[str, tuple[Callable[[Path], object], list[str]]] = {
    "class folders": (lambda raw: write_images(raw, COUNTS), ["cat", "dog"]),
    "split folders": (lambda raw: write_splits(raw, ("train", "test"), 30), ["cat", "dog"]),
    "class folders in a wrapper": (
        lambda raw: write_images(raw / "Dataset", COUNTS),
        ["cat", "dog"],
    ),
    "flat files whose names say the class": (flat, ["cat", "dog"]),
    "a table of ids": (
        lambda raw: a_table(raw, ["id", "label"], lambda n: [n, ("cat", "dog")[n % 2]]),
        ["cat", "dog"],
    ),
    "a one-hot table": (
        lambda raw: a_table(
            raw, ["path", "cat", "dog"], lambda n: [f"images/{n}.jpg", 1 - n % 2, n % 2]
        ),
        ["cat", "dog"],
    ),
    "Parquet of Hugging Face": (parquet, ["cat", "dog"]),
    "WebDataset shards": (
        lambda raw: write_shard(raw / "train-000000.tar", samples(0, 80)),
        ["0", "1"],
    ),
    "an archive": (archive, ["cat", "dog"]),
    "a set of torchvision": (
        lambda raw: lay_out(raw, mnist_files(), packed=True),
        [f"{digit} - {name}" for digit, name in enumerate(DIGITS)],
    ),
}


def rows() -> Iterator[tuple[str, str]]:
    """(what you have, what to set) of the table."""
    for line in pages.text_of(PAGE).splitlines():
        cells = line.strip("|").split(" | ")
        if len(cells) == 3 and "`" in cells[2]:
            yield cells[0].strip(), cells[2]


def test_every_row_is_tried() -> None:
    assert [name for name, _ in rows()] == list(WAYS)


@pytest.mark.parametrize("name", WAYS)
def test_a_way_to_keep_data(
    name: str, project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make, classes = WAYS[name]
    make(project / "data/raw")
    wanted = dict(rows())
    settings = wanted[name if "prepare." in wanted[name] else "class folders"]
    values = dict(re.findall(r"prepare\.(\w+)=([^\s`]+)", settings))
    assert values
    set_params(project, **{f"prepare.{key}": value for key, value in values.items()})
    [code] = pages.blocks(PAGE, "python")
    written: dict[str, Any] = {"Sample": Sample, "Path": Path, "Iterator": Iterator}
    exec(code, {**written, "Mapping": Mapping, "Any": Any}, written)
    monkeypatch.setattr(yours, "own_source", written["own_source"])
    splits = packed(project)
    assert splits["train"].meta["classes"] == classes
    assert sum(map(len, splits.values())) >= 80
    assert "left out" not in capsys.readouterr().out
