"""What a source is: its classes, and its samples in a fixed order.

Reading happens in worker processes, so a sample is an object that pickles small and reads when it
is called; one in a file is no more than its path.
"""

import os
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from src.plumbing.errors import InputError

SPLIT_NAMES = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}


class BadSample(Exception):
    """Something cannot be used as a sample: `reason` (from a small set of texts), what to do about
    it (`remedy`), and a `detail` from a library or the system."""

    def __init__(self, reason: str, remedy: str, detail: str = ""):
        super().__init__(f"{reason} ({detail})" if detail else reason)
        self.reason, self.remedy, self.detail = reason, remedy, detail


class Read(Protocol):
    """Reads a sample: the content whose hash stands for it, and the sample in the form that the
    packer of its kind takes. BadSample if it cannot be used."""

    def __call__(self) -> tuple[bytes, Any]: ...


@dataclass(frozen=True)
class Files:
    """How a kind of sample lies in files: the endings of their names, and what reads the file at a
    path."""

    suffixes: tuple[str, ...]
    reader: Callable[[str], Read]


@dataclass(frozen=True)
class Item:
    """One sample: `name` (its path in the source), class index `label`, how to `read` it, the
    `split` that the source gives it (None: by hash) and its `group` (None: it is alone)."""

    name: str
    label: int
    read: Read
    split: str | None = None
    group: str | None = None


@dataclass(frozen=True)
class Rejected:
    """A sample that cannot be used, see BadSample; in place of what reads it, where the source
    knows that already."""

    reason: str
    remedy: str
    detail: str = ""

    def __call__(self) -> tuple[bytes, Any]:
        raise BadSample(self.reason, self.remedy, self.detail)


@dataclass(frozen=True)
class Source:
    """`items`: `total` of them, those of given splits first in the order test, val: what these hold
    is not learnt. `given`: the splits that the source itself fills; no sample comes into them by
    hash. `published`: others test on these splits too, so that they stay whole: a sample that a
    given split also has is left out of the other one. `in_memory`: the samples are in this process
    already, and small: to send them to workers costs more than to pack them here (measured).
    `notes` go into report.json, `remarks` are lines for the person who looks on."""

    classes: list[str]
    items: Iterator[Item]
    total: int
    given: frozenset[str] = frozenset()
    published: bool = False
    in_memory: bool = False
    notes: dict[str, Any] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)


def text_of(name: str | os.PathLike[str]) -> str:
    """A file's name as text that can be printed and stored: names need not be UTF-8."""
    return os.fsencode(name).decode("utf-8", "backslashreplace").replace("\r", "\\r")


def refuse_name(name: str) -> Rejected | None:
    """What is wrong with a name that the tables of the packed data set cannot hold."""
    try:
        os.fsencode(name).decode("utf-8")
    except UnicodeDecodeError:
        return Rejected("its name is not UTF-8", "rename it")
    if "\r" in name:  # Python 3.11 writes it into a CSV without the quotes it needs
        return Rejected("its name has a carriage return in it", "rename it")
    return None


def remark_on_twins(classes: list[str]) -> list[str]:
    """A line for each group of classes whose names differ by case, accents' spelling or outer
    blanks alone."""
    same: dict[str, list[str]] = {}
    for name in classes:
        same.setdefault(unicodedata.normalize("NFC", name).casefold().strip(), []).append(name)
    return [
        f"classes {' and '.join(map(repr, group))} differ by case, accents or blanks alone and are "
        "kept apart: give them one name if they are the same"
        for group in same.values()
        if len(group) > 1
    ]


def data_folder(path: str, source: str, holds: str) -> Path:
    """`prepare.path` as a folder; InputError when it is none or cannot be read."""
    folder = Path(path)
    if not folder.is_dir():
        raise InputError(
            f"params.yaml: prepare.path must be a folder {holds} for prepare.source {source}, "
            f"got '{path}'"
        )
    require_readable(folder)
    return folder


def require_readable(folder: Path) -> None:
    """InputError when what lies in a folder cannot be listed and read."""
    if not os.access(folder, os.R_OK | os.X_OK):
        raise InputError(f"{folder} cannot be read (no permission): `chmod u+rX {folder}`")
