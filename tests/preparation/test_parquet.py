"""Samples in Parquet files as Hugging Face's `datasets` writes them."""

import hashlib
import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from src.base.imports import ROOT
from src.data.packed import PackedSplit
from src.plumbing.errors import InputError
from tests.conftest import packed, set_params
from tests.preparation.image_folders import by_path, read_csv, report

NAMES = ["zebra", "ant", "no sample"]


def encoded(number: int, form: str = "PNG") -> bytes:
    """Different for each number."""
    rng = np.random.default_rng(number)
    buffer = io.BytesIO()
    Image.fromarray(rng.integers(0, 256, (12, 12, 3), dtype=np.uint8)).save(buffer, form)
    return buffer.getvalue()


def table(start: int, count: int, names: list[str] | None = None, **columns: Any) -> pa.Table:
    """Rows of images with labels 0, 1, 0, ...; `names` go into the metadata."""
    numbers = range(start, start + count)
    images = [{"bytes": encoded(n), "path": f"{n}.png"} for n in numbers]
    values = {"image": images, "label": [n % 2 for n in numbers], **columns}
    made = pa.table({name: value for name, value in values.items() if value is not None})
    if names is None:
        return made
    features = {"image": {"_type": "Image"}, "label": {"names": names, "_type": "ClassLabel"}}
    about = json.dumps({"info": {"features": features}})
    return made.replace_schema_metadata({"huggingface": about})


def write(root: Path, **tables: pa.Table) -> Path:
    for name, content in tables.items():
        path = root / "data" / f"{name.replace('_', '-')}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(content, path, row_group_size=10)
    return root


def prepare(project: Path, root: Path, **values: object) -> dict[str, PackedSplit]:
    set_params(project, source="parquet", path=root, **values)
    return packed(project)


def labels(splits: dict[str, PackedSplit]) -> dict[str, str]:
    return {
        path: data.meta["classes"][label]
        for data in splits.values()
        for path, label in zip(data.paths, data.labels, strict=True)
    }


def test_the_files_of_hugging_face(project: Path, tmp_path: Path) -> None:
    """Names from the schema in its order, splits from the names of the files, val by hash."""
    root = write(
        tmp_path,
        train_00000_of_00002=table(0, 60, NAMES),
        train_00001_of_00002=table(60, 60, NAMES),
        test_00000_of_00001=table(200, 30, NAMES),
    )
    splits = prepare(project, root, prepare_workers=2)
    assert splits["train"].meta["classes"] == ["zebra", "ant"]
    assert len(splits["test"]) == 30
    assert len(splits["train"]) + len(splits["val"]) == 120
    assert min(map(len, splits.values())) > 5
    found = labels(splits)
    assert found["data/train-00001-of-00002.parquet/0000003"] == "ant"  # number 63
    contents = {
        path: sha
        for data in splits.values()
        for path, sha in zip(data.paths, data.sha256, strict=True)
    }
    expected = hashlib.sha256(encoded(63)).hexdigest()
    assert contents["data/train-00001-of-00002.parquet/0000003"] == expected
    assert all(path.startswith("data/test-") for path in splits["test"].paths)
    assert report(project)["given_splits"] == ["test", "train"]


@pytest.mark.parametrize(
    ("label", "classes"),
    [
        ([str(n % 12) for n in range(144)], [str(n) for n in range(12)]),
        ([n % 12 for n in range(144)], [str(n) for n in range(12)]),
        (["b" if n % 2 else "a" for n in range(144)], ["a", "b"]),
        ([bool(n % 2) for n in range(144)], ["False", "True"]),
        (pa.array(["b" if n % 2 else "a" for n in range(144)]).dictionary_encode(), ["a", "b"]),
    ],
    ids=["texts of numbers", "numbers", "texts", "truth", "categories"],
)
def test_labels_without_names(
    project: Path, tmp_path: Path, label: Any, classes: list[str]
) -> None:
    root = write(tmp_path, all=table(0, 144, label=label))
    assert prepare(project, root, on_bad="skip")["train"].meta["classes"] == classes


def test_bytes_in_a_column_of_their_own_with_splits_and_groups(
    project: Path, tmp_path: Path
) -> None:
    """Not of Hugging Face: as pandas writes them."""
    parts = ["Training"] * 60 + ["dev"] * 20 + ["test"] * 20
    content = table(
        0,
        100,
        image=[encoded(n) for n in range(100)],
        part=parts,
        person=[f"p{n // 4}" for n in range(100)],
    )
    keys = {"csv_split_column": "part", "csv_group_column": "person"}
    splits = prepare(project, write(tmp_path, photos=content), **keys)
    assert {name: len(data) for name, data in splits.items()} == {
        "train": 60,
        "val": 20,
        "test": 20,
    }
    assert report(project)["given_splits"] == ["test", "train", "val"]
    keys["csv_split_column"] = "none"
    by_hash = by_path(prepare(project, tmp_path, **keys))
    for start in range(0, 100, 4):
        group = {by_hash[f"data/photos.parquet/{n:07d}"] for n in range(start, start + 4)}
        assert len(group) == 1


def test_rows_that_cannot_be_used(project: Path, tmp_path: Path) -> None:
    content = table(0, 100, NAMES).to_pydict()
    content["image"][3] = {"bytes": None, "path": "/home/me/3.png"}
    content["image"][4] = {"bytes": b"no image", "path": None}
    content["image"][5] = None
    content["label"][6], content["label"][7], content["label"][8] = None, -1, 99
    made = pa.table(content).replace_schema_metadata(table(0, 1, NAMES).schema.metadata)
    root = write(tmp_path, all=made)
    with pytest.raises(InputError, match=r"0000003 cannot be used: its row has no bytes.*; 5 more"):
        prepare(project, root)
    assert len(by_path(prepare(project, root, on_bad="skip"))) == 94
    reasons = {
        row["path"][-1]: row["reason"][:15]
        for row in read_csv(project / "data/prepared/rejects.csv")
    }
    no_class = dict.fromkeys("678", "its row has no ")
    assert reasons == {
        "3": "its row has no ",
        "4": "it holds no ima",
        "5": "its row has no ",
        **no_class,
    }


@pytest.mark.parametrize(
    ("columns", "keys", "words"),
    [
        ({"label": None, "fine_label": [0, 1]}, {}, "has no column label (prepare.csv_label_col"),
        ({"image": ["a.png", "b.png"]}, {}, "a column with the bytes of files, and has none"),
        ({"mask": [b"x", b"y"]}, {}, "several (image, mask): set prepare.csv_path_column to one"),
        ({"label": [[0, 1], [1]]}, {}, "several labels a sample (multi-label)"),
        ({"label": [0.25, 0.5]}, {}, "a quantity (regression)"),
        ({"label": [0, 0]}, {}, "must name at least two classes, found 1"),
        ({}, {"csv_split_column": "part"}, "has no column part (prepare.csv_split_column)"),
        ({"part": ["test", "val"]}, {"csv_split_column": "part"}, "no row of column part says tr"),
    ],
)
def test_tables_that_cannot_work_say_so(
    project: Path, tmp_path: Path, columns: dict[str, Any], keys: dict[str, str], words: str
) -> None:
    root = write(tmp_path, all=table(0, 2, **columns))
    with pytest.raises(InputError) as caught:
        prepare(project, root, **keys)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_one_of_several_columns_with_files(project: Path, tmp_path: Path) -> None:
    root = write(tmp_path, all=table(0, 60, mask=[b"x"] * 60))
    assert len(by_path(prepare(project, root, csv_path_column="image"))) == 60


def test_files_that_do_not_belong_together(project: Path, tmp_path: Path) -> None:
    root = write(tmp_path, train=table(0, 9, NAMES), test=table(9, 9, ["ant", "zebra"]))
    with pytest.raises(InputError, match="has other columns or classes than"):
        prepare(project, root)
    root = write(tmp_path / "more", train=table(0, 9), more=table(9, 9))
    with pytest.raises(InputError, match=r"say train, and data/more\.parquet says none"):
        prepare(project, root)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"version https://git-lfs.github.com/spec/v1\n", "is a pointer of git LFS"),
        (b"PAR1 and no more", "cannot be read as Parquet"),
        (b"", "cannot be read as Parquet"),
    ],
)
def test_damaged_files_are_one_line(
    project: Path, tmp_path: Path, content: bytes, words: str
) -> None:
    (tmp_path / "all.parquet").write_bytes(content)
    with pytest.raises(InputError, match=words) as caught:
        prepare(project, tmp_path)
    assert "\n" not in str(caught.value)


def test_a_damaged_page_is_one_line(project: Path, tmp_path: Path) -> None:
    root = write(tmp_path, all=table(0, 100))
    path = root / "data/all.parquet"
    content = bytearray(path.read_bytes())
    content[1000:9000] = bytes(8000)
    path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        prepare(project, root)
    assert "\n" not in str(caught.value)


MEMORY = """
import sys
import pyarrow
from src.images.packing import FILES
from src.preparation.sources.parquet import parquet_tables
keys = {"path": "path", "label": "label", "split": "none", "group": "none"}
params = {f"prepare.csv_{key}_column": name for key, name in keys.items()}
source = parquet_tables({"prepare.path": sys.argv[1], **params}, FILES)
print(sum(1 for _ in source.items), pyarrow.default_memory_pool().max_memory())
"""


@pytest.mark.parametrize("how", [{"row_group_size": 50}, {"write_batch_size": 10}], ids=str)
def test_the_images_are_never_all_in_memory(tmp_path: Path, how: dict[str, int]) -> None:
    """Neither those of all row groups nor, where its pages are small, those of one."""
    images = [bytes([number % 250]) * 100_000 for number in range(1000)]
    content = pa.table({"image": images, "label": [0, 1] * 500})
    plain: dict[str, Any] = {"compression": "none", "use_dictionary": False}
    pq.write_table(content, tmp_path / "all.parquet", **plain, **how)
    command = [sys.executable, "-c", MEMORY, str(tmp_path)]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    count, most = map(int, ended.stdout.split())
    assert count == 1000
    assert most < 30 * 2**20  # of 100 MB
