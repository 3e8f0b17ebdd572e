"""Samples in WebDataset shards."""

import hashlib
import io
import json
import os
import tarfile
import tracemalloc
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest

from src.data.packed import PackedSplit
from src.images.packing import FILES
from src.plumbing.errors import InputError
from src.preparation.sources.webdataset import shards
from tests.conftest import packed, set_params
from tests.preparation.image_folders import by_path, read_csv, report
from tests.preparation.test_parquet import encoded, labels

Member = tuple[str, bytes]
LABELLED = ("png", "cls")


def write_shard(path: Path, members: Iterable[Member]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, content in members:
            about = tarfile.TarInfo(name)
            about.size = len(content)
            tar.addfile(about, io.BytesIO(content))
    return path


def samples(start: int, count: int, ending: str = "cls") -> Iterable[Member]:
    """Images of the classes 0, 1, 0, ... with their labels."""
    for number in range(start, start + count):
        label = number % 2
        yield f"{number:04d}.png", encoded(number)
        content = json.dumps({"label": label, "caption": "x"}) if ending == "json" else f"{label}\n"
        yield f"{number:04d}.{ending}", content.encode()


def prepare(project: Path, root: Path, **values: object) -> dict[str, PackedSplit]:
    set_params(project, source="webdataset", path=root, **values)
    return packed(project)


@pytest.mark.parametrize("ending", ["cls", "json"])
def test_shards_with_splits(project: Path, tmp_path: Path, ending: str) -> None:
    """Val comes out of train by hash; workers read what lies in the shards, in their order."""
    root = tmp_path / "raw"
    write_shard(root / "train-000000.tar", samples(0, 60, ending))
    write_shard(root / "train-000001.tar", samples(60, 60, ending))
    write_shard(root / "test-000000.tar", samples(200, 30, ending))
    (root / "README.md").write_text("x")
    splits = prepare(project, root, prepare_workers=2)
    assert splits["train"].meta["classes"] == ["0", "1"]
    assert {path.split("/")[0] for path in splits["test"].paths} == {"test-000000.tar"}
    assert len(splits["test"]) == 30
    assert len(by_path(splits)) == 150
    assert min(map(len, splits.values())) > 5
    for data in splits.values():
        for path, sha256, label in zip(data.paths, data.sha256, data.labels, strict=True):
            number = int(path[-8:-4])
            assert label == number % 2
            assert sha256 == hashlib.sha256(encoded(number)).hexdigest()
    assert report(project)["given_splits"] == ["test", "train"]
    assert report(project)["files_left_out_by_ending"] == {".md": 1}


def test_splits_in_folders_and_names_of_classes(project: Path, tmp_path: Path) -> None:
    """Relatives: folders for splits, names in .cls, members in folders of the shard, numbers of
    more than one digit in order."""

    def named(start: int, count: int) -> Iterable[Member]:
        for number in range(start, start + count):
            yield f"photos/{number}.jpg", encoded(number, "JPEG")
            yield f"photos/{number}.cls", b"hot dog" if number % 2 else b"cat"

    for number, split in enumerate(("train", "val", "test")):
        write_shard(tmp_path / split / "0.tar", named(100 * number, 20))
    splits = prepare(project, tmp_path)
    assert splits["train"].meta["classes"] == ["cat", "hot dog"]
    assert {name: len(data) for name, data in splits.items()} == dict.fromkeys(splits, 20)
    assert labels(splits)["val/0.tar/photos/101.jpg"] == "hot dog"


def test_numbers_of_classes_are_in_order(project: Path, tmp_path: Path) -> None:
    def many() -> Iterable[Member]:
        for number in range(144):
            yield f"{number}.png", encoded(number)
            yield f"{number}.cls", str(number % 12).encode()

    write_shard(tmp_path / "0.tar", many())
    classes = prepare(project, tmp_path, on_bad="skip")["train"].meta["classes"]
    assert classes == [str(number) for number in range(12)]


def test_samples_that_cannot_be_used(project: Path, tmp_path: Path) -> None:
    odd = [
        ("a.png", encoded(900)),
        ("b.png", encoded(901)),
        ("b.cls", b" \n"),
        ("c.cls", b"1"),
        ("d.png", encoded(902)),
        ("d.mask.png", encoded(903)),
        ("d.cls", b"1"),
        ("e.png", b"no image"),
        ("e.cls", b"1"),
        ("f.png", encoded(904)),
        ("f.json", b"{"),
        ("g.png", encoded(905)),
        ("g.cls", b"0"),
        ("g.json", b'{"label": 1}'),
        ("h.png", encoded(906)),
        ("h.json", b'{"label": [0, 1]}'),
        ("k.png", encoded(907)),
        ("k.json", b'{"class": 1, "caption": "x"}'),
        ("i.png", b""),
        ("i.cls", b"0"),
        ("._j.png", b"x"),
        ("notes.txt", b"of the shard, and no sample"),
    ]
    write_shard(tmp_path / "0.tar", [*samples(0, 100), *odd])
    with pytest.raises(
        InputError, match=r"0\.tar/a\.png cannot be used: it has no label.*; 9 more"
    ):
        prepare(project, tmp_path)
    assert len(by_path(prepare(project, tmp_path, on_bad="skip"))) == 100
    reasons = {
        row["path"]: row["reason"] for row in read_csv(project / "data/prepared/rejects.csv")
    }
    assert reasons == {
        "0.tar/a.png": "it has no label in a .cls or .json",
        "0.tar/b.png": "its .cls names no class",
        "0.tar/c": "no sample lies beside its label",
        "0.tar/d.png": "several samples lie beside its label (d.png, d.mask.png)",
        "0.tar/e.png": "it holds no image, or not in a format that is read here",
        "0.tar/f.png": "its .json cannot be read as text",
        "0.tar/g.png": "its .cls and its .json name different classes",
        "0.tar/h.png": "its .json names no class",
        "0.tar/k.png": "its .json does not have the key of the class (not 'label', but 'class', "
        "'caption')",
        "0.tar/i.png": "it is empty",
    }


def test_damaged_shards_are_one_line(project: Path, tmp_path: Path) -> None:
    path = write_shard(tmp_path / "0.tar", samples(0, 60))
    whole = path.read_bytes()
    with tarfile.open(path) as tar:
        middle = tar.getmembers()[60].offset
    for content in (
        whole[: middle + 700],  # cut in a member
        whole[: middle + 100],  # cut in a header
        whole[:middle] + b"x" * 512 + whole[middle + 512 :],
        whole + whole,  # as `cat` makes of two
        b"no tar",
        b"",
    ):
        path.write_bytes(content)
        with pytest.raises(InputError, match="is no tar file, or not whole") as caught:
            prepare(project, tmp_path)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "members", "words"),
    [
        ("0.tgz", [], "holds no .tar file, which prepare.source webdataset reads"),
        ("0.tar", [("a.png", b"")], "found 0; 0.tar/a.png: it has no label in a"),
        ("0.tar", list(samples(0, 1)), "at least two classes, found 1"),
        ("test-0.tar", list(samples(0, 4)), "say test, and none says train"),
        ("0.tar", [*samples(0, 4), *samples(0, 4)], "0000.png comes twice: rename one of the two "
         "in the shard, or remove it"),
        ("0.tar", [("a.png", b""), ("a.json", b'{"cls": 0}')], "found 0; 0.tar/a.png: its .json "
         "does not have the key of the class (not 'label', but 'cls'): set prepare.csv_label_colu"),
        ("0.tar", [("a.png", b""), ("a.seg.png", b""), ("a.cls", b"0")], "(a.png, a.seg.png): "
         "leave out of the shard those that are not to be learnt, such as masks"),
        ("0.tar", [("images/a.png", b""), ("labels/a.cls", b"0")], "images/a.png: it has no label "
         "in a .cls or .json: put them together (0.tar/labels/a has a label for 0.tar/images/a."),
        ("0.tar", sorted(samples(0, 4), key=lambda member: member[0][-3:]), "put them together"),
    ],
)  # fmt: skip
def test_shards_that_cannot_work_say_so(
    project: Path, tmp_path: Path, name: str, members: list[Member], words: str
) -> None:
    write_shard(tmp_path / name, members)
    with pytest.raises(InputError) as caught:
        prepare(project, tmp_path)
    assert words in str(caught.value)


def test_a_name_that_is_not_utf_8(project: Path, tmp_path: Path) -> None:
    odd = [("caf\udce9.png", encoded(900)), ("caf\udce9.cls", b"1")]
    write_shard(tmp_path / "0.tar", [*samples(0, 100), *odd])
    assert len(by_path(prepare(project, tmp_path, on_bad="skip"))) == 100
    (row,) = read_csv(project / "data/prepared/rejects.csv")
    assert (row["path"], row["reason"]) == ("0.tar/caf\\xe9.png", "its name is not UTF-8")


def test_long_names_are_whole(project: Path, tmp_path: Path) -> None:
    """Which take members of their own in a tar file."""
    long = "x" * 150

    def members() -> Iterable[Member]:
        for name, content in samples(0, 100):
            yield f"{long}/{name}", content

    write_shard(tmp_path / "0.tar", members())
    data = prepare(project, tmp_path)["train"]
    assert all(path.startswith(f"0.tar/{long}/") for path in data.paths)
    assert np.array_equal(np.unique(data.labels), [0, 1])


@pytest.mark.parametrize("source", ["webdataset", "parquet"])
def test_what_is_no_file_is_one_line(project: Path, tmp_path: Path, source: str) -> None:
    """A pipe, which would wait for ever, and a link that leads nowhere."""
    set_params(project, source=source, path=tmp_path / "raw")
    path = tmp_path / "raw" / ("0.tar" if source == "webdataset" else "0.parquet")
    path.parent.mkdir()
    for make in (os.mkfifo, lambda link: link.symlink_to("nowhere")):
        make(path)
        with pytest.raises(InputError, match="is no file, or a link that leads nowhere"):
            packed(project)
        path.unlink()


def test_a_shard_takes_no_memory(tmp_path: Path) -> None:
    """Neither its headers, which tarfile keeps, nor its samples."""
    count = 4000
    write_shard(
        tmp_path / "0.tar", ((f"{n}.{e}", b"%d" % (n % 2)) for n in range(count) for e in LABELLED)
    )
    tracemalloc.start()
    source = shards({"prepare.path": str(tmp_path), "prepare.csv_label_column": "label"}, FILES)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert source.total == count
    assert most < 500 * count  # bytes; with the headers 1,100 a sample


def test_a_shard_that_is_cut_where_a_member_begins_is_not_whole(
    project: Path, tmp_path: Path
) -> None:
    path = write_shard(tmp_path / "raw/a.tar", samples(0, 60))
    with tarfile.open(path) as tar:
        end = tar.getmembers()[80].offset
    path.write_bytes(path.read_bytes()[:end])
    with pytest.raises(InputError, match=r"a\.tar is no tar file, or not whole \(the mark of"):
        prepare(project, path.parent)


def test_a_shard_that_is_missing_is_named(project: Path, tmp_path: Path) -> None:
    for name in ("train-00000-of-00003", "train-00002-of-00003"):
        write_shard(tmp_path / f"raw/{name}.tar", samples(int(name[8:10]) * 60, 60))
    with pytest.raises(InputError, match=r"of 3 files train-\.\.\.-of-00003, number 00001 is"):
        prepare(project, tmp_path / "raw")


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (
            ["train-0000", "train-0001", "train-0003", "train-0004"],
            "of train-0000.tar to train-0004.tar, 1 file is not there (first train-0002.tar): put",
        ),
        (
            ["train/9", "train/10", "train/13", "train/14", "train/15"],
            "of train/9.tar to train/15.tar, 2 files are not there (first train/11.tar): put",
        ),
        (["train-1", "train-2"], ""),
        (["train-2023", "train-1999"], ""),
    ],
)
def test_gaps_in_the_numbers_of_shards_are_told(
    project: Path, tmp_path: Path, names: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for number, name in enumerate(names):
        write_shard(tmp_path / f"raw/{name}.tar", samples(40 * number, 40))
    prepare(project, tmp_path / "raw")
    lines = [line for line in capsys.readouterr().out.splitlines() if " not there" in line]
    assert len(lines) == bool(said)
    assert all(said in line for line in lines)
