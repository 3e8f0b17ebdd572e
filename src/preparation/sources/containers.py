"""Files that hold many samples each: which lie in a folder, and which split their names say."""

import os
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from src.base.words import counted, either
from src.plumbing.errors import InputError
from src.preparation.sources.base import Files, Rejected, data_folder, splits_in, text_of
from src.preparation.sources.folder import remark_on_others, walk

SPLITS = ("test", "val", "train")  # what the first two hold is not learnt
POINTER = b"version https://git-lfs"


@dataclass(frozen=True)
class Container:
    """A file: its path, its name relative to prepare.path, the split that this says."""

    path: str
    name: str
    split: str | None


@dataclass(frozen=True)
class Containers:
    """Those of a folder, test and val first, with notes and remarks for `Source`."""

    root: Path
    found: list[Container]
    notes: dict[str, Any]
    remarks: list[str]


def find_containers(path: str, source: str, ending: str) -> Containers:
    """The files with an ending below `prepare.path`. InputError when there are none, when one is a
    pointer of git LFS, or when some say a split and others do not."""
    root = data_folder(path, source, f"of {ending} files")
    others, found = Counter[str](), list[Container]()
    for place, read in walk(root, Files((ending,), lambda _: _none, lambda _: _none), others):
        name = os.path.relpath(place, root)
        if isinstance(read, Rejected):
            raise InputError(f"{text_of(place)} cannot be used: {read.reason}: {read.remedy}")
        _require_content(place)
        found.append(Container(place, name, _split_of(name)))
    if not found:
        there = ", ".join(f"{ending}: {count}" for ending, count in others.most_common(3))
        raise InputError(
            f"{root} holds no {ending} file, which prepare.source {source} reads, but "
            f"{there or 'nothing'}: set prepare.path to their folder, or another source"
        )
    _require_all(root, [file.name for file in found])
    given = {file.split for file in found} - {None}
    if given and ("train" not in given or any(file.split is None for file in found)):
        without = next((file.name for file in found if file.split is None), None)
        raise InputError(
            f"{root}: names of {ending} files say {', '.join(sorted(map(str, given)))}, and "
            + (f"{without} says none: " if without else "none says train: ")
            + f"name each after its split, as train-000{ending}, or none of them"
        )
    found.sort(key=lambda file: (SPLITS.index(file.split or "train"), file.name))
    notes = {
        "given_splits": sorted(map(str, given)),
        "files_left_out": others.total(),
        "files_left_out_by_ending": dict(sorted(others.items())),
    }
    remarks = remark_on_others(others) + _remark_on_gaps([file.name for file in found])
    return Containers(root, found, notes, remarks)


def _require_all(root: Path, names: list[str]) -> None:
    """InputError if a file is missing of those that say how many they are: 00001-of-00003."""
    numbers: dict[tuple[str, int], set[int]] = {}
    for name in names:
        if match := re.fullmatch(r"(.*?)(\d+)-of-(\d+)(?:-\w+)?\.\w+", name):
            numbers.setdefault((match[1], int(match[3])), set()).add(int(match[2]))
    for (start, count), there in sorted(numbers.items()):
        if missing := sorted(set(range(count)) - there):
            raise InputError(
                f"{root}: of {counted(count, 'file')} {start}...-of-{count:05d}, number "
                f"{missing[0]:05d} is missing{', ...' * (len(missing) > 1)}: put it there too, or "
                "rename the others without -of-"
            )


def _remark_on_gaps(names: list[str]) -> list[str]:
    """A line for each numbered series of files without -of- in which numbers are missing."""
    series: dict[tuple[str, str], dict[int, str]] = {}
    for name in names:
        if (match := re.fullmatch(r"(.*?)(\d+)(\.\w+)", name)) and "-of-" not in name:
            series.setdefault((match[1], match[3]), {})[int(match[2])] = match[2]
    found = []
    for (start, ending), numbers in sorted(series.items()):
        low, high = min(numbers), max(numbers)
        lacking = high - low + 1 - len(numbers)
        if 0 < lacking < len(numbers):  # else they number no series
            first = next(number for number in range(low, high) if number not in numbers)
            are = f"{counted(lacking, 'file')} {either(lacking, 'is', 'are')} not there"
            found.append(
                f"of {start}{numbers[low]}{ending} to {start}{numbers[high]}{ending}, {are} (first "
                f"{start}{first:0{len(numbers[low])}d}{ending}): put there what belongs to the data"
            )
    return found


def sorted_classes(labels: list[str]) -> list[str]:
    """Names of classes in order: as numbers if all are."""
    numbers = all(label.isdecimal() for label in labels)
    return sorted(labels, key=lambda label: (len(label) if numbers else 0, label))


def _require_content(path: str) -> None:
    """InputError for what cannot be opened, and for a pointer of git LFS."""
    if not os.path.isfile(path):  # opening a named pipe would wait for ever
        raise InputError(f"{path} is no file, or a link that leads nowhere: mend or remove it")
    try:
        with open(path, "rb") as file:
            start = file.read(len(POINTER))
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}): `chmod u+r` it") from None
    if start == POINTER:
        raise InputError(f"{path} is a pointer of git LFS: fetch it with `git lfs pull`")


def _split_of(name: str) -> str | None:
    """The split that the name of a file says, or else the nearest of its folders."""
    for part in reversed(name.split(os.sep)):
        if len(splits := splits_in(part)) == 1:
            return splits.pop()
    return None


def _none() -> Any:
    raise AssertionError("the file is read by its source")
