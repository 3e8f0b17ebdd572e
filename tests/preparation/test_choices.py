"""The choices of `prepare` and `subset`: what each changes in the packed pictures. test_sources.py
and test_csv.py have the sources, `on_bad`, `on_leak` and the columns, test_workers.py
`prepare_workers`."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from src.data.packed import PackedSplit
from src.data.split import split_of
from src.images.fit import fit_picture
from src.plumbing.errors import InputError
from src.plumbing.schema import SCHEMA
from tests.conftest import packed, run_stage, set_params
from tests.preparation.test_csv import GOOD, prepare
from tests.preparation.test_sources import by_path, prepare_folder, write_pictures

DELIMITERS = {"comma": ",", "semicolon": ";", "tab": "\t", "pipe": "|"}


def subset_of(project: Path) -> dict[str, PackedSplit]:
    run_stage(project, "subset")
    return {split: PackedSplit(project / "data/subset", split) for split in ("train", "val")}


def counts(splits: dict[str, PackedSplit]) -> dict[str, list[int]]:
    return {split: np.bincount(data.labels).tolist() for split, data in splits.items()}


@pytest.mark.parametrize("many", [1, 7])
@pytest.mark.parametrize("split", ["train", "val"])
def test_subset_per_class(copied: Path, split: str, many: int) -> None:
    before = counts(subset_of(copied))
    set_params(copied, **{f"{split}_per_class": many})
    assert counts(subset_of(copied)) == {**before, split: [many] * 3}


def test_subset_seed(copied: Path) -> None:
    first = subset_of(copied)
    text = (copied / "params.yaml").read_text()
    (copied / "params.yaml").write_text(text.replace("\n  seed: 0", "\n  seed: 1"))
    second = subset_of(copied)
    assert counts(first) == counts(second)
    assert all(set(first[split].sha256) != set(second[split].sha256) for split in first)


HOW = ("size", "channels", "fit", "interpolation", "crop_ratio")
PICTURES = {"size": ["8", "24"], "crop_ratio": ["1", "0.5"]}


@pytest.mark.parametrize(
    ("key", "choice"),
    [(key, c) for key in HOW for c in PICTURES.get(key) or SCHEMA[f"prepare.{key}"].choices],
)
def test_how_pictures_are_packed(project: Path, tmp_path: Path, key: str, choice: str) -> None:
    pictures = tmp_path / "pictures"
    write_pictures(pictures, {"cat": 20, "dog": 20})
    data = prepare_folder(project, pictures, split_seed=1, **{key: choice})["train"]
    how: dict[str, Any] = {
        "size": 16, "channels": 3, "fit": "crop", "interpolation": "bilinear", "crop_ratio": 1.0,
        key: SCHEMA[f"prepare.{key}"].parse(choice),
    }  # fmt: skip
    assert {name: data.meta[name] for name in HOW} == how
    for picture, path in zip(data.pictures(range(3)), data.paths, strict=False):
        with Image.open(pictures / path) as opened:
            assert np.array_equal(picture, fit_picture(opened, **how))


@pytest.mark.parametrize(
    "values", [{"val_share": 0.5}, {"test_share": 0.5}, {"split_seed": 4}], ids=str
)
def test_which_split_a_picture_goes_to(project: Path, values: dict[str, Any]) -> None:
    before = by_path(packed(project))
    set_params(project, **values)
    splits = packed(project)
    given = {"split_seed": 0, "val_share": 0.2, "test_share": 0.2, **values}
    for split, data in splits.items():
        found = {split_of(content, given["split_seed"], given["val_share"], given["test_share"])
                 for content in data.sha256}  # fmt: skip
        assert found == {split}
    assert by_path(splits) != before


@pytest.mark.parametrize(("classes", "pictures"), [(2, 60), (5, 60), (3, 40)])
def test_synthetic_pictures(project: Path, classes: int, pictures: int) -> None:
    set_params(project, synthetic_classes=classes, synthetic_pictures=pictures)
    splits = packed(project)
    labels = np.concatenate([data.labels for data in splits.values()])
    assert np.bincount(labels).tolist() == [pictures] * classes


@pytest.mark.parametrize("choice", DELIMITERS)
def test_csv_delimiter(project: Path, tmp_path: Path, choice: str) -> None:
    root = tmp_path / "pictures"
    write_pictures(root, {"cat": 30, "dog": 30})
    table = GOOD.replace(",", DELIMITERS[choice])
    splits = prepare(project, root, table, csv_delimiter=choice)
    assert sum(map(len, splits.values())) == 60
    for other in set(DELIMITERS) - {choice}:
        with pytest.raises(InputError, match="has no column path"):
            prepare(project, root, table, csv_delimiter=other)


def test_every_delimiter_is_tried() -> None:
    assert {"auto", *DELIMITERS} == set(SCHEMA["prepare.csv_delimiter"].choices)
