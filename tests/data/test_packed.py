"""A packed data set that is not whole ends in one line that says how to get it back."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from src.data.packed import PackedSplit
from src.plumbing.errors import InputError
from tests import conftest
from tests.conftest import run_stage

SHARD = "train-images-00000.npy"


@pytest.fixture
def packed(finished: tuple[Path, object], tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished[0] / "data/prepared", tmp_path / "prepared"))


def edit_meta(**changes: object) -> Callable[[Path], None]:
    """Sets keys of meta.json; None takes the key out."""

    def edit(folder: Path) -> None:
        meta = {**json.loads((folder / "meta.json").read_text()), **changes}
        kept = {key: value for key, value in meta.items() if value is not None}
        (folder / "meta.json").write_text(json.dumps(kept))

    return edit


def edit_table(change: Callable[[str], str]) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        path = folder / "train.csv"
        path.write_text(change(path.read_text()))

    return edit


def cut(name: str, size: int) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        (folder / name).write_bytes((folder / name).read_bytes()[:size])

    return edit


def write(name: str, content: bytes) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        (folder / name).write_bytes(content)

    return edit


def save(array: np.ndarray) -> Callable[[Path], None]:
    return lambda folder: np.save(folder / SHARD, array)


def first_label(value: str) -> Callable[[Path], None]:
    return edit_table(lambda text: re.sub(r"(?m)^0,\d+,", f"0,{value},", text))


DAMAGES: dict[str, tuple[Callable[[Path], None], str]] = {
    "no table": (lambda folder: (folder / "train.csv").unlink(), "train.csv"),
    "no shard": (lambda folder: (folder / SHARD).unlink(), SHARD),
    "shard cut in the pixels": (cut(SHARD, 5000), SHARD),
    "shard cut in the header": (cut(SHARD, 40), SHARD),
    "shard empty": (cut(SHARD, 0), SHARD),
    "shard of another shape": (save(np.zeros((4, 8, 8, 3), np.uint8)), SHARD),
    "shard of another type": (save(np.zeros((4, 16, 16, 3), np.float32)), SHARD),
    "shard of fewer images": (save(np.zeros((4, 16, 16, 3), np.uint8)), "shards hold 4"),
    "meta cut": (cut("meta.json", 30), "meta.json"),
    "meta empty": (cut("meta.json", 0), "meta.json"),
    "meta a list": (write("meta.json", b"[1]"), "meta.json"),
    "meta not text": (write("meta.json", b"\xff"), "meta.json"),
    "meta without classes": (edit_meta(classes=None), "classes"),
    "meta without mean": (edit_meta(mean=None), "mean"),
    "meta without size": (edit_meta(size=None), "size"),
    "meta with a text as size": (edit_meta(size="16"), "size"),
    "meta without shards": (edit_meta(shards=None), "shards"),
    "meta with a list of shards": (edit_meta(shards=[]), "shards"),
    "meta without the split": (edit_meta(shards={"val": []}), "train"),
    "meta with a number as shard": (edit_meta(shards={"train": [5]}), "train"),
    "table empty": (cut("train.csv", 0), "index"),
    "table of the header alone": (cut("train.csv", 24), "train.csv"),
    "table cut in a row": (cut("train.csv", 100), "train.csv"),
    "table without a column": (edit_table(lambda text: text.replace("label", "other")), "label"),
    "table not text": (write("train.csv", b"\xff"), "train.csv"),
    "label not a number": (first_label("cat"), "train.csv"),
    "label too large": (first_label("3"), "label 3"),
    "label negative": (first_label("-1"), "label -1"),
}


def test_a_whole_one_is_read(packed: Path) -> None:
    assert len(PackedSplit(packed, "train")) > 0


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_said_in_one_line(packed: Path, damage: str) -> None:
    edit, words = DAMAGES[damage]
    edit(packed)
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
