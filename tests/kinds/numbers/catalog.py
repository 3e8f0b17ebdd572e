"""The source of rows of numbers: a CSV file with a column `label`, all others numbers."""

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from src.preparation.sources.base import Item, Source

from .packing import FILE, Numbers


def _number_table(params: Mapping[str, Any]) -> Source:
    with open(Path(params["prepare.path"]) / FILE, encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    classes = sorted({row["label"] for row in rows})
    items = (
        Item(
            f"line {number}",
            classes.index(row["label"]),
            Numbers(tuple(text for name, text in row.items() if name != "label")),
        )
        for number, row in enumerate(rows, start=2)
    )
    return Source(classes, items, len(rows), in_memory=True)


SOURCES = {"number_table": _number_table}
