"""Rows of numbers into packed rows."""

import csv
import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from src.plumbing.errors import InputError
from src.preparation.sources.base import BadSample, Files, Item, Rejected

FILE = "numbers.csv"


@dataclass(frozen=True)
class Numbers:
    """The fields of a line."""

    fields: tuple[str, ...]

    def __call__(self) -> tuple[bytes, np.ndarray]:
        try:
            row = np.array([float(field) for field in self.fields], dtype=np.float32)
        except ValueError:
            raise BadSample("one of its fields is no number", "correct the line") from None
        return row.tobytes(), row


@dataclass(frozen=True)
class Packed:
    sha256: str
    row: np.ndarray


@dataclass(frozen=True)
class Packer:
    columns: int
    chunk: int = 64

    @property
    def meta(self) -> dict[str, Any]:
        return {"kind": "numbers", "shape": [self.columns], "dtype": "float32"}

    def __str__(self) -> str:
        return f"{self.columns} columns"

    def __call__(self, items: Iterable[Item]) -> list[Packed | Rejected]:
        return [self._read(item) for item in items]

    def _read(self, item: Item) -> Packed | Rejected:
        try:
            content, row = item.read()
        except BadSample as error:
            return Rejected(error.reason, error.remedy, error.detail)
        return Packed(hashlib.sha256(content).hexdigest(), row)


def packer(params: Mapping[str, Any]) -> Packer:
    with open(Path(params["prepare.path"]) / FILE, encoding="utf-8", newline="") as file:
        return Packer(len(next(csv.reader(file))) - 1)


def _in_file(path: str) -> Numbers:
    return _of_content(Path(path).read_bytes)


def _of_content(get: Callable[[], bytes]) -> Numbers:
    return Numbers(tuple(get().decode().strip().split(",")))


FILES = Files((".row",), _in_file, _of_content)


def read_new(
    sample: Any,
    description: Mapping[str, Any],
    name: str,
    noticed: Counter[str] | None = None,
) -> np.ndarray:
    try:
        row: np.ndarray = _in_file(str(sample))()[1]
    except BadSample as error:
        raise InputError(f"{name} cannot be used: {error}") from None
    if row.shape != tuple(description["input_size"]):
        raise InputError(f"{name} has {len(row)} numbers, not {description['input_size'][0]}")
    return row


def example(description: Mapping[str, Any]) -> bytes:
    return ",".join(["0"] * description["input_size"][0]).encode()
