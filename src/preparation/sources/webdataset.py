"""Samples in WebDataset shards: tar files with a sample and its label in members of one name.

`0001.jpg` and `0001.cls` (the class, a number or a name), or `0001.json` with the class under
`prepare.csv_label_column`. Headers alone are read here; workers read each sample at its place in
the shard, so nothing is unpacked. Format: https://github.com/webdataset/webdataset
"""

import json
import os
import sqlite3
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import IO, Any, cast

from src.base.files import scratch_database
from src.plumbing.errors import InputError
from src.preparation.sources.base import (
    SHOWN,
    BadSample,
    Files,
    Item,
    Rejected,
    Source,
    refuse_name,
    remark_on_twins,
    text_of,
)
from src.preparation.sources.containers import Container, find_containers, sorted_classes
from src.preparation.targets import require_one_class

LONGEST_LABEL = 2**20  # bytes of a .cls or .json that are read (choice)
NO_LABEL, NO_SAMPLE = "it has no label in a .cls or .json", "no sample lies beside its label"
NO_KEY = "its .json does not have the key of the class"
SEVERAL = "several samples lie beside its label"
REMEDY = "correct it in the shard, or remove it"
REMEDIES = {
    NO_KEY: "set prepare.csv_label_column to the one that names the class, or add that",
    SEVERAL: "leave out of the shard those that are not to be learnt, such as masks",
}


@dataclass(frozen=True)
class Part:
    """The bytes of a member: `size` from `offset` on in the file at `path`."""

    path: str
    offset: int
    size: int

    def __call__(self) -> bytes:
        with open(self.path, "rb") as file:
            file.seek(self.offset)
            content = file.read(self.size)
        if len(content) < self.size:
            raise BadSample("its shard ends early", "copy the shard again")
        return content


@dataclass
class _Sample:
    """The members of one name."""

    key: str
    found: list[tuple[str, Part]] = field(default_factory=list)  # each with its name
    label: str | None = None
    wrong: str = ""
    keys: str = ""  # what a .json has, where it has no class

    def add_label(self, content: bytes, ending: str, json_key: str) -> None:
        """Note the class that a .cls or .json names; a .json may say other things."""
        label: Any = None
        try:
            text = content.decode("utf-8")
            if ending == "cls":
                label = text.strip()
            elif isinstance(about := json.loads(text), dict):
                label = about.get(json_key)
                shown = ", ".join(map(repr, list(about)[:SHOWN]))
                self.keys = f"not {json_key!r}, but {shown or 'none'}" if label is None else ""
        except ValueError:
            self.wrong = f"its .{ending} cannot be read as text"
        if label is None:
            return
        if not isinstance(label, str | int) or not str(label).strip() or "\r" in str(label):
            self.wrong = f"its .{ending} names no class"
        elif self.label not in (None, str(label)):
            self.wrong = "its .cls and its .json name different classes"
        else:
            self.label = str(label)


def shards(params: Mapping[str, Any], files: Files) -> Source:
    """The samples of the .tar files below `prepare.path`, in their order. Splits are those that the
    names of the shards say (`train-0001.tar`, `val/0001.tar`), else by hash."""
    containers = find_containers(params["prepare.path"], "webdataset", ".tar")
    database = scratch_database()
    database.execute(
        "CREATE TABLE samples (name TEXT PRIMARY KEY, label TEXT, split TEXT, path TEXT, "
        "offset INTEGER, size INTEGER, refused TEXT, detail TEXT)"
    )
    for shard in containers.found:
        for sample in _samples(shard, params["prepare.csv_label_column"], files):
            _insert(database, shard, sample)
    remedies = {**REMEDIES, **_apart(database)}
    sql = "SELECT label, count(*) FROM samples WHERE refused IS NULL GROUP BY label"
    counts: dict[str, int] = dict(database.execute(sql))
    classes = sorted_classes(list(counts))
    if len(classes) < 2:
        sql = "SELECT name, refused, detail FROM samples WHERE refused IS NOT NULL LIMIT 1"
        first = ""
        for name, refused, detail in database.execute(sql):
            reason = f"{refused} ({detail})" if detail else refused
            first = f"; {name}: {reason}: {remedies.get(refused, REMEDY)}"
        raise InputError(
            f"{containers.root}: the shards must hold samples of at least two classes, found "
            f"{len(classes)}{first}"
        )
    require_one_class(counts, f"{containers.root}: the label")
    (total,) = database.execute("SELECT count(*) FROM samples").fetchone()
    label_of = {name: label for label, name in enumerate(classes)}
    return Source(
        classes,
        _items(database, files, label_of, remedies),
        total,
        frozenset(containers.notes["given_splits"]),
        notes=containers.notes,
        remarks=remark_on_twins(classes) + containers.remarks,
    )


def _apart(database: sqlite3.Connection) -> dict[str, str]:
    """What to do, by reason, if a sample and its label are there and do not lie together."""
    sql = "SELECT name FROM samples WHERE refused = ?"
    alone = database.execute(f"{sql} LIMIT 1", (NO_LABEL,)).fetchone()
    stem = os.path.basename(alone[0]).partition(".")[0] if alone else ""
    for (label,) in database.execute(sql, (NO_SAMPLE,)):
        if os.path.basename(label) == stem:
            remedy = (
                f"put them together ({label} has a label for {alone[0]}): the members of a sample "
                "have one name but for the ending, in one folder of one shard, and follow each "
                "other, as `tar --sort=name` writes them"
            )
            return {NO_LABEL: remedy, NO_SAMPLE: remedy}
    return {}


def _items(
    database: sqlite3.Connection,
    files: Files,
    label_of: Mapping[str, int],
    remedies: Mapping[str, str],
) -> Iterator[Item]:
    sql = "SELECT name, label, split, path, offset, size, refused, detail FROM samples"
    for name, label, split, path, offset, size, refused, detail in database.execute(
        f"{sql} ORDER BY rowid"
    ):
        if refused:
            yield Item(name, -1, Rejected(refused, remedies.get(refused, REMEDY), detail))
        else:
            read = files.content(Part(path, offset, size))
            yield Item(name, label_of[label], read, None if split == "train" else split)


def _insert(database: sqlite3.Connection, shard: Container, sample: _Sample) -> None:
    name, part = sample.found[0] if sample.found else (sample.key, None)
    wrong, detail = sample.wrong, ""
    if len(sample.found) > 1:
        wrong, detail = SEVERAL, ", ".join(text_of(member) for member, _ in sample.found[:SHOWN])
    elif not sample.found:
        wrong = NO_SAMPLE
    elif sample.label is None and not wrong:
        wrong, detail = NO_KEY if sample.keys else NO_LABEL, sample.keys
    name = f"{shard.name}/{name}"
    if unprintable := refuse_name(name):
        name, wrong, detail = text_of(name), unprintable.reason, ""
    place = (part.path, part.offset, part.size) if part else (None, None, None)
    row = (name, sample.label, shard.split, *place, wrong or None, detail)
    try:
        database.execute("INSERT INTO samples VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row)
    except sqlite3.IntegrityError:
        raise InputError(
            f"{name} comes twice: rename one of the two in the shard, or remove it"
        ) from None


def _samples(shard: Container, json_key: str, files: Files) -> Iterator[_Sample]:
    """The samples of a shard: members that stand together and agree up to the first dot."""
    sample = _Sample("")
    for member, file in _members(shard):
        folder, base = os.path.split(member.name)
        stem, _, ending = base.partition(".")
        if not stem:  # hidden
            continue
        key, ending = os.path.join(folder, stem), ending.lower()
        if sample.key != key:
            if sample.found or sample.label or sample.wrong:
                yield sample
            sample = _Sample(key)
        if f".{ending}".endswith(files.suffixes):
            part = Part(shard.path, member.offset_data, member.size)
            sample.found.append((member.name, part))
        elif ending in ("cls", "json"):
            file.seek(member.offset_data)
            content = file.read(min(member.size, LONGEST_LABEL))
            sample.add_label(content, ending, json_key)
    if sample.found or sample.label or sample.wrong:
        yield sample


def _members(shard: Container) -> Iterator[tuple[tarfile.TarInfo, IO[bytes]]]:
    """The files in a shard, with the shard itself. InputError if it is damaged."""
    try:
        with open(shard.path, "rb") as file, tarfile.open(fileobj=file, mode="r:") as tar:
            while member := tar.next():
                cast(Any, tar).members.clear()  # else it keeps those of all samples
                if member.isreg():
                    yield member, file
            _require_end(file, tar.offset)
    except tarfile.TarError as error:
        raise InputError(
            f"{shard.path} is no tar file, or not whole ({error}): copy it again, or unpack it "
            "if it is packed"
        ) from None


def _require_end(file: IO[bytes], offset: int) -> None:
    """tarfile.ReadError unless zeros follow, and they alone: tarfile takes a damaged header for the
    end, stops at that of the first of two shards in one file, and reads a file that was cut where a
    member begins as a whole one."""
    file.seek(offset)
    if not file.peek(1):  # type: ignore[attr-defined]
        raise tarfile.ReadError("the mark of its end is missing")
    while block := file.read(2**20):
        if block.strip(b"\0"):
            raise tarfile.ReadError(f"it goes on after byte {offset}, where a member must begin")
