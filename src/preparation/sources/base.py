"""What a source is: its classes, and its pictures in a fixed order.

Reading happens in worker processes, so a picture is an object that pickles small and reads when it
is called; one in a file is no more than its path.
"""

import os
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image

from src.images.decode import BadPicture, Picture, decode, read_content

SPLIT_NAMES = {
    "train": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
}


class Read(Protocol):
    """The content whose hash stands for the picture, and the picture; BadPicture if it is none."""

    def __call__(self) -> tuple[bytes, Picture]: ...


@dataclass(frozen=True)
class Item:
    """One picture: `name` (its path in the source), class index `label`, how to `read` it, the
    `split` that the source gives it (None: by hash) and its `group` (None: it is alone)."""

    name: str
    label: int
    read: Read
    split: str | None = None
    group: str | None = None


@dataclass(frozen=True)
class Source:
    """`items`: `total` of them, those of given splits first in the order test, val: what these hold
    is not learnt. `given`: the splits that the source itself fills; no picture comes into them by
    hash. `published`: others test on these splits too, so that they stay whole: a picture that a
    given split also has is left out of the other one. `in_memory`: the pictures are
    in this process already, and small: to send them to workers costs more than to pack them here
    (measured). `notes` go into report.json, `remarks` are lines for the person who looks on."""

    classes: list[str]
    items: Iterator[Item]
    total: int
    given: frozenset[str] = frozenset()
    published: bool = False
    in_memory: bool = False
    notes: dict[str, Any] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class PictureFile:
    """A picture in a file."""

    path: str

    def __call__(self) -> tuple[bytes, Picture]:
        content = read_content(self.path)
        return content, decode(content)


@dataclass(frozen=True)
class Pixels:
    """A picture in memory: uint8, H x W (grey) or H x W x 3 or 4 (colour, and alpha)."""

    array: np.ndarray

    def __call__(self) -> tuple[bytes, Picture]:
        return self.array.tobytes(), Picture.of(Image.fromarray(self.array))


@dataclass(frozen=True)
class Refused:
    """A picture of which the source knows already that it cannot be used."""

    reason: str
    remedy: str

    def __call__(self) -> tuple[bytes, Picture]:
        raise BadPicture(self.reason, self.remedy)


def text_of(name: str | os.PathLike[str]) -> str:
    """A file's name as text that can be printed and stored: names need not be UTF-8."""
    return os.fsencode(name).decode("utf-8", "backslashreplace").replace("\r", "\\r")


def refuse_name(name: str) -> Refused | None:
    """What is wrong with a name that the tables of the packed data set cannot hold."""
    try:
        os.fsencode(name).decode("utf-8")
    except UnicodeDecodeError:
        return Refused("its name is not UTF-8", "rename it")
    if "\r" in name:  # Python 3.11 writes it into a CSV without the quotes it needs
        return Refused("its name has a carriage return in it", "rename it")
    return None


def twins(names: list[str]) -> list[list[str]]:
    """The names that differ by case, accents' spelling or outer blanks alone, together."""
    same: dict[str, list[str]] = {}
    for name in names:
        same.setdefault(unicodedata.normalize("NFC", name).casefold().strip(), []).append(name)
    return [group for group in same.values() if len(group) > 1]


def remark_on_twins(classes: list[str]) -> list[str]:
    return [
        f"classes {' and '.join(map(repr, group))} differ by case, accents or blanks alone and are "
        "kept apart: give them one name if they are the same"
        for group in twins(classes)
    ]


def data_folder(path: str, source: str, holds: str) -> Path:
    """`prepare.path` as a folder; InputError when it is none or cannot be read."""
    from src.plumbing.errors import InputError

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
    from src.plumbing.errors import InputError

    if not os.access(folder, os.R_OK | os.X_OK):
        raise InputError(f"{folder} cannot be read (no permission): `chmod u+rX {folder}`")
