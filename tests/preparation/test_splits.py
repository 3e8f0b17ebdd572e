"""Which split a sample goes to: by hash, as given, once; and what is refused."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from src.data.split import split_of
from src.plumbing.errors import InputError
from tests.conftest import packed, set_params
from tests.preparation.image_folders import (
    by_path,
    prepare_folder,
    report,
    write_images,
    write_splits,
)


def test_split_shares_and_seed() -> None:
    names = [f"{number:064x}" for number in range(20000)]
    splits = [split_of(name, 0, 0.2, 0.1) for name in names]
    assert splits.count("val") / 20000 == pytest.approx(0.2, abs=0.01)
    assert splits.count("test") / 20000 == pytest.approx(0.1, abs=0.01)
    other_val = [split_of(name, 0, 0.4, 0.1) for name in names]
    assert [s == "test" for s in splits] == [s == "test" for s in other_val]
    assert splits != [split_of(name, 1, 0.2, 0.1) for name in names]


def test_adding_and_renaming_moves_no_image(project: Path, tmp_path: Path) -> None:
    images = write_images(tmp_path / "images", {"cat": 40, "dog": 40})
    before = by_path(prepare_folder(project, images))
    rng = np.random.default_rng(7)
    for number in range(8):
        pixels = rng.integers(0, 256, (9, 9, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(images / "cat" / f"0new{number}.png")
    (images / "dog/000.png").rename(images / "dog/zzz.png")
    after = by_path(prepare_folder(project, images))
    assert len(after) == 88
    assert after.pop("dog/zzz.png") == before.pop("dog/000.png")
    assert {path: after[path] for path in before} == before
    shares = report(project)["share_of_class"]
    assert all(sum(shares[s][name] for s in shares) == pytest.approx(1) for name in ("cat", "dog"))


def test_identical_images_share_a_split_and_are_counted(project: Path, tmp_path: Path) -> None:
    images = write_images(tmp_path / "images", {"cat": 30, "dog": 30})
    for number in range(10):
        original = (images / f"cat/{number:03d}.png").read_bytes()
        (images / f"cat/copy{number}.png").write_bytes(original)
    splits = by_path(prepare_folder(project, images))
    assert all(splits[f"cat/{n:03d}.png"] == splits[f"cat/copy{n}.png"] for n in range(10))
    assert report(project)["identical_pictures"] == 10


def test_given_splits_are_kept_and_missing_ones_come_from_train(
    project: Path, tmp_path: Path
) -> None:
    images = tmp_path / "images"
    for split, count in (("train", 40), ("test", 6)):
        write_images(images / split, {"cat": count, "dog": count}, size=(10, 10 + count))
    splits = by_path(prepare_folder(project, images))
    assert {splits[path] for path in splits if path.startswith("test/")} == {"test"}
    from_train = {splits[path] for path in splits if path.startswith("train/")}
    assert from_train == {"train", "val"}  # test is given: nothing else comes into it


def test_three_given_splits_stay_as_they_are(project: Path, tmp_path: Path) -> None:
    images = write_splits(tmp_path / "images", ("train", "valid", "test"), 5)
    splits = by_path(prepare_folder(project, images))
    assert all(split[:3] == path[:3] for path, split in splits.items())


def test_a_suggested_split_seed_works(project: Path, tmp_path: Path) -> None:
    images = write_images(tmp_path / "images", {"cat": 40, "few": 4})
    with pytest.raises(InputError) as caught:
        prepare_folder(project, images, split_seed=3)
    seed = str(caught.value).partition("split_seed=")[2].partition(",")[0]
    splits = prepare_folder(project, images, split_seed=seed)
    assert all(set(data.labels) == {0, 1} for data in splits.values())


def test_a_leak_is_refused_or_dropped_and_stays_in_test(project: Path, tmp_path: Path) -> None:
    images = write_splits(tmp_path / "images", ("train", "val", "test"), 30)
    shutil.copy(images / "train/dog/003.png", images / "test/dog/leak.png")
    shutil.copy(images / "train/dog/004.png", images / "val/cat/leak.png")
    with pytest.raises(InputError) as caught:
        prepare_folder(project, images)
    line = str(caught.value)
    assert "is the same image as test/dog/leak.png of split test" in line
    assert re.search(r"1 more such sample, see .*report\.json; prepare\.on_leak", line)
    kept = json.loads((project / ".cache/prepare/report.json").read_text())
    splits = by_path(prepare_folder(project, images, on_leak="drop"))
    there = {path.relative_to(images).as_posix() for path in images.rglob("*.png")}
    dropped = ["train/dog/003.png", "train/dog/004.png"]
    assert set(splits) == there - set(dropped)
    assert (splits["test/dog/leak.png"], splits["val/cat/leak.png"]) == ("test", "val")
    leaks = report(project)["leaks"]
    assert leaks == kept["leaks"]
    assert [case["path"] for case in leaks["first"]] == dropped


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"synthetic_pictures": 2}, "of which there are 2 for 3 splits"),
        ({"source": "digits", "val_share": 0.0001}, ": add samples of it"),
    ],
)
def test_too_few_samples_for_the_splits_end_in_one_line(
    project: Path, values: dict[str, object], words: str
) -> None:
    set_params(project, **values)
    with pytest.raises(InputError, match=r"prepare: no sample of class .* in split ") as caught:
        packed(project)
    assert str(caught.value).endswith(words)


def test_an_error_leaves_the_old_data_in_place(copied: Path, tmp_path: Path) -> None:
    prepared = copied / "data/prepared"

    def state() -> list[tuple[str, bytes]]:
        return sorted((path.name, path.read_bytes()) for path in prepared.iterdir())

    before = state()
    images = write_images(tmp_path / "images", {"cat": 20, "dog": 20})
    (images / "dog/019.png").write_bytes(b"broken")
    with pytest.raises(InputError, match=r"dog/019\.png"):
        prepare_folder(copied, images)
    assert state() == before
    assert [path.name for path in (copied / "data").iterdir() if "partial" in path.name] == []


@pytest.mark.parametrize(
    "values", [{"val_share": 0.5}, {"test_share": 0.5}, {"split_seed": 4}], ids=str
)
def test_which_split_an_image_goes_to(project: Path, values: dict[str, Any]) -> None:
    before = by_path(packed(project))
    set_params(project, **values)
    splits = packed(project)
    given: dict[str, Any] = {"split_seed": 0, "val_share": 0.2, "test_share": 0.2}
    seed, *shares = (given | values).values()
    for split, data in splits.items():
        assert {split_of(content, seed, *shares) for content in data.sha256} == {split}
    assert by_path(splits) != before


def edit_all(root: Path) -> None:
    """Save each image again, darker."""
    for path in sorted(root.rglob("*.png")):
        Image.open(path).point(lambda value: value // 2).save(path)


@pytest.mark.parametrize("source", ["folder", "csv"])
def test_an_edited_image_stays_if_the_path_decides(
    project: Path, tmp_path: Path, source: str
) -> None:
    """The example; a table is its relative. By content the same edits move images."""
    images = write_images(tmp_path / "images", {"cat": 30, "dog": 30})
    names = [path.relative_to(images).as_posix() for path in sorted(images.rglob("*.png"))]
    rows = [f"{name},{name[:3]}" for name in names]
    (images / "labels.csv").write_text("\n".join(["path,label", *rows]) + "\n")

    def splits(by: str) -> dict[str, str]:
        set_params(project, source=source, path=images, split_by=by)
        return by_path(packed(project))

    before = {by: splits(by) for by in ("content", "path")}
    edit_all(images)
    assert splits("path") == before["path"]
    assert splits("content") != before["content"]
    new = write_images(tmp_path / "new", {"cat": 9}, size=(9, 9))
    for path in (new / "cat").iterdir():
        shutil.copy(path, images / "cat" / f"new{path.name}")
    after = splits("path")
    assert {path: after[path] for path in before["path"]} == before["path"]


def test_identical_images_by_path_may_leak(project: Path, tmp_path: Path) -> None:
    images = write_images(tmp_path / "images", {"cat": 30, "dog": 30})
    for number in range(20):
        shutil.copy(images / f"cat/{number:03d}.png", images / f"cat/copy{number}.png")
    with pytest.raises(InputError, match="is the same image as cat/"):
        prepare_folder(project, images, split_by="path")
    splits = by_path(prepare_folder(project, images, split_by="path", on_leak="drop"))
    assert 60 <= len(splits) < 80


def test_the_group_decides_before_the_path(project: Path, tmp_path: Path) -> None:
    images = write_images(tmp_path / "images", {"cat": 30, "dog": 30})
    rows = [f"{name}/{n:03d}.png,{name},G{n}" for name in ("cat", "dog") for n in range(30)]
    (images / "labels.csv").write_text("\n".join(["path,label,group", *rows]) + "\n")
    set_params(project, source="csv", path=images, csv_group_column="group")
    before = by_path(packed(project))
    edit_all(images)
    set_params(project, split_by="path")
    assert by_path(packed(project)) == before


def test_copies_are_what_is_said_to_lack(project: Path, tmp_path: Path) -> None:
    """Of one class, and of all, where none can be left out."""
    images = write_images(tmp_path / "images", {"cat": 30, "dog": 30, "fox": 30})
    one = (images / "cat/000.png").read_bytes()
    for path in (images / "cat").iterdir():
        path.write_bytes(one)
    words = (
        r"add samples of 'cat', of which there is 1 for 3 splits without the copies among its 30, "
        r"or leave the class out \(prepare.leave_out\)$"
    )
    with pytest.raises(InputError, match=words):
        prepare_folder(project, images)
    for path in images.rglob("*.png"):
        path.write_bytes(one)
    with pytest.raises(InputError, match=r"for 3 splits without the copies among its 30$"):
        prepare_folder(project, images)


@pytest.mark.parametrize("each", [1, 3])
def test_whole_numbers_that_are_a_quantity_are_named(
    project: Path, tmp_path: Path, each: int
) -> None:
    """Also those with as many samples of each as there are splits."""
    counts = {str(3 * n + 18): each for n in range(60)}
    images = write_images(tmp_path / "images", counts)
    with pytest.raises(InputError, match=r"no sample of .*: the classes are 60 different") as e:
        prepare_folder(project, images)
    assert "from 18 to 195" in str(e.value)
    assert "quantity (regression), write the name of a range in its place" in str(e.value)
    assert "leave" not in str(e.value)
    assert "\n" not in str(e.value)
