"""Sources, splits and the packed format."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from src.data.packed import PackedSplit
from src.data.split import split_of
from src.images.fit import fit_picture
from src.plumbing.errors import InputError
from src.preparation.sources.shapes import CLASS_NAMES, draw_shape
from src.subset import balanced_choice
from tests.conftest import packed, set_params


def write_pictures(root: Path, counts: dict[str, int], size: tuple[int, int] = (20, 14)) -> None:
    """`counts[class]` different PNG pictures per class folder."""
    rng = np.random.default_rng(0)
    for name, count in counts.items():
        (root / name).mkdir(parents=True)
        for number in range(count):
            pixels = rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / name / f"{number:03d}.png")


def prepare_folder(project: Path, pictures: Path, **values: object) -> dict[str, PackedSplit]:
    set_params(project, source="folder", path=pictures, **values)
    return packed(project)


def by_path(splits: dict[str, PackedSplit]) -> dict[str, str]:
    return {path: split for split, data in splits.items() for path in data.paths}


def test_adding_and_renaming_moves_no_picture(project: Path, tmp_path: Path) -> None:
    pictures = tmp_path / "pictures"
    write_pictures(pictures, {"cat": 40, "dog": 40})
    before = by_path(prepare_folder(project, pictures))
    rng = np.random.default_rng(7)
    for number in range(8):
        pixels = rng.integers(0, 256, (9, 9, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(pictures / "cat" / f"0new{number}.png")
    (pictures / "dog/000.png").rename(pictures / "dog/zzz.png")
    after = by_path(prepare_folder(project, pictures))
    assert len(after) == 88
    assert after.pop("dog/zzz.png") == before.pop("dog/000.png")
    assert {path: after[path] for path in before} == before


def test_split_shares_and_seed() -> None:
    names = [f"{number:064x}" for number in range(20000)]
    splits = [split_of(name, 0, 0.2, 0.1) for name in names]
    assert splits.count("val") / 20000 == pytest.approx(0.2, abs=0.01)
    assert splits.count("test") / 20000 == pytest.approx(0.1, abs=0.01)
    other_val = [split_of(name, 0, 0.4, 0.1) for name in names]
    assert [s == "test" for s in splits] == [s == "test" for s in other_val]
    assert splits != [split_of(name, 1, 0.2, 0.1) for name in names]


def test_identical_pictures_share_a_split_and_are_counted(project: Path, tmp_path: Path) -> None:
    pictures = tmp_path / "pictures"
    write_pictures(pictures, {"cat": 30, "dog": 30})
    for number in range(10):
        original = (pictures / f"cat/{number:03d}.png").read_bytes()
        (pictures / f"cat/copy{number}.png").write_bytes(original)
    splits = by_path(prepare_folder(project, pictures))
    assert all(splits[f"cat/{n:03d}.png"] == splits[f"cat/copy{n}.png"] for n in range(10))
    report = json.loads((project / "data/prepared/report.json").read_text())
    assert report["identical_pictures"] == 10


def test_given_splits_are_kept_and_missing_ones_come_from_train(
    project: Path, tmp_path: Path
) -> None:
    pictures = tmp_path / "pictures"
    for split, count in (("train", 40), ("test", 6)):
        write_pictures(pictures / split, {"cat": count, "dog": count}, size=(10, 10 + count))
    splits = by_path(prepare_folder(project, pictures))
    assert {splits[path] for path in splits if path.startswith("test/")} == {"test"}
    from_train = {splits[path] for path in splits if path.startswith("train/")}
    assert from_train == {"train", "val"}  # test is given: nothing else comes into it


def test_three_given_splits_stay_as_they_are(project: Path, tmp_path: Path) -> None:
    pictures = tmp_path / "pictures"
    for number, split in enumerate(("train", "valid", "test")):
        write_pictures(pictures / split, {"cat": 5, "dog": 5}, size=(10, 10 + number))
    splits = by_path(prepare_folder(project, pictures))
    assert all(split[:3] == path[:3] for path, split in splits.items())


def test_a_picture_in_two_given_splits_is_refused(project: Path, tmp_path: Path) -> None:
    pictures = tmp_path / "pictures"
    for number, split in enumerate(("train", "test")):
        write_pictures(pictures / split, {"cat": 30, "dog": 30}, size=(10, 10 + number))
    shutil.copy(pictures / "train/dog/003.png", pictures / "test/dog/leak.png")
    with pytest.raises(
        InputError, match=r"is the same picture as test/dog/leak\.png of split test"
    ):
        prepare_folder(project, pictures)


@pytest.mark.parametrize(
    ("folders", "named", "others"),
    [(("train", "test", "misc"), "misc", "train"), (("Train", "misc", "extra"), "extra", "misc"),
     (("train", "__MACOSX"), "__MACOSX", "train"), (("cat", "test"), "test", "cat"),
     (("cat", "dog", "Val", "test"), "Val", "test")],
)  # fmt: skip
def test_split_folders_beside_others_are_refused(
    project: Path, tmp_path: Path, folders: tuple[str, ...], named: str, others: str
) -> None:
    pictures = tmp_path / "pictures"
    for name in folders:
        write_pictures(pictures / name, {"cat": 30, "dog": 30})
    with pytest.raises(InputError) as caught:
        prepare_folder(project, pictures)
    line = str(caught.value)
    assert named in line
    assert others in line
    assert "\n" not in line
    assert ("move" in line) == ("train" in [name.lower() for name in folders])
    assert "rename" in line
    assert not (project / "data/prepared").exists()


def test_hidden_folders_beside_split_folders_are_ignored(project: Path, tmp_path: Path) -> None:
    pictures = tmp_path / "pictures"
    write_pictures(pictures / "train", {"cat": 30, "dog": 30})
    write_pictures(pictures / ".thumbnails", {"cat": 3})
    splits = prepare_folder(project, pictures)
    assert splits["train"].meta["classes"] == ["cat", "dog"]
    assert sum(map(len, splits.values())) == 60


@pytest.mark.parametrize(
    "name",
    [
        b"cat/caf\xe9.png",
        b"caf\xe9/000.png",
        b"caf\xe9/x.txt",
        b"dog/\xff/000.png",
        b"cat/a\rb.png",
    ],
)
def test_names_that_no_table_can_hold_are_named(project: Path, tmp_path: Path, name: bytes) -> None:
    pictures = tmp_path / "pictures"
    write_pictures(pictures, {"cat": 20, "dog": 20})
    odd = Path(os.fsdecode(os.fsencode(pictures) + b"/" + name))
    try:
        odd.parent.mkdir(exist_ok=True)
        shutil.copy(pictures / "cat/000.png", odd)
    except OSError:
        pytest.skip("this file system takes UTF-8 alone")
    with pytest.raises(InputError) as caught:
        prepare_folder(project, pictures)
    line = str(caught.value)
    line.encode("utf-8")
    assert any(byte in name and repr(byte)[2:-1] in line for byte in (b"\xe9", b"\xff", b"\r"))
    assert "rename it" in line


def test_odd_names_come_back_as_they_are(project: Path, tmp_path: Path) -> None:
    pictures = tmp_path / "pictures"
    classes = ["$a$", 'comma, "quoted"', "line\nbreak", "猫"]
    write_pictures(pictures, dict.fromkeys(classes, 30))
    odd = ["a,b.png", "a\nb.png", 'a"b.png', " a.png", "é.png", "x" * 200 + ".png"]
    for number, name in enumerate(odd):
        (pictures / "$a$" / f"{number:03d}.png").rename(pictures / "$a$" / name)
    splits = prepare_folder(project, pictures)
    there = {
        path.relative_to(pictures).as_posix() for path in pictures.rglob("*") if path.is_file()
    }
    assert set(by_path(splits)) == there
    assert all(
        data.meta["classes"][label] == path.split("/")[0]
        for data in splits.values()
        for label, path in zip(data.labels, data.paths, strict=True)
    )


def test_files_that_are_no_pictures_are_counted(
    project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pictures = tmp_path / "pictures"
    write_pictures(pictures, {"cat": 30, "dog": 30})
    (pictures / "cat/README.txt").write_text("not a picture")
    prepare_folder(project, pictures)
    assert "1 file was left out" in capsys.readouterr().out


@pytest.mark.parametrize("channels", [1, 3])
def test_pixels_arrive_as_they_were(project: Path, tmp_path: Path, channels: int) -> None:
    pictures = tmp_path / "pictures"
    write_pictures(pictures, {"cat": 20, "dog": 20}, size=(16, 16))
    splits = prepare_folder(project, pictures, channels=channels)
    for data in splits.values():
        for index, path in enumerate(data.paths):
            mode = "RGB" if channels == 3 else "L"
            expected = np.asarray(Image.open(pictures / path).convert(mode)).reshape(16, 16, -1)
            assert np.array_equal(data.pictures([index])[0], expected)
            assert data.meta["classes"][data.labels[index]] == path.split("/")[0]


def test_mean_and_std_are_those_of_the_training_pixels(project: Path) -> None:
    train = packed(project)["train"]
    pixels = train.pictures(np.arange(len(train))).reshape(-1, 3) / 255
    assert train.meta["mean"] == pytest.approx(pixels.mean(axis=0), rel=1e-5)
    assert train.meta["std"] == pytest.approx(pixels.std(axis=0), rel=1e-5)


def test_shards_are_limited_and_read_as_one(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = packed(project)["train"]
    monkeypatch.setattr("src.data.writer.SHARD_BYTES", 7 * 16 * 16 * 3 + 5)  # seven pictures
    shards = packed(project)["train"]
    assert len(shards.meta["shards"]["train"]) == -(-len(whole) // 7)
    indices = np.random.default_rng(0).permutation(len(whole))
    assert np.array_equal(shards.pictures(indices), whole.pictures(indices))


@pytest.mark.parametrize(
    ("fit", "left", "middle"), [("crop", 255, 255), ("pad", 0, 255), ("squash", 255, 255)]
)
def test_fit(fit: str, left: int, middle: int) -> None:
    tall = Image.new("L", (20, 60), 255)
    pixels = fit_picture(tall, 30, 1, fit)
    assert pixels.shape == (30, 30, 1)
    assert pixels[15, 0, 0] == left
    assert pixels[15, 15, 0] == middle


def test_broken_picture_is_named(project: Path, tmp_path: Path) -> None:
    pictures = tmp_path / "pictures"
    write_pictures(pictures, {"cat": 20, "dog": 20}, size=(64, 64))
    broken = pictures / "dog/005.png"
    broken.write_bytes(broken.read_bytes()[:500])
    with pytest.raises(InputError, match=r"dog/005\.png cannot be used: it is cut short"):
        prepare_folder(project, pictures)
    assert not (project / "data/prepared").exists()


@pytest.mark.parametrize(
    ("counts", "words"),
    [({}, "at least two; found 0"), ({"only": 9}, "at least two; found 1"),
     ({"cat": 40, "rare": 1}, "no picture of class rare in split"),
     ({"cat": 40, "few": 4}, "set prepare.split_seed=")],
)  # fmt: skip
def test_folders_that_cannot_work_say_so(
    project: Path, tmp_path: Path, counts: dict[str, int], words: str
) -> None:
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    write_pictures(pictures, counts)
    with pytest.raises(InputError) as caught:
        prepare_folder(project, pictures, split_seed=3)
    assert words in str(caught.value)


def test_a_suggested_split_seed_works(project: Path, tmp_path: Path) -> None:
    pictures = tmp_path / "pictures"
    write_pictures(pictures, {"cat": 40, "few": 4})
    with pytest.raises(InputError) as caught:
        prepare_folder(project, pictures, split_seed=3)
    seed = str(caught.value).partition("split_seed=")[2].partition(",")[0]
    splits = prepare_folder(project, pictures, split_seed=seed)
    assert all(set(data.labels) == {0, 1} for data in splits.values())


def test_a_leak_can_be_dropped_and_stays_in_test(project: Path, tmp_path: Path) -> None:
    pictures = tmp_path / "pictures"
    for number, split in enumerate(("train", "val", "test")):
        write_pictures(pictures / split, {"cat": 30, "dog": 30}, size=(10, 10 + number))
    shutil.copy(pictures / "train/dog/003.png", pictures / "test/dog/leak.png")
    shutil.copy(pictures / "train/dog/004.png", pictures / "val/cat/leak.png")
    with pytest.raises(
        InputError, match=r"1 more such picture, see .*report\.json; prepare\.on_leak"
    ):
        prepare_folder(project, pictures)
    kept = json.loads((project / ".cache/prepare/report.json").read_text())
    splits = by_path(prepare_folder(project, pictures, on_leak="drop"))
    assert set(splits) == {
        path.relative_to(pictures).as_posix()
        for path in pictures.rglob("*.png")
        if path.relative_to(pictures).as_posix() not in ("train/dog/003.png", "train/dog/004.png")
    }
    assert (splits["test/dog/leak.png"], splits["val/cat/leak.png"]) == ("test", "val")
    report = json.loads((project / "data/prepared/report.json").read_text())
    assert report["leaks"] == kept["leaks"]
    assert [case["path"] for case in report["leaks"]["first"]] == [
        "train/dog/003.png", "train/dog/004.png"
    ]  # fmt: skip


def test_folder_source_needs_a_folder(project: Path) -> None:
    set_params(project, source="folder")
    with pytest.raises(InputError, match=r"prepare\.path must be a folder of class folders"):
        packed(project)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"synthetic_pictures": 2}, "of which there are 2 for 3 splits, or remove the class"),
        ({"source": "digits", "val_share": 0.0001}, "add pictures of it, or remove the class"),
    ],
)
def test_too_few_pictures_for_the_splits_are_told_in_a_line(
    project: Path, values: dict[str, object], words: str
) -> None:
    set_params(project, **values)
    with pytest.raises(InputError, match=r"prepare: no picture of class .* in split ") as caught:
        packed(project)
    assert str(caught.value).endswith(words)


def test_shapes_are_fixed_and_differ() -> None:
    assert len(set(CLASS_NAMES)) == 48
    pictures = {label: np.asarray(draw_shape(label, 0, 24)) for label in range(48)}
    assert np.array_equal(pictures[5], np.asarray(draw_shape(5, 0, 24)))
    assert not np.array_equal(pictures[5], np.asarray(draw_shape(5, 1, 24)))
    assert len({picture.tobytes() for picture in pictures.values()}) == 48


def test_subset_is_balanced_and_stable(finished: tuple[Path, object]) -> None:
    full = PackedSplit(finished[0] / "data/prepared", "train")
    chosen = balanced_choice(full, 9, seed=0)
    assert np.bincount(full.labels[chosen]).tolist() == [9, 9, 9]
    assert chosen == sorted(set(chosen))
    assert balanced_choice(full, 9, seed=1) != chosen
    assert set(balanced_choice(full, 5, seed=0)) < set(chosen)
    rarest = int(np.bincount(full.labels).min())
    assert np.bincount(full.labels[balanced_choice(full, 999, 0)]).tolist() == [rarest] * 3


def test_a_class_that_val_lacks_does_not_empty_the_subset(finished: tuple[Path, object]) -> None:
    full = PackedSplit(finished[0] / "data/prepared", "val")
    full.labels = np.where(full.labels == 1, 0, full.labels)
    chosen = balanced_choice(full, 5, seed=0)
    assert np.bincount(full.labels[chosen]).tolist() == [5, 0, 5]


def test_subset_keeps_the_statistics_of_the_full_data(finished: tuple[Path, object]) -> None:
    full = PackedSplit(finished[0] / "data/prepared", "train")
    small = PackedSplit(finished[0] / "data/subset", "train")
    assert (small.meta["mean"], small.meta["std"]) == (full.meta["mean"], full.meta["std"])
    assert set(small.sha256) <= set(full.sha256)
    number = full.sha256.index(small.sha256[4])
    assert np.array_equal(small.pictures([4]), full.pictures([number]))


def test_an_error_leaves_the_old_data_in_place(copied: Path, tmp_path: Path) -> None:
    prepared = copied / "data/prepared"

    def state() -> list[tuple[str, bytes]]:
        return sorted((path.name, path.read_bytes()) for path in prepared.iterdir())

    before = state()
    pictures = tmp_path / "pictures"
    write_pictures(pictures, {"cat": 20, "dog": 20})
    (pictures / "dog/019.png").write_bytes(b"broken")
    with pytest.raises(InputError, match=r"dog/019\.png"):
        prepare_folder(copied, pictures)
    assert state() == before
    assert [path.name for path in (copied / "data").iterdir() if "partial" in path.name] == []
