"""Pictures into a few packed files: uint8 arrays in shards, a table per split, meta.json.

A packed data set is a folder with `<split>-images-00000.npy` (uint8, N x H x W x C, at most
256 MB each), `<split>.csv` (index, label, path, sha256 of the source) and `meta.json`.
"""

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from src.base.files import CsvWriter

SHARD_BYTES = 256 * 2**20
TABLE_HEADER = ("index", "label", "path", "sha256")


class SplitWriter:
    """Writes one split of a packed data set into `folder`, picture by picture, in shards."""

    def __init__(self, folder: Path, split: str, shape: tuple[int, int, int]):
        self.folder, self.split, self.shape = folder, split, shape
        self.per_shard = max(1, SHARD_BYTES // int(np.prod(shape)))
        self.count = 0
        self._table = CsvWriter(folder / f"{split}.csv", TABLE_HEADER)
        self.shards: list[str] = []
        self._file: Any = None
        self._in_shard = 0

    def add(self, picture: np.ndarray, label: int, path: str, sha256: str) -> None:
        """Append a picture (uint8, H x W x C) with its class index and where it came from."""
        if self._file is None or self._in_shard == self.per_shard:
            self._open_shard()
        self._file.write(picture.tobytes())
        self._in_shard += 1
        self._table.add((self.count, label, path, sha256))
        self.count += 1

    def __enter__(self) -> "SplitWriter":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._close_shard()
        self._table.close()

    def _open_shard(self) -> None:
        self._close_shard()
        name = f"{self.split}-images-{len(self.shards):05d}.npy"
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
        header = {"descr": "|u1", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(self._file, header)


class PixelStatistics:
    """Mean and standard deviation per channel, summed in integers: exact, in any order."""

    def __init__(self, channels: int):
        self.count = 0
        self.sums = np.zeros(channels, dtype=object)
        self.squares = np.zeros(channels, dtype=object)

    def add(self, pixels: int, sums: Sequence[int], squares: Sequence[int]) -> None:
        """Count a picture of so many pixels by the sums of its values and of their squares, per
        channel."""
        self.count += pixels
        self.sums += sums
        self.squares += squares

    def mean_and_std(self) -> tuple[list[float], list[float]]:
        """Per channel, in units of the full range (0..1). A constant channel gets std 1."""
        mean = [int(total) / self.count for total in self.sums]
        variance = [
            int(square) / self.count - m * m for square, m in zip(self.squares, mean, strict=True)
        ]
        std = [v**0.5 if v > 1e-6 else 255.0 for v in variance]
        return [m / 255 for m in mean], [s / 255 for s in std]
