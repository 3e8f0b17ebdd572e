"""The one place that writes files: whole or not at all, and the same bytes for the same values.

DVC may have linked an existing output to its cache, so nothing is ever opened for writing in
place: a new file is written beside the target and renamed over it.
"""

import csv
import io
import json
import os
import shutil
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

SIGNIFICANT_DIGITS = 6  # floats in outputs: enough to compare, too few to show rounding noise


def round_floats(value: Any) -> Any:
    """`value` with each float in it rounded to 6 significant digits, lists and dicts walked."""
    if isinstance(value, float):
        return float(f"{value:.{SIGNIFICANT_DIGITS}g}")
    if isinstance(value, dict):
        return {key: round_floats(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [round_floats(item) for item in value]
    return value


@contextmanager
def replacing(path: Path | str, durable: bool = False) -> Iterator[BinaryIO]:
    """A file under a temporary name that takes the place of `path` when the block ends well, and
    vanishes if not; parents are made. `durable` also waits for the disk, so that a power cut leaves
    the old or the new file."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            yield file
            if durable:
                file.flush()
                os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_bytes(path: Path | str, data: bytes, durable: bool = False) -> None:
    """Write `data` as `replacing` does."""
    with replacing(path, durable) as file:
        file.write(data)


def write_text(path: Path | str, text: str, durable: bool = False) -> None:
    write_bytes(path, text.encode("utf-8"), durable)


def write_json(path: Path | str, value: Any, durable: bool = False) -> None:
    """JSON with rounded floats, keys in the order given, and a newline at the end."""
    write_text(path, json.dumps(round_floats(value), indent=2, ensure_ascii=False) + "\n", durable)


def write_csv(path: Path | str, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """CSV with rounded floats and `\\n` line ends; of `rows` one at a time is in memory."""
    with replacing(path) as file, io.TextIOWrapper(file, encoding="utf-8", newline="") as text:
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(round_floats(list(row)) for row in rows)


@contextmanager
def fresh_directory(path: Path | str) -> Iterator[Path]:
    """A new folder that takes the place of `path` when the block ends well, and vanishes if not."""
    path = Path(path)
    partial = path.with_name(f".{path.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        yield partial
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        os.replace(partial, path)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


class CsvWriter:
    """A CSV with `\\n` line ends that is written row by row, into a folder that nobody reads yet
    (`fresh_directory`), so that it takes no memory."""

    def __init__(self, path: Path | str, header: Sequence[str]):
        self._file = open(path, "w", encoding="utf-8", newline="")  # noqa: SIM115 (see close)
        self._writer = csv.writer(self._file, lineterminator="\n")
        self._writer.writerow(header)

    def add(self, row: Sequence[Any]) -> None:
        self._writer.writerow(row)

    def close(self) -> None:
        self._file.close()


def scratch_database() -> sqlite3.Connection:
    """An empty temporary database on disk, for look-ups of millions of samples in little memory."""
    database = sqlite3.connect("", isolation_level=None)
    database.execute("PRAGMA cache_size = -16000")  # kB (choice)
    database.execute("PRAGMA journal_mode = OFF")
    database.execute("PRAGMA synchronous = OFF")
    database.execute("BEGIN")
    return database
