"""Reading a packed data set: labels in memory, samples by memory map."""

import csv
import functools
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from src.base.words import counted
from src.plumbing import locks
from src.plumbing.errors import InputError

COLUMNS = ("index", "label", "path", "sha256")
GROUP = "group"  # a further column, of data whose source knows groups
STAGE_OF = {"prepared": "prepare"}  # the stage that makes a folder; elsewhere they share a name


def read_meta(folder: Path | str) -> dict[str, Any]:
    """The meta.json of a packed data set; InputError when there is none, or it lacks something."""
    path = Path(folder) / "meta.json"
    if not path.is_file():
        if path.parent.is_dir() and any(path.parent.iterdir()):
            raise _incomplete(folder, "meta.json is missing")
        stage = _stage(folder)
        if busy := locks.running(stage):
            raise InputError(f"{folder} holds no packed data set yet: {busy}; wait until it ends")
        raise InputError(f"{folder} holds no packed data set: run `dvc repro {stage}`")
    try:
        meta = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise _incomplete(folder, "meta.json cannot be read") from None
    if not isinstance(meta, dict):
        raise _incomplete(folder, "meta.json is no object")
    needed = _META if "shape" in meta else _META | _IMAGES
    for key, fits in needed.items():
        if key not in meta or not fits(meta[key]):
            raise _incomplete(folder, f"meta.json has no usable {key}")
    return meta


def row_of(meta: Mapping[str, Any]) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Shape and dtype of a packed sample: those in meta.json, else of images, uint8 H x W x C."""
    shape = meta.get("shape") or (meta["size"], meta["size"], meta["channels"])
    return tuple(shape), np.dtype(meta.get("dtype", "uint8"))


class PackedSplit:
    """One split of a packed data set: `labels` (int64, N), `paths` and `sha256` of the sources (N),
    `groups` (names, N; empty where a sample is alone), None where the source knows none, `meta` as
    in meta.json. Samples are mapped, not read: `rows(indices)` copies just those out; of the table
    the labels alone are kept, what else is asked for is read then. InputError when the files are
    not whole or do not belong together."""

    def __init__(self, folder: Path | str, split: str):
        self.folder, self.split = Path(folder), split
        self.meta = read_meta(folder)
        self.shape, self.dtype = row_of(self.meta)
        self.labels = self._read_labels()
        files = self.meta["shards"].get(split)
        if not _is_list_of(files, str):
            raise _incomplete(folder, f"meta.json has no shards of {split}")
        self._shards = [self._map_shard(name) for name in files]
        self._starts = np.cumsum([0] + [len(shard) for shard in self._shards])
        if self._starts[-1] != len(self.labels):
            there = counted(int(self._starts[-1]), "sample")
            what = f"{split}.csv has {counted(len(self.labels), 'row')}, its shards hold {there}"
            raise _incomplete(folder, what)

    def __len__(self) -> int:
        return len(self.labels)

    @functools.cached_property
    def paths(self) -> list[str]:
        return list(self._column("path"))

    @functools.cached_property
    def sha256(self) -> list[str]:
        return list(self._column("sha256"))

    @functools.cached_property
    def groups(self) -> list[str] | None:
        with open(self.folder / f"{self.split}.csv", encoding="utf-8", newline="") as file:
            if GROUP not in next(csv.reader(file)):
                return None
        return list(self._column(GROUP))

    @property
    def nbytes(self) -> int:
        """What all samples of the split take."""
        return len(self) * math.prod(self.shape) * self.dtype.itemsize

    def __getstate__(self) -> dict[str, Any]:
        # To a process that is not forked goes the way to the samples, not the samples.
        return {**self.__dict__, "_shards": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._shards = [self._map_shard(name) for name in self.meta["shards"][self.split]]

    def rows(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """The samples at `indices` (n): an array n x `shape`, of images uint8 n x H x W x C."""
        indices = np.asarray(indices, dtype=np.int64)
        if len(self._shards) == 1:
            return self._shards[0][indices]
        out = np.empty((len(indices), *self.shape), dtype=self.dtype)
        owner = np.searchsorted(self._starts, indices, side="right") - 1
        for number in np.unique(owner):
            here = owner == number
            out[here] = self._shards[number][indices[here] - self._starts[number]]
        return out

    def _column(self, wanted: str) -> Iterator[str]:
        """The cells of a column of the table, row by row: a whole table takes a kilobyte a row."""
        name = f"{self.split}.csv"
        try:
            with open(self.folder / name, encoding="utf-8", newline="") as file:
                reader = csv.reader(file)
                columns = next(reader, [])
                for column in COLUMNS:
                    if column not in columns:
                        raise _incomplete(self.folder, f"{name} has no column {column}")
                place = columns.index(wanted)
                for row in filter(None, reader):
                    if len(row) < len(columns):
                        missing = columns[len(row)]
                        raise _incomplete(self.folder, f"a row of {name} has no {missing}")
                    yield row[place]
        except FileNotFoundError:
            raise _incomplete(self.folder, f"{name} is missing") from None
        except (OSError, UnicodeError, csv.Error):
            raise _incomplete(self.folder, f"{name} cannot be read") from None

    def _read_labels(self) -> np.ndarray:
        try:
            labels = np.fromiter(map(int, self._column("label")), dtype=np.int64)
        except (ValueError, OverflowError):
            what = f"{self.split}.csv has a label that is no class index"
            raise _incomplete(self.folder, what) from None
        if not len(labels):
            raise _incomplete(self.folder, f"{self.split}.csv has no rows")
        classes = len(self.meta["classes"])
        outside = labels[(labels < 0) | (labels >= classes)]
        if len(outside):
            what = f"{self.split}.csv has label {outside[0]}, meta.json {classes} classes"
            raise _incomplete(self.folder, what)
        return labels

    def _map_shard(self, name: str) -> np.ndarray:
        try:
            shard = np.load(self.folder / name, mmap_mode="r")
        except FileNotFoundError:
            raise _incomplete(self.folder, f"{name} is missing") from None
        except (OSError, ValueError, EOFError):  # a memory map longer than the file, among others
            raise _incomplete(self.folder, f"{name} is cut short or no array") from None
        if shard.dtype != self.dtype or shard.shape[1:] != self.shape:
            sizes = " x ".join(map(str, self.shape))
            raise _incomplete(self.folder, f"{name} does not hold rows of {sizes} {self.dtype}")
        return shard


def _is_list_of(value: Any, kind: type | tuple[type, ...]) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(v, kind) for v in value)


# What the stages read of meta.json, and what makes it usable.
_META: dict[str, Callable[[Any], bool]] = {
    "classes": lambda value: _is_list_of(value, str),
    "mean": lambda value: _is_list_of(value, (int, float)),
    "std": lambda value: _is_list_of(value, (int, float)),
    "shards": lambda value: isinstance(value, dict),
}
# Data that give no shape of their own hold square images of bytes.
_IMAGES: dict[str, Callable[[Any], bool]] = {
    "size": lambda value: isinstance(value, int),
    "channels": lambda value: isinstance(value, int),
}


def _stage(folder: Path | str) -> str:
    return STAGE_OF.get(Path(folder).name, Path(folder).name)


def _incomplete(folder: Path | str, what: str) -> InputError:
    return InputError(f"{folder} is incomplete ({what}): run `dvc repro -f {_stage(folder)}`")
