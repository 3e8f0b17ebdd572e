"""What a source is: its classes, and its samples in a fixed order.

Workers read: a sample pickles small and reads when called; in a file, it is just its path.
"""

import json
import os
import re
import shlex
import unicodedata
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

from src.plumbing.errors import InputError

# What people call a split, in lower case, and what it is called here.
SPLIT_NAMES = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validate", "validation", "dev"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}

SHOWN = 5  # values in a line (choice)
OTHER_SPLIT = "its row has a split that is none of train, val, test"

TAR_ENDINGS = (".tar", ".tgz", ".tar.gz", ".tbz2", ".tar.bz2", ".txz", ".tar.xz")


class BadSample(Exception):
    """A sample cannot be used: `reason` (of a small set), `remedy`, and a library's `detail`."""

    def __init__(self, reason: str, remedy: str, detail: str = ""):
        super().__init__(f"{reason} ({detail})" if detail else reason)
        self.reason, self.remedy, self.detail = reason, remedy, detail


class Read(Protocol):
    """Reads a sample: the content to hash, and the packer's input. BadSample if it is unusable."""

    def __call__(self) -> tuple[bytes, Any]: ...


@dataclass(frozen=True)
class Files:
    """A kind of sample in files: the endings of names, what reads the file at a path, and what
    reads one that lies in another, whose bytes the function that it is given returns."""

    suffixes: tuple[str, ...]
    reader: Callable[[str], Read]
    content: Callable[[Callable[[], bytes]], Read]


@dataclass(frozen=True)
class Item:
    """One sample: `name` (its path in the source), class index `label` (-1: refused, and of no
    known class), how to `read` it, the `split` that the source gives it (None: by hash) and its
    `group` (None: it is alone)."""

    name: str
    label: int
    read: Read
    split: str | None = None
    group: str | None = None


@dataclass(frozen=True)
class Rejected:
    """In place of a sample's reader, where the source knows it to be unusable. See BadSample."""

    reason: str
    remedy: str
    detail: str = ""

    def __call__(self) -> tuple[bytes, Any]:
        raise BadSample(self.reason, self.remedy, self.detail)


@dataclass(frozen=True)
class Source:
    """`items`: `total` of them, those of given splits first, test before val: what these hold is
    not learnt. `given`: splits that the source fills; no sample joins them by hash. `published`:
    others test on these too, so they stay whole: the other split loses what both have. `in_memory`:
    the samples are here, and small: to send them to workers costs more than to pack them here
    (measured). `grouped`: whether samples have groups. `notes` go into report.json, `remarks` are
    lines for the person who looks on."""

    classes: list[str]
    items: Iterator[Item]
    total: int
    given: frozenset[str] = frozenset()
    published: bool = False
    in_memory: bool = False
    grouped: bool = False
    notes: dict[str, Any] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)


def text_of(name: str | os.PathLike[str]) -> str:
    """A file's name as text that can be printed and stored: names need not be UTF-8."""
    return os.fsencode(name).decode("utf-8", "backslashreplace").replace("\r", "\\r")


def is_url(path: str) -> bool:
    """Whether a path is an address, such as https://... or s3://...: nothing is downloaded."""
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", path) is not None


def refuse_name(name: str) -> Rejected | None:
    """What is wrong with a name that the tables of the packed data set cannot hold."""
    try:
        os.fsencode(name).decode("utf-8")
    except UnicodeDecodeError:
        return Rejected("its name is not UTF-8", "rename it")
    if "\r" in name:  # Python 3.11 writes it into a CSV without the quotes it needs
        return Rejected("its name has a carriage return in it", "rename it")
    return None


@lru_cache(maxsize=10_000)
def through_a_link(root: str, folder: str) -> bool:
    """Whether a folder, whose path starts at `root`, is reached by a link: DVC looks into none."""
    return bool(folder) and (
        os.path.islink(os.path.join(root, folder)) or through_a_link(root, os.path.dirname(folder))
    )


def remark_on_twins(classes: list[str]) -> list[str]:
    """A line per group of class names that differ by case, accents' spelling or outer blanks."""
    same: dict[str, list[str]] = {}
    for name in classes:
        same.setdefault(unicodedata.normalize("NFC", name).casefold().strip(), []).append(name)
    return [
        f"classes {' and '.join(map(repr, group))} differ by case, accents or blanks alone and are "
        "kept apart: if they are the same, set prepare.merge to "
        + json.dumps([f"{name}={group[-1]}" for name in group[:-1]], ensure_ascii=False)
        for group in same.values()
        if len(group) > 1
    ]


def splits_in(name: str) -> set[str]:
    """The splits that words of a name say: `train_images`, `TestSet` and `imagenet-val-0007` say
    one each."""
    words = re.findall("[A-Z]?[a-z]+|[A-Z]+", name)
    found = {SPLIT_NAMES.get(word.lower().removesuffix("set")) for word in words}
    return {split for split in found if split}


def what_they_say(values: Collection[str]) -> str:
    """What a column of splits says in place of train, for a line; empty if nothing."""
    if not values:
        return ""
    shown = ", ".join(sorted(values)[:SHOWN]) + (", ..." if len(values) > SHOWN else "")
    return f", but {shown}: write train, val and test in their place"


def data_folder(path: str, source: str, holds: str) -> Path:
    """`prepare.path` as a folder; InputError when it is none or cannot be read."""
    folder = Path(path)
    if is_url(path):
        raise InputError(
            f"params.yaml: prepare.path is the address {path}, and nothing is downloaded: fetch it "
            "into data/raw, and set prepare.path to that folder"
        )
    if not folder.is_dir():
        unpack = how_to_unpack(folder) if folder.is_file() else ""
        raise InputError(
            f"params.yaml: prepare.path must be a folder {holds} for prepare.source {source}, "
            f"got '{path}'" + (f": {unpack} and name that folder" if unpack else "")
        )
    require_readable(folder)
    return folder


def how_to_unpack(archive: Path) -> str:
    """What to do with an archive, by its ending; empty for any other file. It goes into a folder of
    its own, since there may be one for each class."""
    name, shown = archive.name.lower(), shlex.quote(text_of(archive))
    place = shlex.quote(text_of(archive.with_name(archive.name.partition(".")[0])))
    if name.endswith(".zip"):
        return f"unpack it with `python -m zipfile -e {shown} {place}`"
    if name.endswith(TAR_ENDINGS):
        return f"unpack it with `mkdir -p {place} && tar -xf {shown} -C {place}`"
    return f"unpack it into {place}" if name.endswith((".7z", ".rar")) else ""


def require_readable(folder: Path) -> None:
    """InputError when what lies in a folder cannot be listed and read."""
    if not os.access(folder, os.R_OK | os.X_OK):
        raise InputError(f"{folder} cannot be read (no permission): `chmod u+rX {folder}`")
