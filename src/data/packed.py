"""Reading a packed data set: labels in memory, pictures by memory map."""

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from src.errors import InputError


def read_meta(folder: Path | str) -> dict[str, Any]:
    """The meta.json of a packed data set; InputError when there is none."""
    path = Path(folder) / "meta.json"
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise InputError(f"{folder} holds no packed data set: run `dvc repro prepare`") from None


class PackedSplit:
    """One split of a packed data set.

    `labels` (int64, N), `paths` and `sha256` of the sources (N), `meta` as in meta.json. Pictures
    are mapped, not read: `pictures(indices)` copies just those out.
    """

    def __init__(self, folder: Path | str, split: str):
        self.folder, self.split = Path(folder), split
        self.meta = read_meta(folder)
        with open(self.folder / f"{split}.csv", encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        self.labels = np.array([int(row["label"]) for row in rows], dtype=np.int64)
        self.paths = [row["path"] for row in rows]
        self.sha256 = [row["sha256"] for row in rows]
        files = self.meta["shards"][split]
        self._shards = [np.load(self.folder / name, mmap_mode="r") for name in files]
        self._starts = np.cumsum([0] + [len(shard) for shard in self._shards])
        if self._starts[-1] != len(rows):
            raise InputError(
                f"{folder}: {split}.csv and its shards disagree: run `dvc repro -f prepare`"
            )

    def __len__(self) -> int:
        return len(self.labels)

    def pictures(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """The pictures at `indices` (n), as uint8 of shape n x H x W x C."""
        indices = np.asarray(indices, dtype=np.int64)
        if len(self._shards) == 1:
            return self._shards[0][indices]
        size, channels = self.meta["size"], self.meta["channels"]
        out = np.empty((len(indices), size, size, channels), dtype=np.uint8)
        owner = np.searchsorted(self._starts, indices, side="right") - 1
        for number in np.unique(owner):
            here = owner == number
            out[here] = self._shards[number][indices[here] - self._starts[number]]
        return out
