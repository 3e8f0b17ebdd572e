"""A CSV file that names the files of a folder, and the class of each: in a column, or in columns
of 0 and 1, one a class.

`prepare.path` is the folder, so that DVC tracks the table and the files as one dependency.
"""

import codecs
import csv
import json
import ntpath
import os
import posixpath
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from src.base.files import scratch_database
from src.base.words import counted, either
from src.plumbing.errors import InputError
from src.plumbing.params import did_you_mean
from src.preparation.classes import Choice
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
from src.preparation.sources.paths import ANY_ENDING, FilesBelow, Pattern, Tried
from src.preparation.targets import FLAGS, ONE_CLASS, YES, columns_of_flags, require_one_class

DELIMITERS = {"comma": ",", "semicolon": ";", "tab": "\t", "pipe": "|"}
# What a text that is not UTF-8 is shown as, so that its writer recognises the right encoding.
OTHER_ENCODINGS = ("cp1251", "cp1252", "gb18030", "shift_jis")
# Beyond this share of samples whose rows contradict each other, a row is no slip of the pen: each
# names one of several labels. (choice)
SEVERAL_LABELS = 0.1
OTHER_LABELS = "its rows have different labels"
ABSOLUTE, OUTSIDE = "its path is absolute", "its path leads out of the data folder"
SEVERAL_ONES = "more than one of its label columns is 1"


def csv_table(params: Mapping[str, Any], files: Files) -> Source:
    """The samples that `prepare.csv_file` names. Labels are text exactly as written."""
    root = data_folder(params["prepare.path"], "csv", "with the table and the files")
    table = _Table(root, params)
    database = scratch_database()
    database.execute(
        "CREATE TABLE samples (path TEXT PRIMARY KEY, line INTEGER, label TEXT, split TEXT, "
        "grouped TEXT, refused TEXT, detail TEXT, astray TEXT)"
    )
    below, tried = FilesBelow(database, root, files), Tried()
    repeated = _fill(database, table, below, tried, Choice.of(params))

    def found(sql: str) -> list[Any]:
        return [row[0] for row in database.execute(sql)]

    (total,) = found("SELECT count(*) FROM samples")
    _require_one_row(database, table, total)
    path_column = table.columns["path"]
    advice = tried.advice(below, path_column, table.path) if tried.missing else None
    if tried.missing == total:
        raise InputError(
            f"{table.name}: no path in column {path_column} leads to a file in {root}: tried "
            f"{tried.first}; "
            + (advice or "correct them, or set prepare.csv_path_pattern, such as 'images/*.jpg'")
        )
    sql = "SELECT label, count(*) FROM samples WHERE refused IS NULL GROUP BY label"
    counts: dict[str, int] = dict(database.execute(sql))
    classes = sorted(counts)
    if len(classes) < 2:
        raise InputError(
            f"{table.name} must name at least two classes in {table.label_columns}; "
            f"found {len(classes)}" + _first_refused(database)
        )
    if not table.flags:
        require_one_class(counts, f"{table.name}: {table.label_columns}")
    given: list[str] = []
    if "split" in table.columns:
        given = found("SELECT DISTINCT split FROM samples WHERE refused IS NULL")
        if "train" not in given:
            raise InputError(f"{table.name}: no row of column {table.columns['split']} says train")
    (without_row,) = found(
        "SELECT count(*) FROM files WHERE path NOT IN (SELECT path FROM samples)"
    )
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
    items = _items(root, files, database, label_of, advice)
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
        label = params["prepare.csv_label_column"]
        self.flags: list[str] = label if isinstance(label, list) else []
        if self.flags and (len(self.flags) < 2 or len(set(self.flags)) < len(self.flags)):
            raise InputError(
                "params.yaml: prepare.csv_label_column must list at least two columns, each once"
            )
        names = {
            "path": params["prepare.csv_path_column"],
            "label": "none" if self.flags else label,
            "split": params["prepare.csv_split_column"],
            "group": params["prepare.csv_group_column"],
        }
        self.columns = {
            column: name
            for column, name in names.items()
            if column == "path" or (column == "label" and not self.flags) or name != "none"
        }
        self.pattern = Pattern(params["prepare.csv_path_pattern"], self.columns["path"])
        # What is read, with the key of params.yaml that names it.
        self.keys = {
            **dict.fromkeys(self.flags, "csv_label_column"),
            **dict.fromkeys(self.pattern.columns, "csv_path_pattern"),
            **{name: f"csv_{column}_column" for column, name in self.columns.items()},
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
            if all(read.count(name) == 1 for name in self.keys):
                return delimiter, read
            if len(read) > len(header):
                header, read_with = read, delimiter
        if unreadable and len(header) < 2:
            raise unreadable[0]
        if not "".join(header).strip():
            raise InputError(f"{self.name} is empty: its first line must name the columns")
        for name, key in self.keys.items():
            if header.count(name) > 1:
                raise InputError(f"{self.name} has two columns {name}: rename one of them")
            if name not in header and name == self.columns.get("label"):
                self._refuse_flags(name, header, read_with)
            if name not in header:
                raise InputError(
                    f"{self.name} has no column {name} (prepare.{key}); its first "
                    f"line must name the columns, and names {', '.join(map(repr, header))[:150]}"
                )
        raise AssertionError("a column is missing or there twice")

    def _refuse_flags(self, name: str, header: list[str], delimiter: str) -> None:
        """InputError if columns of 0 and 1 stand in place of the column of labels `name`."""
        if did_you_mean(name, header):
            return

        def rows() -> Iterator[list[str]]:
            return (row for _, row in self._records(delimiter))

        one_hot = columns_of_flags(rows(), empty_is_no=True)
        places = [header.index(flag) for flag in one_hot]
        # A row that is cut short is refused later, and says nothing of the others.
        whole = (row for row in islice(rows(), 1, None) if len(row) == len(header))
        if len(one_hot) > 1 and all(
            sum(row[place].strip().lower() in YES for place in places) == 1 for row in whole
        ):
            listed = ", ".join(f if f.isidentifier() else json.dumps(f) for f in one_hot)
            raise InputError(
                f"{self.name} has no column {name} (prepare.csv_label_column), and a single 1 a "
                f"row in {len(one_hot)} columns of 0 and 1: if they are the classes, set "
                f"prepare.csv_label_column to [{listed}]"
            )
        flags = columns_of_flags(rows())
        if len(flags) > 1:
            raise InputError(
                f"{self.name} has no column {name} (prepare.csv_label_column), and a label in each "
                f"of {len(flags)} columns of 0 and 1, such as {' and '.join(flags[:2])} "
                f"(multi-label), {ONE_CLASS}: add a column {name} with one class a row, or set "
                "prepare.csv_label_column to one of these, whose 0 and 1 are then the classes, or "
                "to the list of those that are 1 once a row"
            )

    @property
    def label_columns(self) -> str:
        """Where the labels stand, for a line."""
        if not self.flags:
            return f"column {self.columns['label']}"
        return f"the {len(self.flags)} columns of prepare.csv_label_column"

    def label(self, values: Mapping[str, str]) -> tuple[str, str]:
        """The class of a row, and what is wrong with it."""
        if not self.flags:
            label = values[self.columns["label"]]
            return label, "" if label else "its row has no label"
        ones = []
        for name in self.flags:
            flag = values[name].strip().lower()
            if flag not in FLAGS:
                return "", f"column {name} of its row holds '{values[name]}', and not 0 or 1"
            ones += [name] if flag in YES else []
        if len(ones) == 1:
            return ones[0], ""
        return "", SEVERAL_ONES if ones else "none of its label columns is 1"

    def rows(self) -> Iterator[tuple[int, dict[str, str], str]]:
        """Line number, values by name of column, and what is wrong with the row."""
        places = {name: self.header.index(name) for name in self.keys}
        records = self._records(self.delimiter)
        next(records)
        for line, row in records:
            if not any(row):
                continue
            values = {n: row[place] if place < len(row) else "" for n, place in places.items()}
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


def _fill(
    database: sqlite3.Connection,
    table: _Table,
    below: FilesBelow,
    tried: Tried,
    choice: Choice,
) -> int:
    """The rows into the database; the number of those that repeat another."""
    repeated, any_row = 0, False
    for line, values, wrong in table.rows():
        any_row = True
        group = values[table.columns["group"]] or None if "group" in table.columns else None
        path, refused, astray = _path(table, values, line, below)
        label, wrong_label = table.label(values)
        split = None
        if "split" in table.columns:
            split = SPLIT_NAMES.get(values[table.columns["split"]].strip().lower())
        if wrong or wrong_label or "\r" in label:
            refused = wrong or wrong_label or "its row has a carriage return in the label"
        elif "split" in table.columns and split is None:
            refused = "its row has a split that is none of train, val, test"
        sql = "SELECT label, split, grouped, refused, line FROM samples WHERE path = ?"
        *known, first = database.execute(sql, (path,)).fetchone() or (None,)
        if first is None:
            row = (path, line, label, split, group, refused, "", astray)
            database.execute("INSERT INTO samples VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row)
            tried.add({n: v for n, v in values.items() if n not in table.flags}, astray)
            continue
        # Labels that prepare.merge makes one do not differ.
        one = (first, choice.name(known[0]), *known[1:3])
        other = (line, choice.name(label), split, group)
        if (*one[1:], known[3]) == (*other[1:], refused):
            repeated += 1
        elif known[3] is None:  # else the first reason stays
            reason, detail = (refused, "") if refused else _difference(one, other)
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
    count, path = database.execute(sql, (SEVERAL_ONES,)).fetchone()
    if count > SEVERAL_LABELS * total:
        raise InputError(
            f"{table.name} holds several labels a sample, in {table.label_columns}, for {count} of "
            f"{total} samples, such as {path} (multi-label), {ONE_CLASS}: name columns of which a "
            "row has a single 1"
        )


def _path(
    table: _Table, values: Mapping[str, str], line: int, below: FilesBelow
) -> tuple[str, str | None, str | None]:
    """The path relative to the folder, why it is refused, and what was tried if that leads to no
    file of the folder."""
    written, ending = table.pattern.path(values), ""
    if table.pattern.has_any_ending and written:
        stem, refused = _clean_path(written, line, table.root)
        found = below.with_ending(stem)
        if len(found) > 1:
            return written, f"several files fit its path ({', '.join(found)})", None
        written, ending = (found[0], "") if found and not refused else (written, ANY_ENDING)
    path, refused = _clean_path(written, line, table.root)
    if refused:
        is_elsewhere = refused in (ABSOLUTE, OUTSIDE)
        return path, refused, f"{written}, but {refused}" if is_elsewhere else None
    if below.has(path + ending):
        return path, None, None
    return path + ending, None, os.path.join(table.root, path + ending)


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
        return path, ABSOLUTE
    clean = posixpath.normpath(path)
    if clean == ".." or clean.startswith("../"):
        return path, OUTSIDE
    if through_a_link(str(root), posixpath.dirname(clean)):
        return clean, "its path leads through a link to a folder, and DVC does not look into it"
    refused = refuse_name(clean)
    return text_of(clean) if refused else clean, refused.reason if refused else None


def _first_refused(database: sqlite3.Connection) -> str:
    sql = "SELECT line, refused, detail FROM samples WHERE refused IS NOT NULL ORDER BY line"
    row = database.execute(sql).fetchone()
    return f"; line {row[0]}: {row[1]}{row[2] and f' ({row[2]})'}" if row else ""


def _items(
    root: Path,
    files: Files,
    database: sqlite3.Connection,
    label_of: Mapping[str, int],
    advice: str | None,
) -> Iterator[Item]:
    """Given test and val splits first: what they hold is not learnt. `advice` for what is not
    there."""
    sql = (
        "SELECT path, line, label, split, grouped, refused, detail, astray FROM samples ORDER BY "
        "CASE split WHEN 'test' THEN 0 WHEN 'val' THEN 1 ELSE 2 END, line, path"
    )
    for path, line, label, split, group, refused, detail, astray in database.execute(sql):
        remedy = "keep one of the rows" if detail else f"correct the row (line {line})"
        remedy = f"{remedy}, or {advice}" if astray and advice else remedy
        known = -1 if refused == OTHER_LABELS else label_of.get(label, -1)
        if refused:
            yield Item(path, known, Rejected(refused, remedy, detail))
        elif astray:
            yield Item(path, known, Rejected("it does not exist", remedy, f"tried {astray}"))
        else:
            given = None if split == "train" else split
            yield Item(path, label_of[label], files.reader(str(root / path)), given, group)
