"""The table of a CSV source as a file: its encoding, its delimiter, the place of its columns."""

import codecs
import csv
import json
import os
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from src.base.words import counted
from src.plumbing.errors import InputError
from src.plumbing.params import did_you_mean
from src.preparation.sources.paths import Pattern
from src.preparation.targets import FLAGS, ONE_CLASS, YES, columns_of_flags

DELIMITERS = {"comma": ",", "semicolon": ";", "tab": "\t", "pipe": "|"}
# What a text that is not UTF-8 is shown as, so that its writer recognises the right encoding.
OTHER_ENCODINGS = ("cp1251", "cp1252", "gb18030", "shift_jis")
# What people name as a table by its first bytes, and what to do.
NO_TEXT = {
    b"PK\x03\x04": "a table of Excel, or an archive: save it as CSV",
    b"\xd0\xcf\x11\xe0": "an old table of Excel: save it as CSV",
    b"\x1f\x8b": "packed with gzip: unpack it with gunzip",
    codecs.BOM_UTF32_LE: "UTF-32 by its first bytes: save it as UTF-8",
}
SEVERAL_ONES = "more than one of its label columns is 1"


class TableFile:
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
        start = file.read(4096)
    if known := next((what for mark, what in NO_TEXT.items() if start.startswith(mark)), ""):
        raise InputError(f"{path} is {known}")
    utf16 = start[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
    # No text has a zero byte, but each comma of UTF-16, in its upper byte.
    zeros = (b"\0" in start[::2], b"\0" in start[1::2])
    if wanted == "auto" and not utf16 and any(zeros) and not all(zeros):
        name = "utf-16-le" if zeros[1] else "utf-16-be"
        raise InputError(
            f"{path} is UTF-16 without a byte-order mark: set prepare.csv_encoding={name}, or save "
            "it as UTF-8"
        )
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
