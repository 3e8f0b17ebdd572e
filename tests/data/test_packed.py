"""A packed data set that is not whole ends in one line that says how to get it back."""

import io
import json
import re
import shutil
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from src.data.packed import PackedSplit
from src.data.writer import SplitWriter
from src.plumbing.errors import InputError
from tests import conftest
from tests.conftest import run_stage

SHARD = "train-images-00000.npy"


@pytest.fixture
def packed(finished: tuple[Path, object], tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished[0] / "data/prepared", tmp_path / "prepared"))


def with_meta(**changes: object) -> Callable[[bytes], bytes]:
    """Sets keys of meta.json; None takes the key out."""

    def change(content: bytes) -> bytes:
        meta = {**json.loads(content), **changes}
        kept = {key: value for key, value in meta.items() if value is not None}
        return json.dumps(kept).encode()

    return change


def zeros(side: int, kind: type[np.generic]) -> Callable[[bytes], bytes]:
    file = io.BytesIO()
    np.save(file, np.zeros((4, side, side, 3), kind))
    return lambda _: file.getvalue()


def first_label(value: bytes) -> Callable[[bytes], bytes]:
    return lambda content: re.sub(rb"(?m)^0,\d+,", b"0," + value + b",", content)


# File, what becomes of its content (None: it is gone), and what the line must name.
DAMAGES: dict[str, tuple[str, Callable[[bytes], bytes] | None, str]] = {
    "no table": ("train.csv", None, "train.csv"),
    "no shard": (SHARD, None, SHARD),
    "shard cut in the pixels": (SHARD, lambda content: content[:5000], SHARD),
    "shard cut in the header": (SHARD, lambda content: content[:40], SHARD),
    "shard empty": (SHARD, lambda _: b"", SHARD),
    "shard of another shape": (SHARD, zeros(8, np.uint8), SHARD),
    "shard of another type": (SHARD, zeros(16, np.float32), SHARD),
    "shard of fewer images": (SHARD, zeros(16, np.uint8), "shards hold 4"),
    "meta cut": ("meta.json", lambda content: content[:30], "meta.json"),
    "meta empty": ("meta.json", lambda _: b"", "meta.json"),
    "meta a list": ("meta.json", lambda _: b"[1]", "meta.json"),
    "meta not text": ("meta.json", lambda _: b"\xff", "meta.json"),
    "meta without classes": ("meta.json", with_meta(classes=None), "classes"),
    "meta without mean": ("meta.json", with_meta(mean=None), "mean"),
    "meta without size": ("meta.json", with_meta(size=None), "size"),
    "meta with a text as size": ("meta.json", with_meta(size="16"), "size"),
    "meta without shards": ("meta.json", with_meta(shards=None), "shards"),
    "meta with a list of shards": ("meta.json", with_meta(shards=[]), "shards"),
    "meta without the split": ("meta.json", with_meta(shards={"val": []}), "train"),
    "meta with a number as shard": ("meta.json", with_meta(shards={"train": [5]}), "train"),
    "table empty": ("train.csv", lambda _: b"", "index"),
    "table of the header alone": ("train.csv", lambda content: content[:24], "train.csv"),
    "table cut in a row": ("train.csv", lambda content: content[:100], "train.csv"),
    "table without a column": ("train.csv", lambda x: x.replace(b"label", b"other"), "label"),
    "table not text": ("train.csv", lambda _: b"\xff", "train.csv"),
    "label not a number": ("train.csv", first_label(b"cat"), "train.csv"),
    "label too large": ("train.csv", first_label(b"3"), "label 3"),
    "label negative": ("train.csv", first_label(b"-1"), "label -1"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_said_in_one_line(packed: Path, damage: str) -> None:
    name, change, words = DAMAGES[damage]
    assert len(PackedSplit(packed, "train")) > 0
    content = (packed / name).read_bytes()
    (packed / name).unlink()
    if change:
        (packed / name).write_bytes(change(content))
    with pytest.raises(InputError) as caught:
        PackedSplit(packed, "train")
    line = str(caught.value)
    assert f"{packed} is incomplete (" in line
    assert words in line
    assert line.endswith("run `dvc repro -f prepare`")
    assert "\n" not in line


def test_a_missing_one_names_its_stage(tmp_path: Path) -> None:
    for name, stage in (("prepared", "prepare"), ("subset", "subset")):
        with pytest.raises(InputError) as caught:
            PackedSplit(tmp_path / name, "train")
        assert str(caught.value).endswith(f"holds no packed data set: run `dvc repro {stage}`")


def test_the_subset_is_made_again_by_its_own_stage(copied: Path) -> None:
    (copied / "data/subset" / SHARD).unlink()
    with pytest.raises(InputError, match=r"data/subset is incomplete .*dvc repro -f subset`"):
        run_stage(copied, "overfit-check")
    (copied / "data/prepared" / SHARD).unlink()
    with pytest.raises(InputError, match=r"data/prepared is incomplete .*dvc repro -f prepare`"):
        run_stage(copied, "subset")


def test_shards_are_limited_and_read_as_one(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = conftest.packed(project)["train"]
    monkeypatch.setattr("src.data.writer.SHARD_BYTES", 7 * 16 * 16 * 3 + 5)  # seven images
    shards = conftest.packed(project)["train"]
    assert len(shards.meta["shards"]["train"]) == -(-len(whole) // 7)
    indices = np.random.default_rng(0).permutation(len(whole))
    assert np.array_equal(shards.rows(indices), whole.rows(indices))


def test_a_long_table_takes_little_memory(tmp_path: Path) -> None:
    count = 20_000
    meta = {"classes": ["a", "b"], "size": 1, "channels": 1, "mean": [0.5], "std": [0.3]}
    with SplitWriter(tmp_path, "train", meta) as writer:
        for index in range(count):
            writer.add(np.zeros((1, 1, 1), np.uint8), index % 2, f"{index}.jpg", f"{index:064x}")
    (tmp_path / "meta.json").write_text(json.dumps({**meta, "shards": {"train": writer.shards}}))
    tracemalloc.start()
    data = PackedSplit(tmp_path, "train")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 30 * count + 2**18  # as dicts some 1,000 bytes a row
    assert (data.paths[-1], data.sha256[-1], data.groups) == ("19999.jpg", f"{19999:064x}", None)
