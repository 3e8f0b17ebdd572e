"""Samples into a few packed files: arrays in shards, a table per split, meta.json.

Files: `<split>-<kind>-00000.npy` (a row per sample, up to 256 MB; of images uint8, N x H x W x C),
`<split>.csv` (index, label, path, sha256 of the source, and the group where the source knows
groups) and `meta.json`.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from src.base.files import CsvWriter
from src.base.kinds import kind_of
from src.data.packed import COLUMNS, GROUP, row_of

SHARD_BYTES = 256 * 2**20


class SplitWriter:
    """Writes a split into shards in `folder`. `meta` (meta.json so far) says what a row is;
    `grouped`: whether the source knows groups."""

    def __init__(self, folder: Path, split: str, meta: Mapping[str, Any], grouped: bool = False):
        self.folder, self.split, self.kind = folder, split, kind_of(meta)
        self.shape, self.dtype = row_of(meta)
        self.per_shard = max(1, SHARD_BYTES // (math.prod(self.shape) * self.dtype.itemsize))
        self.count, self.grouped = 0, grouped
        columns = (*COLUMNS, GROUP) if grouped else COLUMNS
        self._table = CsvWriter(folder / f"{split}.csv", columns)
        self.shards: list[str] = []
        self._file: Any = None
        self._in_shard = 0

    def add(
        self, row: np.ndarray, label: int, path: str, sha256: str, group: str | None = None
    ) -> None:
        """Append a sample with its class index, where it came from, and its group if it has one."""
        if self._file is None or self._in_shard == self.per_shard:
            self._open_shard()
        self._file.write(row.tobytes())
        self._in_shard += 1
        of_group = [(group or "").replace("\r", "\\r")] if self.grouped else []
        self._table.add((self.count, label, path, sha256, *of_group))
        self.count += 1

    def __enter__(self) -> "SplitWriter":
        return self

    def __exit__(self, *_: object) -> None:
        self._close_shard()
        self._table.close()

    def _open_shard(self) -> None:
        self._close_shard()
        name = f"{self.split}-{self.kind}-{len(self.shards):05d}.npy"
        self.shards.append(name)
        self._file = open(self.folder / name, "wb")  # noqa: SIM115 (closed by _close_shard)
        self._in_shard = 0
        self._write_header()

    def _close_shard(self) -> None:
        if self._file is not None:
            end = self._file.tell()
            self._file.seek(0)
            self._write_header()
            self._file.seek(end)
            self._file.close()
            self._file = None

    def _write_header(self) -> None:
        """numpy leaves room for a growing first axis, so the header keeps its length."""
        shape = (self._in_shard, *self.shape)
        header = {"descr": self.dtype.str, "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(self._file, header)
