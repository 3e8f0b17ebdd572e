"""Files of any length are written without holding them in memory."""

import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest

from src.base.files import write_csv


def test_a_csv_is_written_row_by_row(tmp_path: Path) -> None:
    rows = ((index, *[0.123456789] * 50) for index in range(10_000))
    tracemalloc.start()
    write_csv(tmp_path / "table.csv", ["index", *map(str, range(50))], rows)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2**20 < (tmp_path / "table.csv").stat().st_size
    assert (tmp_path / "table.csv").read_bytes().splitlines()[1].startswith(b"0,0.123457,0.1")


def test_a_csv_that_fails_leaves_the_old_one(tmp_path: Path) -> None:
    def rows() -> Iterator[tuple[int]]:
        yield (1,)
        raise KeyError

    path = tmp_path / "table.csv"
    path.write_text("old")
    with pytest.raises(KeyError):
        write_csv(path, ["a"], rows())
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("table.csv", "old")]
