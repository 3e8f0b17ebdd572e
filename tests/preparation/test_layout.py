"""Folders that are no class folders: splits by other names, wrappers, archives, tables, arrays."""

import io
import re
import shutil
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from src.plumbing.errors import InputError
from src.preparation.sources.base import splits_in
from tests.conftest import packed, set_params
from tests.preparation.image_folders import (
    by_path,
    prepare_folder,
    report,
    write_images,
    write_splits,
)

PAIR = {"cat": 12, "dog": 12}


def line_of(project: Path, images: Path, **values: object) -> str:
    """What `prepare` refuses the folder with."""
    with pytest.raises(InputError) as caught:
        prepare_folder(project, images, on_bad="skip", **values)
    line = str(caught.value)
    assert "\n" not in line
    assert not (project / "data/prepared").exists()
    return line


@pytest.mark.parametrize(
    "names",
    [
        {"Training": "train", "Testing": "test"},  # the example
        {"TRAIN": "train", "Dev": "val", "testing": "test"},
        {"training": "train", "validate": "val", "Test": "test"},
    ],
    ids="-".join,
)
def test_split_folders_by_other_names_are_splits(
    project: Path, tmp_path: Path, names: dict[str, str]
) -> None:
    images = write_splits(tmp_path / "images", list(names), 20)
    splits = prepare_folder(project, images)
    assert splits["train"].meta["classes"] == ["cat", "dog"]
    for path, split in by_path(splits).items():
        given = names[path.split("/")[0]]
        assert split == given or (given == "train" and split == "val" and "val" not in names)
    assert report(project)["given_splits"] == sorted(names.values())


@pytest.mark.parametrize(
    ("folders", "words"),
    [
        # The kind of the example: names that are not known.
        (["first/cat", "first/dog", "second/cat", "second/dog"], "rename splits to train, val"),
        # Relatives: people or folds on top; a class that one split lacks.
        ([f"patient{n}/{c}" for n in range(4) for c in ("ill", "well")], "hold the same folders"),
        (["a/cat", "a/cow", "a/dog", "b/cat", "b/dog"], "hold the same folders"),
        # Splits below the classes.
        (["cat/train", "cat/test", "dog/train", "dog/test"], "put those on top, as train/cat"),
        # A word of the name says the split; samples lie flat, or one folder deeper.
        (["train_images", "test_images"], "named like splits"),
        (["seg_train/seg_train/cat", "seg_train/seg_train/dog", "seg_test/seg_test/cat"], "named"),
        # The same tree once more.
        (["cat", "dog", "all/cat", "all/dog"], "all holds folders of the same names as those"),
    ],
)
def test_splits_people_and_copies_are_not_taken_for_classes(
    project: Path, tmp_path: Path, folders: list[str], words: str
) -> None:
    images = write_images(tmp_path / "images", dict.fromkeys(folders, 12))
    assert words in line_of(project, images)


@pytest.mark.parametrize(
    ("folders", "remark"),
    [
        (["n01/images", "n02/images"], False),  # each class with one folder of the same name
        (["animal/cat", "animal/dog", "tool/saw"], True),  # a tree of classes
        (["cat/2020", "cat/2021", "dog"], True),
        (["train station", "harbour", "airport"], False),  # one name of three
    ],
)
def test_class_folders_with_folders_in_them_stay_classes(
    project: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    folders: list[str],
    remark: bool,
) -> None:
    images = write_images(tmp_path / "images", dict.fromkeys(folders, 30))
    data = prepare_folder(project, images)["train"]
    assert data.meta["classes"] == sorted({name.split("/")[0] for name in folders})
    assert ("folders below a class folder make no classes" in capsys.readouterr().out) == remark


@pytest.mark.parametrize(
    ("name", "splits"),
    [
        ("train", {"train"}),
        ("TestSet", {"test"}),
        ("imagenet-val-000007.tar", {"val"}),
        ("train-00000-of-00002.parquet", {"train"}),
        ("trainset", {"train"}),
        ("training_and_validation", {"train", "val"}),
        ("strain", set()),
        ("contest", set()),
        ("device", set()),
    ],
)
def test_the_splits_in_a_name(name: str, splits: set[str]) -> None:
    assert splits_in(name) == splits


def test_a_test_folder_without_classes_is_named_as_such(project: Path, tmp_path: Path) -> None:
    images = write_splits(tmp_path / "images", ("train",), 20)
    write_images(images, {"test": 7})
    line = line_of(project, images)
    assert (
        f"{images}/test has no class folders, so nothing says the classes of its 7 samples" in line
    )
    assert "src.predict" in line


def flat(root: Path) -> None:
    write_images(root.parent, {root.name: 9})


def wrapper(*names: str) -> Callable[[Path], None]:
    return lambda root: void(write_images(root.joinpath(*names), PAIR))


def with_file(name: str, content: bytes = b"x") -> Callable[[Path], None]:
    def write(root: Path) -> None:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)

    return write


def void(_: object) -> None:
    pass


def packed_into(name: str) -> Callable[[Path], None]:
    """Class folders, in an archive alone."""

    def write(root: Path) -> None:
        images = write_images(root.parent / "unpacked", PAIR)
        root.mkdir()
        form = {"zip": "zip", "tar": "tar", "tgz": "gztar"}[name.split(".")[-1]]
        made = shutil.make_archive(str(root.parent / "archive"), form, images)
        shutil.move(made, root / name)

    return write


def shard(root: Path) -> None:
    root.mkdir()
    with tarfile.open(root / "000000.tar", "w") as tar:
        for number in range(4):
            for ending in ("jpg", "cls"):
                tar.addfile(tarfile.TarInfo(f"{number}.{ending}"), io.BytesIO())


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (wrapper("Dataset"), "{root}/Dataset: set prepare.path={root}/Dataset"),  # examples
        (flat, "9 samples of no class lie in {root} itself: put those of each class into"),
        (packed_into("images.zip"), "python -m zipfile -e {root}/images.zip {root}/images`"),
        (packed_into("images.tar"), "tar -xf {root}/images.tar -C {root}/images`"),
        (
            with_file("data/train-0.parquet"),
            "train-0.parquet lies there: set prepare.source=parquet",
        ),
        (with_file("x_train.npy"), "x_train.npy lies there: for arrays write own"),
        (shard, "000000.tar lies there: it is a WebDataset shard: set prepare.source=webdataset"),
        # Relatives that were not named.
        (wrapper("a", "b", "c"), "{root}/a/b/c: set prepare.path={root}/a/b/c"),
        (wrapper("Dataset", "train"), "set prepare.path={root}/Dataset/train"),
        (packed_into("images.tgz"), "tar -xf {root}/images.tgz"),
        (with_file("data-00000-of-00001.arrow"), "save it as Parquet with datasets.load_from_disk"),
        (packed_into("cat.zip"), "{root}/cat.zip {root}/cat`, and move it away"),
        (with_file("images.7z"), "unpack it into {root}/images, and move it away"),
        (with_file("train-images-idx3-ubyte.gz"), "set prepare.source=torchvision:MNIST"),
        (with_file("pixels.csv"), "for arrays write own_source"),
        (with_file("notes.txt"), "of its files (.txt) none is a sample by its name"),
        (lambda root: root.mkdir(), "found 0; there is no file in it"),
        (lambda root: void(write_images(root, {"cat": 5})), "at least two; found 1"),
    ],
)
def test_what_lies_there_is_named_with_the_way_out(
    project: Path, tmp_path: Path, make: Callable[[Path], None], words: str
) -> None:
    root = tmp_path / "raw"
    make(root)
    line = line_of(project, root)
    assert f"{root} must hold one folder per class, at least two; found " in line
    assert words.format(root=root) in line


def test_images_beside_their_table(project: Path, tmp_path: Path) -> None:
    root = write_images(tmp_path / "raw", {"images": 9})
    (root / "labels.csv").write_text("id,label\n")
    said = "set prepare.source=csv and prepare.csv_file=labels.csv"
    assert said in line_of(project, root)


def test_a_wrapper_in_a_split_folder(project: Path, tmp_path: Path) -> None:
    root = tmp_path / "raw"
    for split in ("train", "test"):
        write_images(root / split / split, PAIR)
    line = line_of(project, root)
    assert f"{root}/train must hold one folder per class" in line
    assert f"lie in {root}/train/train: move them up into {root}/train" in line


@pytest.mark.parametrize("name", ["my images.zip", "my images.tar"])
@pytest.mark.parametrize("alone", [False, True])
def test_the_command_for_an_archive_works(
    project: Path, tmp_path: Path, name: str, alone: bool
) -> None:
    """As it is printed; also where prepare.path names the archive itself."""
    root = tmp_path / "raw"
    packed_into(name)(root)
    if alone:
        set_params(project, source="folder", path=root / name)
        with pytest.raises(InputError) as caught:
            packed(project)
        line = str(caught.value)
    else:
        line = line_of(project, root)
    (command,) = re.findall("`(.*?)`", line)
    subprocess.run(["bash", "-c", command], check=True)
    classes = prepare_folder(project, root / "my images", on_bad="fail")["train"].meta["classes"]
    assert classes == sorted(PAIR)


def test_samples_beside_class_folders_stop_or_are_listed(project: Path, tmp_path: Path) -> None:
    """A relative of endings that are not read: on_bad=fail lost these, too."""
    images = write_images(tmp_path / "images", {"cat": 30, "dog": 30})
    shutil.move(images / "dog/000.png", images / "new.png")
    words = r"new\.png cannot be used: it lies in no class folder"
    with pytest.raises(InputError, match=words):
        prepare_folder(project, images)
    assert len(by_path(prepare_folder(project, images, on_bad="skip"))) == 59
    assert report(project)["rejects"]["count"] == 1


def test_other_files_are_named_by_their_endings(
    project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = write_images(tmp_path / "images", {"cat": 30, "dog": 30})
    for name in ("cat/a.xml", "dog/b.xml", "cat/c.txt", "dog/no ending"):
        (images / name).write_text("x")
    prepare_folder(project, images)
    said = "4 files were left out, by name no sample (.xml: 2, .txt: 1, no ending: 1)"
    assert said in capsys.readouterr().out


def test_an_archive_beside_the_classes_is_named(
    project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It may be one of them, or a split."""
    images = write_images(tmp_path / "images", {"cat": 30, "dog": 30})
    (images / "bird.zip").write_bytes(b"PK")
    prepare_folder(project, images)
    assert "1 archive was not looked into: unpack what belongs to" in capsys.readouterr().out
