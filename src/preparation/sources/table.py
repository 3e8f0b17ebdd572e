"""A CSV file that names the files of a folder, and the class of each: in a column, or in columns
of 0 and 1, one a class.

`prepare.path` is the folder, so that DVC tracks the table and the files as one dependency.
"""

import ntpath
import os
import posixpath
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from src.base.files import scratch_database
from src.base.words import counted, either
from src.plumbing.errors import InputError
from src.preparation.classes import Choice
from src.preparation.sources.base import (
    OTHER_SPLIT,
    SHOWN,
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
    what_they_say,
)
from src.preparation.sources.paths import ANY_ENDING, FilesBelow, Tried
from src.preparation.sources.table_file import SEVERAL_ONES, TableFile
from src.preparation.targets import ONE_CLASS, require_one_class

# Beyond this share of samples whose rows contradict each other, a row is no slip of the pen: each
# names one of several labels. (choice)
SEVERAL_LABELS = 0.1
OTHER_LABELS = "its rows have different labels"
DIFFERENCES = (OTHER_LABELS, "its rows have different splits", "its rows have different groups")
ABSOLUTE, OUTSIDE = "its path is absolute", "its path leads out of the data folder"


def csv_table(params: Mapping[str, Any], files: Files) -> Source:
    """The samples that `prepare.csv_file` names. Labels are text exactly as written."""
    root = data_folder(params["prepare.path"], "csv", "with the table and the files")
    table = TableFile(root, params)
    database = scratch_database()
    database.execute(
        "CREATE TABLE samples (path TEXT PRIMARY KEY, line INTEGER, label TEXT, split TEXT, "
        "grouped TEXT, refused TEXT, detail TEXT, astray TEXT)"
    )
    below, tried = FilesBelow(database, root, files), Tried()
    repeated = _fill(database, table, below, tried, Choice.of(params))

    (total,) = database.execute("SELECT count(*) FROM samples").fetchone()
    _require_one_row(database, table, total)
    path_column = table.columns["path"]
    advice = tried.advice(below, path_column, table.path) if tried.missing else None
    if tried.missing == total:
        raise InputError(
            f"{table.name}: no path in column {path_column} leads to a file in {root}: tried "
            f"{tried.first}; "
            + (advice or "correct them, or set prepare.csv_path_pattern, such as 'images/*.jpg'")
        )
    given = _given(database, table)
    classes = _classes(database, table)
    sql = "SELECT count(*) FROM files WHERE path NOT IN (SELECT path FROM samples)"
    (without_row,) = database.execute(sql).fetchone()
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


def _given(database: sqlite3.Connection, table: TableFile) -> list[str]:
    """The splits that rows which can be used name; InputError if train is none of them."""
    if "split" not in table.columns:
        return []
    sql = "SELECT DISTINCT split FROM samples WHERE refused IS NULL"
    given = [split for (split,) in database.execute(sql)]
    sql = "SELECT DISTINCT detail FROM samples WHERE refused = ? LIMIT ?"
    others = [detail for (detail,) in database.execute(sql, (OTHER_SPLIT, SHOWN + 1))]
    if "train" not in given and (given or others):  # else the rows have other faults
        of = f"{table.name}: no row of column {table.columns['split']}"
        raise InputError(f"{of} says train{what_they_say(others)}")
    return given


def _classes(database: sqlite3.Connection, table: TableFile) -> list[str]:
    """The labels of the rows that can be used, sorted; InputError if they are no classes."""
    sql = "SELECT label, count(*) FROM samples WHERE refused IS NULL GROUP BY label"
    counts: dict[str, int] = dict(database.execute(sql))
    if len(counts) < 2:
        raise InputError(
            f"{table.name} must name at least two classes in {table.label_columns}; "
            f"found {len(counts)}" + _first_refused(database)
        )
    if not table.flags:
        require_one_class(counts, f"{table.name}: {table.label_columns}")
    return sorted(counts)


def _fill(
    database: sqlite3.Connection,
    table: TableFile,
    below: FilesBelow,
    tried: Tried,
    choice: Choice,
) -> int:
    """The rows into the database; the number of those that repeat another."""
    repeated, any_row = 0, False
    for line, values, wrong in table.rows():
        any_row = True
        group = values[table.columns["group"]] if "group" in table.columns else None
        group = group if group and group.strip() else None
        path, refused, astray = _path(table, values, line, below)
        label, wrong_label = table.label(values)
        split, detail = None, ""
        if "split" in table.columns:
            word = values[table.columns["split"]].strip()
            split = SPLIT_NAMES.get(word.lower())
        if wrong or wrong_label or "\r" in label:
            refused = wrong or wrong_label or "its row has a carriage return in the label"
        elif "split" in table.columns and split is None:
            refused, detail = OTHER_SPLIT, repr(word)
        sql = "SELECT label, split, grouped, refused, line FROM samples WHERE path = ?"
        *known, first = database.execute(sql, (path,)).fetchone() or (None,)
        if first is None:
            row = (path, line, label, split, group, refused, detail, astray)
            database.execute("INSERT INTO samples VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row)
            tried.add({n: v for n, v in values.items() if n not in table.flags}, astray)
            continue
        # Labels that prepare.merge makes one do not differ.
        one = (first, choice.name(known[0]), *known[1:3])
        other = (line, choice.name(label), split, group)
        if (*one[1:], known[3]) == (*other[1:], refused):
            repeated += 1
        elif known[3] is None:  # else the first reason stays
            reason, detail = (refused, detail) if refused else _difference(one, other)
            sql = "UPDATE samples SET refused = ?, line = ?, detail = ? WHERE path = ?"
            database.execute(sql, (reason, line, detail, path))
    if not any_row:
        raise InputError(f"{table.name} has a header and no rows: add a row for each sample")
    return repeated


def _difference(one: Sequence[Any], other: Sequence[Any]) -> tuple[str, str]:
    """What two rows of a sample (line, label, split, group) say differently, and how both do."""
    for reason, a, b in zip(DIFFERENCES, one[1:], other[1:], strict=True):
        if a != b:
            return reason, f"line {one[0]}: {a or ''!r}, line {other[0]}: {b or ''!r}"
    return "", ""


def _require_one_row(database: sqlite3.Connection, table: TableFile, total: int) -> None:
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
    table: TableFile, values: Mapping[str, str], line: int, below: FilesBelow
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
    if os.path.isdir(table.root / path):
        return path, "its path is that of a folder", None
    if below.has(path + ending):
        return path, None, None
    below.require_open(path)
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
        is_several = refused in DIFFERENCES
        remedy = "keep one of the rows" if is_several else f"correct the row (line {line})"
        remedy = f"{remedy}, or {advice}" if astray and advice else remedy
        known = -1 if refused == OTHER_LABELS else label_of.get(label, -1)
        if refused:
            yield Item(path, known, Rejected(refused, remedy, detail))
        elif astray:
            yield Item(path, known, Rejected("it does not exist", remedy, f"tried {astray}"))
        else:
            given = None if split == "train" else split
            yield Item(path, label_of[label], files.reader(str(root / path)), given, group)
