"""From what a table writes to the files of a folder: the pattern of paths, which files are there,
and for paths that lead to none, what would."""

import os
import posixpath
import re
import sqlite3
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from src.plumbing.errors import InputError
from src.preparation.sources.base import Files, Rejected
from src.preparation.sources.folder import walk

COLUMN, ANY_ENDING = "*", ".*"  # in a pattern: what the path column holds; any ending
SAMPLED, ASTRAY = 200, 20  # rows, and rows without a file, for which paths are tried (choice)


class Pattern:
    """`prepare.csv_path_pattern`: how the path of a row is made of its fields."""

    def __init__(self, text: str, path_column: str):
        self.has_any_ending = text.count("*") > 1
        if self.has_any_ending:
            text = text.removesuffix(ANY_ENDING)
        pieces = re.split(r"\*|\{([^{}]+)\}", COLUMN if text == "none" else text)
        self.texts, self.columns = pieces[::2], [name or path_column for name in pieces[1::2]]

    def path(self, values: Mapping[str, str]) -> str:
        """The path, without its ending if that may be any; empty if a field of it is blank."""
        fields = [values[name] for name in self.columns]
        if not all(field.strip() for field in fields):
            return ""
        return "".join(text + field for text, field in zip(self.texts, [*fields, ""], strict=True))


class FilesBelow:
    """The files of samples below a folder, in a scratch database."""

    def __init__(self, database: sqlite3.Connection, root: Path, files: Files):
        self.root, self.suffixes = root, files.suffixes
        self._closed: list[tuple[str, Rejected]] = []  # folders that cannot be entered, and others
        self._database = database
        database.execute("CREATE TABLE files (path TEXT PRIMARY KEY, stem TEXT) WITHOUT ROWID")
        for path, read in walk(root, files, Counter()):
            if isinstance(read, Rejected):
                self._closed.append((os.path.relpath(path, root), read))
            else:
                inside = os.path.relpath(path, root)
                row = (inside, posixpath.splitext(inside)[0])
                database.execute("INSERT INTO files VALUES (?, ?)", row)
        database.execute("CREATE INDEX stems ON files (stem)")

    def __iter__(self) -> Iterator[str]:
        for (path,) in self._database.execute("SELECT path FROM files"):
            yield path

    def has(self, path: str) -> bool:
        """Whether something is there, if no sample by its ending."""
        sql = "SELECT 1 FROM files WHERE path = ?"
        found = self._database.execute(sql, (path,)).fetchone()
        return found is not None or os.path.lexists(self.root / path)

    def require_open(self, path: str) -> None:
        """InputError if a path, of which nothing was found, leads into a folder that cannot be
        entered: then what is there is not known."""
        for folder, why in self._closed:
            if path.startswith(f"{folder}/"):
                raise InputError(f"{self.root / folder}: {why.reason}: {why.remedy}")

    def with_ending(self, stem: str) -> list[str]:
        """The files that are called so but for their ending."""
        sql = "SELECT path FROM files WHERE stem = ? ORDER BY path LIMIT 2"
        return [path for (path,) in self._database.execute(sql, (stem,))]


class Tried:
    """What became of the paths of a table: how many led to no file, and some rows, from all over
    the table and the first without a file, with which other paths are tried."""

    def __init__(self) -> None:
        self.rows, self.missing = 0, 0
        self.first = ""  # that led nowhere
        self._sample: list[tuple[Mapping[str, str], bool]] = []  # and whether a file was there
        self._astray: list[Mapping[str, str]] = []
        self._step = 1

    def add(self, values: Mapping[str, str], tried: str | None) -> None:
        """Note a row, and what led to no file."""
        if tried:
            self.first = self.first or tried
            self.missing += 1
            self._astray += [values] if len(self._astray) < ASTRAY else []
        if self.rows % self._step == 0:
            self._sample.append((values, not tried))
            if len(self._sample) == SAMPLED:
                self._sample, self._step = self._sample[::2], 2 * self._step
        self.rows += 1

    def advice(self, files: FilesBelow, path_column: str, table: Path) -> str | None:
        """What to set or to change so that more paths lead to files; None if nothing would."""
        rows = [row for row, _ in self._sample]
        patterns: dict[tuple[bool, str], set[int]] = {}  # True: if numbers get zeros in front
        with_zeros = ""  # what to write for the first such number
        prefixes: Counter[str] = Counter()
        for number, path in _alike(rows, path_column, files):
            value = _forward(rows[number][path_column])
            called = _with_zeros_of(path, value)
            if called != value and not with_zeros:
                with_zeros = (
                    f"{path} lies there for '{value}': write '{called}', with all its zeros"
                )
            for pattern in _patterns(rows[number], called, path, path_column):
                for has_zeros in {called != value, True}:
                    patterns.setdefault((has_zeros, pattern), set()).add(number)
            if value.endswith(f"/{path}"):
                prefixes[value[: -len(path)]] += 1
        present = sum(there for _, there in self._sample)
        if patterns:
            best = min(patterns, key=lambda key: (-len(patterns[key]), key[0], _rank(key[1])))
            if (count := len(patterns[best])) > present:
                of = f"{count} of {len(rows)} rows" if len(rows) > 1 else "it"
                of += " looked at" if self._step > 1 else ""
                has_zeros, pattern = best
                set_it = f"set prepare.csv_path_pattern to '{pattern}', which finds {of}"
                parts = [with_zeros] * has_zeros + [set_it] * (pattern != COLUMN)
                return ", and ".join(parts)
        for prefix, count in prefixes.most_common(1):
            if count > present:
                return _without(prefix, files.root, table)
        for number, path in _alike(self._astray, path_column, files):
            value = self._astray[number][path_column]
            return f"write {path} for '{value}', as the file is called"
        return None


def _alike(
    rows: Sequence[Mapping[str, str]], column: str, files: FilesBelow
) -> Iterator[tuple[int, str]]:
    """(index of a row, path of a file) for those with the same last name, but for ending, case, the
    way in which accents are written, and zeros before a number."""
    wanted: dict[str, list[int]] = {}
    for index, row in enumerate(rows):
        name = posixpath.basename(_forward(row[column]))
        stem, ending = posixpath.splitext(name)
        names = {name} | ({stem} if ending.lower() in files.suffixes else set())
        for key in {_folded(name) for name in names} - {""}:
            wanted.setdefault(key, []).append(index)
    for path in files:
        name = posixpath.basename(path)
        for key in {_folded(name), _folded(posixpath.splitext(name)[0])}:
            for index in wanted.get(key, ()):
                yield index, path


def _patterns(row: Mapping[str, str], value: str, path: str, column: str) -> Iterator[str]:
    """The patterns that make `path` of a row: with folders and ending as they are, with any ending,
    and with a folder that another column names."""
    stem, ending = posixpath.splitext(path)
    for whole, after in ((path, [""]), (stem, [ending, ANY_ENDING])):
        if not value or not f"/{whole}".endswith(f"/{value}"):
            continue
        folders = whole[: -len(value)].split("/")
        others = {field: f"{{{name}}}" for name, field in row.items() if name != column and field}
        for named in (folders, [others.get(folder, folder) for folder in folders]):
            yield from (f"{'/'.join(named)}{COLUMN}{end}" for end in after)


def _with_zeros_of(path: str, value: str) -> str:
    """`value` with the number at its end as the file at `path` has it: 0007 for 7."""
    folder, name = posixpath.split(value)
    stem, ending = posixpath.splitext(name)
    called = posixpath.splitext(posixpath.basename(path))[0]
    is_number = stem.isdecimal() and called.isdecimal() and stem.lstrip("0") == called.lstrip("0")
    return posixpath.join(folder, called + ending) if is_number else value


def _rank(pattern: str) -> tuple[bool, int, str]:
    """Of patterns that find as many, first one with a fixed ending, then one with more columns."""
    return pattern.endswith(ANY_ENDING), -pattern.count("{"), pattern


def _without(prefix: str, root: Path, table: Path) -> str:
    """What to do about paths that begin with folders too many."""
    folders, parts = prefix.strip("/").split("/"), root.resolve().parts
    if not prefix.startswith("/") and parts[-len(folders) :] == tuple(folders):
        above = Path(os.path.normpath(root / Path(*[".."] * len(folders))))
        inside = Path(*folders) / table.relative_to(root)
        return f"set prepare.path to {above} and prepare.csv_file to {inside}"
    return f"take '{prefix}' off the paths, which start at {root}"


def _forward(path: str) -> str:
    return path.replace("\\", "/")


def _folded(name: str) -> str:
    """A name without case and ways of accents; a number (7, 0007.jpg) without zeros before it."""
    folded = unicodedata.normalize("NFC", name).casefold()
    return folded.lstrip("0") or "0" if folded.partition(".")[0].isdecimal() else folded
