import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from src.images.fit import fit_image
from src.plumbing.errors import InputError
from src.plumbing.schema import SCHEMA
from tests.conftest import packed, set_params
from tests.preparation.image_folders import by_path, prepare_folder, write_images, write_splits


@pytest.mark.parametrize(
    ("folders", "named", "others"),
    [
        (("train", "test", "misc"), "misc", "train"),
        (("Train", "misc", "extra"), "extra", "misc"),
        (("train", "__MACOSX"), "__MACOSX", "train"),
        (("cat", "test"), "test", "cat"),
        (("cat", "dog", "Val", "test"), "Val", "test"),
    ],
)
def test_split_folders_beside_others_are_refused(
    project: Path, tmp_path: Path, folders: tuple[str, ...], named: str, others: str
) -> None:
    images = tmp_path / "images"
    for name in folders:
        write_images(images / name, {"cat": 30, "dog": 30})
    with pytest.raises(InputError) as caught:
        prepare_folder(project, images)
    line = str(caught.value)
    assert named in line
    assert others in line
    assert "\n" not in line
    assert ("move" in line) == ("train" in [name.lower() for name in folders])
    assert "rename" in line
    assert not (project / "data/prepared").exists()


def test_hidden_folders_beside_split_folders_are_ignored(project: Path, tmp_path: Path) -> None:
    images = tmp_path / "images"
    write_images(images / "train", {"cat": 30, "dog": 30})
    write_images(images / ".thumbnails", {"cat": 3})
    splits = prepare_folder(project, images)
    assert splits["train"].meta["classes"] == ["cat", "dog"]
    assert sum(map(len, splits.values())) == 60


@pytest.mark.parametrize(
    "name", [b"cat/\xe9.png", b"\xe9/0.png", b"\xe9/x.txt", b"dog/\xff/0.png", b"cat/a\rb.png"]
)
def test_names_that_no_table_can_hold_are_named(project: Path, tmp_path: Path, name: bytes) -> None:
    images = write_images(tmp_path / "images", {"cat": 20, "dog": 20})
    odd = Path(os.fsdecode(os.fsencode(images) + b"/" + name))
    try:
        odd.parent.mkdir(exist_ok=True)
        shutil.copy(images / "cat/000.png", odd)
    except OSError:
        pytest.skip("this file system takes UTF-8 alone")
    with pytest.raises(InputError) as caught:
        prepare_folder(project, images)
    line = str(caught.value)
    line.encode("utf-8")
    assert any(byte in name and repr(byte)[2:-1] in line for byte in (b"\xe9", b"\xff", b"\r"))
    assert "rename it" in line


def test_odd_names_come_back_as_they_are(project: Path, tmp_path: Path) -> None:
    classes = ["$a$", 'comma, "quoted"', "line\nbreak", "猫"]
    images = write_images(tmp_path / "images", dict.fromkeys(classes, 30))
    odd = ["a,b.png", "a\nb.png", 'a"b.png', " a.png", "é.png", "x" * 200 + ".png"]
    for number, name in enumerate(odd):
        (images / "$a$" / f"{number:03d}.png").rename(images / "$a$" / name)
    splits = prepare_folder(project, images)
    there = {path.relative_to(images).as_posix() for path in images.rglob("*") if path.is_file()}
    assert set(by_path(splits)) == there
    assert all(
        data.meta["classes"][label] == path.split("/")[0]
        for data in splits.values()
        for label, path in zip(data.labels, data.paths, strict=True)
    )


@pytest.mark.parametrize("channels", [1, 3])
def test_pixels_arrive_as_they_were(project: Path, tmp_path: Path, channels: int) -> None:
    images = write_images(tmp_path / "images", {"cat": 20, "dog": 20}, size=(16, 16))
    splits = prepare_folder(project, images, channels=channels)
    for data in splits.values():
        for index, path in enumerate(data.paths):
            mode = "RGB" if channels == 3 else "L"
            expected = np.asarray(Image.open(images / path).convert(mode)).reshape(16, 16, -1)
            assert np.array_equal(data.rows([index])[0], expected)
            assert data.meta["classes"][data.labels[index]] == path.split("/")[0]


@pytest.mark.parametrize(
    ("counts", "words"),
    [
        ({}, "at least two; found 0"),
        ({"only": 9}, "at least two; found 1"),
        ({"cat": 40, "rare": 1}, "no sample of class 'rare' in split"),
        ({"cat": 40, "few": 4}, "set prepare.split_seed="),
    ],
)
def test_folders_that_cannot_work_say_so(
    project: Path, tmp_path: Path, counts: dict[str, int], words: str
) -> None:
    images = tmp_path / "images"
    images.mkdir()
    write_images(images, counts)
    with pytest.raises(InputError) as caught:
        prepare_folder(project, images, split_seed=3)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("source", "words"), [("folder", "of class folders"), ("csv", "with the table")]
)
def test_the_path_must_be_a_folder(project: Path, source: str, words: str) -> None:
    set_params(project, source=source)
    with pytest.raises(InputError, match=rf"prepare\.path must be a folder {words}"):
        packed(project)


HOW = ("size", "channels", "fit", "interpolation", "crop_ratio")
NUMBERS = {"size": ["8", "24"], "crop_ratio": ["1", "0.5"]}


@pytest.mark.parametrize(
    ("key", "choice"),
    [(key, c) for key in HOW for c in NUMBERS.get(key) or SCHEMA[f"prepare.{key}"].choices],
)
def test_how_images_are_packed(project: Path, tmp_path: Path, key: str, choice: str) -> None:
    images = write_images(tmp_path / "images", {"cat": 20, "dog": 20})
    data = prepare_folder(project, images, split_seed=1, **{key: choice})["train"]
    how: dict[str, Any] = {
        "size": 16,
        "channels": 3,
        "fit": "crop",
        "interpolation": "bilinear",
        "crop_ratio": 1.0,
        key: SCHEMA[f"prepare.{key}"].parse(choice),
    }
    assert {name: data.meta[name] for name in HOW} == how
    for image, path in zip(data.rows(range(3)), data.paths, strict=False):
        with Image.open(images / path) as opened:
            assert np.array_equal(image, fit_image(opened, **how))


@pytest.mark.parametrize("split", ["test", "val"])
def test_a_split_folder_without_class_folders_has_no_labels(
    project: Path, tmp_path: Path, split: str
) -> None:
    """As competitions give their test images; it was told to add images of each class."""
    root = write_splits(tmp_path / "images", ("train", "val", "test"), 10)
    for name in ("cat", "dog"):
        for path in (root / split / name).iterdir():
            path.rename(root / split / f"{name}-{path.name}")
        (root / split / name).rmdir()
    with pytest.raises(InputError) as caught:
        prepare_folder(project, root)
    assert "has no class folders, so nothing says the classes of its 20 samples" in str(
        caught.value
    )


def test_the_blanks_of_a_class_are_seen(project: Path, tmp_path: Path) -> None:
    images = write_images(tmp_path / "images", {"a": 40, " no ": 1})
    with pytest.raises(InputError, match="no sample of class ' no ' in split"):
        prepare_folder(project, images)


def test_an_address_as_folder_is_shown_as_it_is(project: Path) -> None:
    with pytest.raises(InputError) as caught:
        prepare_folder(project, "https://example.org/cats.zip")  # type: ignore[arg-type]
    assert "the address https://example.org/cats.zip, and nothing is downloaded" in str(
        caught.value
    )
