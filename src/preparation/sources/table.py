"""A CSV file that names the files of a folder, and the class of each.

`prepare.path` is the folder, so that DVC tracks the table and the files as one dependency.
"""

import codecs
import csv
import ntpath
import os
import posixpath
import sqlite3
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from src.base.files import scratch_database
from src.base.words import counted, either
from src.plumbing.errors import InputError
from src.plumbing.params import did_you_mean
from src.preparation.sources.base import (
    SPLIT_NAMES,
    Files,
    Item,
    Rejected,
    Source,
    data_folder,
    is_url,
    refuse_name,
    remark_on_twins,
    text_of,
    through_a_link,
)
from src.preparation.sources.folder import walk
from src.preparation.targets import ONE_CLASS, columns_of_flags, require_one_class

DELIMITERS = {"comma": ",", "semicolon": ";", "tab": "\t", "pipe": "|"}
# What a text that is not UTF-8 is shown as, so that its writer recognises the right encoding.
OTHER_ENCODINGS = ("cp1251", "cp1252", "gb18030", "shift_jis")
# Beyond this share of samples whose rows contradict each other, a row is no slip of the pen: each
# names one of several labels. (choice)
SEVERAL_LABELS = 0.1
OTHER_LABELS = "its rows have different labels"


def csv_table(params: Mapping[str, Any], files: Files) -> Source:
    """The samples that `prepare.csv_file` names. Labels are text exactly as written."""
    root = data_folder(params["prepare.path"], "csv", "with the table and the files")
    table = _Table(root, params)
    database = scratch_database()
    database.execute(
        "CREATE TABLE samples (path TEXT PRIMARY KEY, line INTEGER, label TEXT, split TEXT, "
        "grouped TEXT, refused TEXT, detail TEXT)"
    )
    repeated = _fill(database, table)

    def found(sql: str) -> list[Any]:
        return [row[0] for row in database.execute(sql)]

    (total,) = found("SELECT count(*) FROM samples")
    _require_one_row(database, table, total)
    sql = "SELECT label, count(*) FROM samples WHERE refused IS NULL GROUP BY label"
    counts: dict[str, int] = dict(database.execute(sql))
    classes = sorted(counts)
    if len(classes) < 2:
        raise InputError(
            f"{table.name} must name at least two classes in column {table.columns['label']}; "
            f"found {len(classes)}" + _first_refused(database)
        )
    require_one_class(counts, f"{table.name}: column {table.columns['label']}")
    given: list[str] = []
    if "split" in table.columns:
        given = found("SELECT DISTINCT split FROM samples WHERE refused IS NULL")
        if "train" not in given:
            raise InputError(f"{table.name}: no row of column {table.columns['split']} says train")
    without_row = _without_a_row(root, files, database)
    notes = {
        "given_splits": sorted(given),
        "repeated_rows": repeated,
        "pictures_without_a_row": without_row,
        "encoding": table.encoding,
        "delimiter": table.delimiter,
    }
    remarks = remark_on_twins(classes)
    if repeated:
        says = f"{counted(repeated, 'row')} of {table.name} {either(repeated, 'says', 'say')}"
        remarks.append(f"{says} again what another one says")
    if without_row:
        are = f"{counted(without_row, 'file')} in {root} {either(without_row, 'is', 'are')}"
        remarks.append(f"{are} in no row of {table.name}")
    label_of = {name: label for label, name in enumerate(classes)}
    items = _items(root, files, database, label_of)
    return Source(
        classes,
        items,
        total,
        frozenset(given),
        grouped="group" in table.columns,
        notes=notes,
        remarks=remarks,
    )


class _Table:
    """The file, its encoding, delimiter and the place of the columns."""

    def __init__(self, root: Path, params: Mapping[str, Any]):
        file = params["prepare.csv_file"]
        self.root, self.path = root, root / file
        self.name = str(self.path)
        if Path(file).is_absolute() or ".." in self.path.relative_to(root).parts:
            raise InputError(
                "params.yaml: prepare.csv_file must lie in prepare.path, which DVC tracks"
            )
        if not os.path.isfile(self.path):  # Path's own raises where a name is too long
            raise InputError(f"params.yaml: prepare.csv_file {file} is no file in {root}")
        self.encoding = _encoding_of(self.path, params["prepare.csv_encoding"])
        names = {
            "path": params["prepare.csv_path_column"],
            "label": params["prepare.csv_label_column"],
            "split": params["prepare.csv_split_column"],
            "group": params["prepare.csv_group_column"],
        }
        self.columns = {
            column: name
            for column, name in names.items()
            if column in ("path", "label") or name != "none"
        }
        self.delimiter, self.header = self._read_header(params["prepare.csv_delimiter"])

    def _records(self, delimiter: str) -> Iterator[tuple[int, list[str]]]:
        """Line number and fields of each record, which may go over several lines."""
        with open(self.path, encoding=self.encoding, newline="") as file:
            reader = csv.reader(file, delimiter=DELIMITERS[delimiter], strict=True)
            try:
                for row in reader:
                    yield reader.line_num, row
            except csv.Error as error:
                raise InputError(
                    f"{self.name}, near line {reader.line_num}: {error}: close its quotes or "
                    "save the table again"
                ) from None

    def _read_header(self, wanted: str) -> tuple[str, list[str]]:
        """The delimiter, by name, and the fields of the first line."""
        header, read_with, unreadable = list[str](), wanted, list[InputError]()
        for delimiter in DELIMITERS if wanted == "auto" else [wanted]:
            try:
                _, read = next(self._records(delimiter), (0, []))
            except InputError as error:  # quotes that end amiss with a wrong delimiter
                unreadable.append(error)
                continue
            if all(read.count(name) == 1 for name in self.columns.values()):
                return delimiter, read
            if len(read) > len(header):
                header, read_with = read, delimiter
        if unreadable and len(header) < 2:
            raise unreadable[0]
        if not "".join(header).strip():
            raise InputError(f"{self.name} is empty: its first line must name the columns")
        for column, name in self.columns.items():
            if header.count(name) > 1:
                raise InputError(f"{self.name} has two columns {name}: rename one of them")
            if name not in header and column == "label":
                self._refuse_flags(name, header, read_with)
            if name not in header:
                raise InputError(
                    f"{self.name} has no column {name} (prepare.csv_{column}_column); its first "
                    f"line must name the columns, and names {', '.join(map(repr, header))[:150]}"
                )
        raise AssertionError("a column is missing or there twice")

    def _refuse_flags(self, name: str, header: list[str], delimiter: str) -> None:
        """InputError if columns of 0 and 1 stand in place of the column of labels `name`."""
        if did_you_mean(name, header):
            return
        flags = columns_of_flags(row for _, row in self._records(delimiter))
        if len(flags) > 1:
            raise InputError(
                f"{self.name} has no column {name} (prepare.csv_label_column), and a label in each "
                f"of {len(flags)} columns of 0 and 1, such as {' and '.join(flags[:2])} "
                f"(multi-label), {ONE_CLASS}: add a column {name} with one class a row, or set "
                "prepare.csv_label_column to one of these, whose 0 and 1 are then the classes"
            )

    def rows(self) -> Iterator[tuple[int, dict[str, str], str]]:
        """Line number, values by column, and what is wrong with the row."""
        places = {column: self.header.index(name) for column, name in self.columns.items()}
        records = self._records(self.delimiter)
        next(records)
        for line, row in records:
            if not any(row):
                continue
            values = {c: row[place] if place < len(row) else "" for c, place in places.items()}
            fields, wanted = len(row), len(self.header)
            wrong = (
                f"its row has {counted(fields, 'field')} instead of {wanted}"
                if fields != wanted
                else ""
            )
            yield line, values, wrong


def _encoding_of(path: Path, wanted: str) -> str:
    """`wanted`, or for `auto` by the byte-order mark, else UTF-8. InputError if it does not fit."""
    with open(path, "rb") as file:
        utf16 = file.read(2) in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
    encoding = wanted
    if wanted == "auto":
        encoding = "utf-16" if utf16 else "utf-8"
    try:
        if codecs.lookup(encoding).name == "utf-8":
            encoding = "utf-8-sig"  # the same, and leaves out a byte-order mark
        with open(path, encoding=encoding, newline="") as text:
            while text.read(2**20):
                pass
    except LookupError:
        raise InputError(
            f"params.yaml: prepare.csv_encoding {wanted} is no encoding: set auto, utf-8, cp1251"
        ) from None
    except UnicodeError as error:
        if utf16 and codecs.lookup(encoding).name == "utf-16":
            reason = error.reason if isinstance(error, UnicodeDecodeError) else error
            raise InputError(
                f"{path} is UTF-16 by its first bytes and is cut short or damaged ({reason}): "
                "copy it again"
            ) from None
        if wanted != "auto":
            raise InputError(f"{path} is not written in {wanted} (prepare.csv_encoding)") from None
        with open(path, "rb") as file:
            odd = next(line for line in file if not line.isascii())[:60].strip()
        shown = ", ".join(f"{name} '{odd.decode(name, 'replace')}'" for name in OTHER_ENCODINGS)
        raise InputError(
            f"{path} is not UTF-8: set prepare.csv_encoding to the one that reads right: {shown}"
        ) from None
    return encoding


def _fill(database: sqlite3.Connection, table: _Table) -> int:
    """The rows into the database; the number of those that repeat another."""
    repeated, any_row = 0, False
    for line, values, wrong in table.rows():
        any_row = True
        label, group = values["label"], values.get("group") or None
        path, refused = _clean_path(values["path"], line, table.root)
        split = SPLIT_NAMES.get(values.get("split", "").strip().lower())
        if wrong or not label or "\r" in label:
            of_label = "a carriage return in the label" if label else "no label"
            refused = wrong or f"its row has {of_label}"
        elif "split" in table.columns and split is None:
            refused = "its row has a split that is none of train, val, test"
        sql = "SELECT label, split, grouped, refused, line FROM samples WHERE path = ?"
        *known, first = database.execute(sql, (path,)).fetchone() or (None,)
        if first is None:
            row = (path, line, label, split, group, refused, "")
            database.execute("INSERT INTO samples VALUES (?, ?, ?, ?, ?, ?, ?)", row)
        elif known == [label, split, group, refused]:
            repeated += 1
        elif known[3] is None:  # else the first reason stays
            differs = _difference((first, *known[:3]), (line, label, split, group))
            reason, detail = (refused, "") if refused else differs
            sql = "UPDATE samples SET refused = ?, line = ?, detail = ? WHERE path = ?"
            database.execute(sql, (reason, line, detail, path))
    if not any_row:
        raise InputError(f"{table.name} has a header and no rows: add a row for each sample")
    return repeated


def _difference(one: Sequence[Any], other: Sequence[Any]) -> tuple[str, str]:
    """What two rows of a sample (line, label, split, group) say differently, and how both do."""
    reasons = (OTHER_LABELS, "its rows have different splits", "its rows have different groups")
    for reason, a, b in zip(reasons, one[1:], other[1:], strict=True):
        if a != b:
            return reason, f"line {one[0]}: {a or ''!r}, line {other[0]}: {b or ''!r}"
    return "", ""


def _require_one_row(database: sqlite3.Connection, table: _Table, total: int) -> None:
    """InputError if many samples have rows with different labels: one row for each label."""
    sql = "SELECT count(*), min(path) FROM samples WHERE refused = ?"
    count, path = database.execute(sql, (OTHER_LABELS,)).fetchone()
    if count > SEVERAL_LABELS * total:
        raise InputError(
            f"{table.name} holds several labels a sample, in rows of their own, for {count} of "
            f"{total} samples, such as {path} (multi-label), {ONE_CLASS}: keep one row a sample"
        )


def _clean_path(path: str, line: int, root: Path) -> tuple[str, str | None]:
    """The path relative to the folder, and why it is refused."""
    if not path.strip():
        return f"(line {line})", "its row has no path"
    if is_url(path):
        return path, "its path is an address, and nothing is downloaded"
    if "\0" in path:
        return path.replace("\0", "\\0"), "its path has a zero byte in it"
    if "\\" in path and not os.path.lexists(root / path):
        path = path.replace("\\", "/")  # as Windows writes them
    if posixpath.isabs(path) or ntpath.splitdrive(path)[0]:
        return path, "its path is absolute"
    clean = posixpath.normpath(path)
    if clean == ".." or clean.startswith("../"):
        return path, "its path leads out of the data folder"
    if through_a_link(str(root), posixpath.dirname(clean)):
        return clean, "its path leads through a link to a folder, and DVC does not look into it"
    refused = refuse_name(clean)
    return text_of(clean) if refused else clean, refused.reason if refused else None


def _first_refused(database: sqlite3.Connection) -> str:
    sql = "SELECT line, refused, detail FROM samples WHERE refused IS NOT NULL ORDER BY line"
    row = database.execute(sql).fetchone()
    return f"; line {row[0]}: {row[1]}{row[2] and f' ({row[2]})'}" if row else ""


def _without_a_row(root: Path, files: Files, database: sqlite3.Connection) -> int:
    sql = "SELECT 1 FROM samples WHERE path = ?"
    return sum(
        database.execute(sql, (os.path.relpath(path, root),)).fetchone() is None
        for path, read in walk(root, files, Counter())
        if not isinstance(read, Rejected)
    )


def _items(
    root: Path, files: Files, database: sqlite3.Connection, label_of: Mapping[str, int]
) -> Iterator[Item]:
    """Given test and val splits first: what they hold is not learnt."""
    sql = (
        "SELECT path, line, label, split, grouped, refused, detail FROM samples ORDER BY "
        "CASE split WHEN 'test' THEN 0 WHEN 'val' THEN 1 ELSE 2 END, line, path"
    )
    for path, line, label, split, group, refused, detail in database.execute(sql):
        if refused:
            remedy = "keep one of the rows" if detail else f"correct the row (line {line})"
            yield Item(path, 0, Rejected(refused, remedy, detail))
        else:
            given = None if split == "train" else split
            yield Item(path, label_of[label], files.reader(str(root / path)), given, group)
