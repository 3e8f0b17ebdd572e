"""Samples in Parquet files, as Hugging Face's `datasets` writes them: a column with the bytes of a
file each, alone or beside its path, and a column with its class.

Read a batch of rows at a time. Names of classes come from the schema where it has them.
Format: https://huggingface.co/docs/datasets/image_dataset and about_dataset_features
"""

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from src.plumbing.errors import InputError
from src.preparation.sources.base import (
    OTHER_SPLIT,
    SHOWN,
    SPLIT_NAMES,
    Files,
    Item,
    Rejected,
    Source,
    remark_on_twins,
    what_they_say,
)
from src.preparation.sources.containers import SPLITS, Container, find_containers, sorted_classes
from src.preparation.targets import ONE_CLASS, require_one_class

if TYPE_CHECKING:
    from pyarrow import Array, DataType, Schema
    from pyarrow.parquet import ParquetFile

ROWS = 64  # that are read at a time, so that memory has a bound (choice)
BUFFER = 2**20  # bytes that are read at a time; by default the whole file is read ahead (measured)
NO_LABEL = Rejected("its row has no class", "add its class, or remove the row")
NO_BYTES = Rejected("its row has no bytes", "save the table with the files in it, not their paths")


@dataclass(frozen=True)
class Held:
    """Bytes that are here already."""

    content: bytes

    def __call__(self) -> bytes:
        return self.content


@dataclass(frozen=True)
class _Columns:
    """The names of columns, and of the classes by number where the schema names them."""

    content: str
    label: str
    split: str | None
    group: str | None
    names: tuple[str, ...] | None

    def class_of(self, value: Any) -> str | None:
        """The class that a value of the column says; None if it says none."""
        if value is None or value != value or not str(value).strip():  # not itself: no number
            return None
        if self.names is None:
            return str(value)
        return self.names[value] if 0 <= value < len(self.names) else None


def parquet_tables(params: Mapping[str, Any], files: Files) -> Source:
    """The rows of the .parquet files below `prepare.path`, in their order. Splits are those that
    `prepare.csv_split_column` says, or else the names of the files, or else by hash."""
    containers = find_containers(params["prepare.path"], "parquet", ".parquet")
    columns = _columns_of_all(containers.found, params)
    counts, given, total = Counter[str](), set(containers.notes["given_splits"]), 0
    others = set[str]()  # of what the column of splits says
    if columns.split:
        given.clear()
    for _, row in _rows(containers.found, columns, with_content=False):
        total += 1
        if columns.split:
            if split := _split(row["split"]):
                given.add(split)
            elif len(others) <= SHOWN:
                others.add(repr(str(row["split"])))
        if name := columns.class_of(row["label"]):
            counts[name] += 1
    classes = [name for name in columns.names or sorted_classes(list(counts)) if counts[name]]
    if len(classes) < 2:
        raise InputError(
            f"{containers.root}: column {columns.label} must name at least two classes, found "
            f"{len(classes)}"
        )
    require_one_class(counts, f"{containers.root}: column {columns.label}")
    if columns.split and "train" not in given:
        of = f"{containers.root}: no row of column {columns.split}"
        raise InputError(f"{of} says train{what_they_say(others)}")
    return Source(
        classes,
        _items(containers.found, columns, files, {name: n for n, name in enumerate(classes)}),
        total,
        frozenset(given),
        grouped=columns.group is not None,
        notes={**containers.notes, "given_splits": sorted(given)},
        remarks=remark_on_twins(classes) + containers.remarks,
    )


def _items(
    found: list[Container], columns: _Columns, files: Files, label_of: Mapping[str, int]
) -> Iterator[Item]:
    """With a column of splits the files are read once for each split."""
    for turn in SPLITS if columns.split else (None,):
        for file, row in _rows(found, columns):
            split = file.split
            if columns.split:
                split = _split(row["split"])
                if (split or "train") != turn:
                    continue
            name, label = f"{file.name}/{row['number']:07d}", columns.class_of(row["label"])
            refused = NO_BYTES if not row["content"] else NO_LABEL if label is None else None
            if columns.split and split is None:
                refused = Rejected(OTHER_SPLIT, "correct the row", repr(str(row["split"])))
            if refused:
                yield Item(name, -1, refused)
            else:
                read = files.content(Held(row["content"]))
                group = None if row["group"] in (None, "") else str(row["group"])
                item_split = None if split == "train" else split
                yield Item(name, label_of[str(label)], read, item_split, group)


def _split(value: Any) -> str | None:
    return SPLIT_NAMES.get(str(value).strip().lower())


def _rows(
    found: list[Container], columns: _Columns, with_content: bool = True
) -> Iterator[tuple[Container, dict[str, Any]]]:
    """Each row: its number in the file and what it has in `columns`; None for a column not set."""
    wanted = {"label": columns.label, "split": columns.split, "group": columns.group}
    if with_content:
        wanted["content"] = columns.content
    names = {key: name for key, name in wanted.items() if name}
    for file in found:
        number = 0
        with _opened(file) as table:
            for batch in table.iter_batches(ROWS, columns=list(names.values())):
                values = {key: _values(batch.column(name)) for key, name in names.items()}
                for index in range(batch.num_rows):
                    row = {key: array[index].as_py() for key, array in values.items()}
                    yield file, {"split": None, "group": None, "number": number, **row}
                    number += 1


def _values(array: "Array") -> "Array":
    """What a column holds: the bytes, where it has those of a file beside its path."""
    place = array.type.get_field_index("bytes") if _is_struct(array.type) else -1
    return array if place < 0 else array.flatten()[place]


@contextmanager
def _opened(file: Container) -> "Iterator[ParquetFile]":
    from pyarrow import ArrowException
    from pyarrow.parquet import ParquetFile

    try:
        with ParquetFile(file.path, pre_buffer=False, buffer_size=BUFFER) as opened:
            yield opened
    except MemoryError:
        raise
    except (ArrowException, OSError) as error:
        said = " ".join(str(error).split())[:150]
        raise InputError(f"{file.path} cannot be read as Parquet ({said}): copy it again") from None


def _columns_of_all(found: list[Container], params: Mapping[str, Any]) -> _Columns:
    """The columns, which all files must share."""
    first = None
    for file in found:
        with _opened(file) as table:
            columns = _columns(table.schema_arrow, file, params)
        if first not in (None, columns):
            raise InputError(
                f"{file.path} has other columns or classes than {found[0].path}: keep the files of "
                "one table in prepare.path"
            )
        first = columns
    assert first is not None
    return first


def _columns(schema: "Schema", file: Container, params: Mapping[str, Any]) -> _Columns:
    names = schema.names
    chosen = {
        "path": params["prepare.csv_path_column"],
        "label": params["prepare.csv_label_column"],
        "split": params["prepare.csv_split_column"],
        "group": params["prepare.csv_group_column"],
    }
    for key in ("label", "split", "group"):
        if chosen[key] not in names and (key == "label" or chosen[key] != "none"):
            raise InputError(
                f"{file.path} has no column {chosen[key]} (prepare.csv_{key}_column); it has "
                f"{', '.join(map(repr, names))[:150]}"
            )
    held = [field.name for field in schema if _holds_bytes(field.type)]
    if len(held) > 1 and chosen["path"] in held:
        held = [chosen["path"]]
    if len(held) != 1:
        which = f"several ({', '.join(held)}): set prepare.csv_path_column to one of them"
        if not held:
            which = (
                "none: save it with the files in it, or for paths of files see prepare.source=csv"
            )
        raise InputError(f"{file.path} must have a column with the bytes of files, and has {which}")
    kind = schema.field(chosen["label"]).type
    if kind.num_fields and not hasattr(kind, "index_type"):
        raise InputError(
            f"{file.path}: column {chosen['label']} holds several labels a sample (multi-label), "
            f"{ONE_CLASS}: keep one"
        )
    split, group = (None if chosen[key] == "none" else chosen[key] for key in ("split", "group"))
    class_names = _class_names(schema, chosen["label"])
    return _Columns(held[0], chosen["label"], split, group, class_names)


def _class_names(schema: "Schema", label: str) -> tuple[str, ...] | None:
    """The names of the classes in the metadata of Hugging Face; None without."""
    from pyarrow.types import is_integer

    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        names = features[label]["names"]
    except (KeyError, TypeError, ValueError):
        return None
    return tuple(map(str, names)) if is_integer(schema.field(label).type) else None


def _is_struct(kind: "DataType") -> bool:
    from pyarrow.types import is_struct

    return bool(is_struct(kind))


def _holds_bytes(kind: "DataType") -> bool:
    from pyarrow.types import is_binary, is_large_binary

    if _is_struct(kind):
        place = kind.get_field_index("bytes")
        return place >= 0 and _holds_bytes(kind.field(place).type)
    return bool(is_binary(kind) or is_large_binary(kind))
