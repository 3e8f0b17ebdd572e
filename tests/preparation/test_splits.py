"""Which split a sample goes to: by hash, as given, once; and what is refused."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from src.data.split import split_of
from src.plumbing.errors import InputError
from tests.conftest import packed, set_params
from tests.preparation.image_folders import by_path, prepare_folder, write_images


def test_adding_and_renaming_moves_no_image(project: Path, tmp_path: Path) -> None:
    images = tmp_path / "images"
    write_images(images, {"cat": 40, "dog": 40})
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
    shares = json.loads((project / "data/prepared/report.json").read_text())["share_of_class"]
    assert all(sum(shares[s][name] for s in shares) == pytest.approx(1) for name in ("cat", "dog"))


def test_identical_images_share_a_split_and_are_counted(project: Path, tmp_path: Path) -> None:
    images = tmp_path / "images"
    write_images(images, {"cat": 30, "dog": 30})
    for number in range(10):
        original = (images / f"cat/{number:03d}.png").read_bytes()
        (images / f"cat/copy{number}.png").write_bytes(original)
    splits = by_path(prepare_folder(project, images))
    assert all(splits[f"cat/{n:03d}.png"] == splits[f"cat/copy{n}.png"] for n in range(10))
    report = json.loads((project / "data/prepared/report.json").read_text())
    assert report["identical_pictures"] == 10


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
    images = tmp_path / "images"
    for number, split in enumerate(("train", "valid", "test")):
        write_images(images / split, {"cat": 5, "dog": 5}, size=(10, 10 + number))
    splits = by_path(prepare_folder(project, images))
    assert all(split[:3] == path[:3] for path, split in splits.items())


def test_an_image_in_two_given_splits_is_refused(project: Path, tmp_path: Path) -> None:
    images = tmp_path / "images"
    for number, split in enumerate(("train", "test")):
        write_images(images / split, {"cat": 30, "dog": 30}, size=(10, 10 + number))
    shutil.copy(images / "train/dog/003.png", images / "test/dog/leak.png")
    with pytest.raises(
        InputError, match=r"is the same picture as test/dog/leak\.png of split test"
    ):
        prepare_folder(project, images)


def test_a_suggested_split_seed_works(project: Path, tmp_path: Path) -> None:
    images = tmp_path / "images"
    write_images(images, {"cat": 40, "few": 4})
    with pytest.raises(InputError) as caught:
        prepare_folder(project, images, split_seed=3)
    seed = str(caught.value).partition("split_seed=")[2].partition(",")[0]
    splits = prepare_folder(project, images, split_seed=seed)
    assert all(set(data.labels) == {0, 1} for data in splits.values())


def test_a_leak_can_be_dropped_and_stays_in_test(project: Path, tmp_path: Path) -> None:
    images = tmp_path / "images"
    for number, split in enumerate(("train", "val", "test")):
        write_images(images / split, {"cat": 30, "dog": 30}, size=(10, 10 + number))
    shutil.copy(images / "train/dog/003.png", images / "test/dog/leak.png")
    shutil.copy(images / "train/dog/004.png", images / "val/cat/leak.png")
    with pytest.raises(
        InputError, match=r"1 more such sample, see .*report\.json; prepare\.on_leak"
    ):
        prepare_folder(project, images)
    kept = json.loads((project / ".cache/prepare/report.json").read_text())
    splits = by_path(prepare_folder(project, images, on_leak="drop"))
    assert set(splits) == {
        path.relative_to(images).as_posix()
        for path in images.rglob("*.png")
        if path.relative_to(images).as_posix() not in ("train/dog/003.png", "train/dog/004.png")
    }
    assert (splits["test/dog/leak.png"], splits["val/cat/leak.png"]) == ("test", "val")
    report = json.loads((project / "data/prepared/report.json").read_text())
    assert report["leaks"] == kept["leaks"]
    assert [case["path"] for case in report["leaks"]["first"]] == [
        "train/dog/003.png",
        "train/dog/004.png",
    ]


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"synthetic_pictures": 2}, "of which there are 2 for 3 splits, or remove the class"),
        ({"source": "digits", "val_share": 0.0001}, "add samples of it, or remove the class"),
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
    images = tmp_path / "images"
    write_images(images, {"cat": 20, "dog": 20})
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
    given = {"split_seed": 0, "val_share": 0.2, "test_share": 0.2, **values}
    for split, data in splits.items():
        found = {
            split_of(content, given["split_seed"], given["val_share"], given["test_share"])
            for content in data.sha256
        }
        assert found == {split}
    assert by_path(splits) != before
