"""The table of a data set's quality: what is read back for it, and how it is written for people."""

import csv
from collections.abc import Mapping, Sequence, Set
from pathlib import Path
from typing import Any

import numpy as np

from src.data.split import SPLITS

Member = tuple[str, int]  # a picture: its split and its index there


def read_tables(
    folder: Path, wanted: Set[Member]
) -> tuple[dict[Member, tuple[int, str]], tuple[int, int]]:
    """From the tables of a packed data set: class index and path of the `wanted` pictures; how many
    pictures have the same content as another one beyond the first, and how many of these have
    another class. Rows are read one by one and 16 bytes kept of each."""
    rows: dict[Member, tuple[int, str]] = {}
    contents, labels = [], []
    for split in SPLITS:
        with open(folder / f"{split}.csv", encoding="utf-8", newline="") as file:
            table = [np.empty((0, 2), dtype=np.uint64)]
            part: list[tuple[int, int]] = []
            for index, row in enumerate(csv.DictReader(file)):
                label = int(row["label"])
                # 64 bits of the hash: by chance two in a million pictures share them with 3e-8.
                part.append((int(row["sha256"][:16], 16), label))
                if (split, index) in wanted:
                    rows[split, index] = label, row["path"]
                if len(part) == 2**16:
                    table.append(np.array(part, dtype=np.uint64))
                    part.clear()
            table.append(np.array(part, dtype=np.uint64).reshape(-1, 2))
        together = np.concatenate(table)
        contents.append(together[:, 0])
        labels.append(together[:, 1])
    content, classes = np.concatenate(contents), np.concatenate(labels)
    order = np.lexsort((classes, content))
    content, classes = content[order], classes[order]
    again = content[1:] == content[:-1]
    return rows, (int(again.sum()), int((again & (classes[1:] != classes[:-1])).sum()))


def mean_and_std(pixels: int, sums: np.ndarray, squares: np.ndarray) -> dict[str, list[float]]:
    """Per channel, in units of the full range (0..1), from sums of grey levels (0..255)."""
    means = [int(total) / pixels for total in sums]
    variances = [int(s) / pixels - m * m for s, m in zip(squares, means, strict=True)]
    return {
        "mean": [mean / 255 for mean in means],
        "std": [max(0.0, variance) ** 0.5 / 255 for variance in variances],
    }


def as_markdown(table: Mapping[str, Any]) -> str:
    """The table as markdown whose columns also stand in line as plain text."""
    near, flat = table["near_duplicates_across_splits"], table["constant"]
    totals = table["pictures"]
    ratio = table["imbalance"]
    low, high = zip(table["width"], table["height"], strict=True)
    facts = [
        ("pictures", ", ".join(f"{count} {split}" for split, count in totals.items())),
        ("classes", len(table["per_class"]["train"])),
        ("largest / smallest class", "a class is empty" if ratio is None else f"{ratio:.2f}"),
        ("rejected", sum(table["rejects"].values())),
        ("identical to another picture", table["identical_pictures"]),
        ("of these with another class", table["identical_with_another_class"]),
        (
            "near-duplicates across splits",
            f"{near['pairs']} pairs" + (" or more" if near["of_the_closest_alone"] else ""),
        ),
        ("constant or nearly so", flat["pictures"]),
        ("smallest width, height", f"{low[0]}, {low[1]} px"),
        ("largest width, height", f"{high[0]}, {high[1]} px"),
        ("smaller than packed", table["enlarged"]),
    ]
    parts = ["# Data quality", _table(["what", "value"], facts)]
    if table["rejects"]:
        rejects = sorted(table["rejects"].items(), key=lambda item: (-item[1], item[0]))
        parts += ["## Rejected pictures", _table(["reason", "pictures"], rejects)]
    channels = [
        (split, number, f"{mean:.4f}", f"{std:.4f}")
        for split, values in table["channels"].items()
        for number, (mean, std) in enumerate(zip(values["mean"], values["std"], strict=True))
    ]
    parts += [
        "## Channels, in units of the full range",
        _table(["split", "channel", "mean", "std"], channels),
        "## Pictures per class",
        _table(
            ["class", *totals, "all"],
            [
                (name, *counts, sum(counts))
                for name, *counts in zip(
                    table["per_class"]["train"],
                    *(table["per_class"][split].values() for split in totals),
                    strict=True,
                )
            ],
        ),
    ]
    if near["pairs"]:
        pairs = [(f"{pair['difference']:.3f}", *pair["pictures"]) for pair in near["first"]]
        parts += ["## Near-duplicates across splits", _table(["difference", "one", "other"], pairs)]
    if flat["pictures"]:
        names = [(name,) for name in flat["first"]]
        parts += ["## Constant or nearly constant pictures", _table(["picture"], names)]
    return "\n\n".join(parts) + "\n"


def _table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    cells = [[_cell(value) for value in row] for row in [header, *rows]]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [
        "| " + " | ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)) + " |"
        for row in cells
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)


def _cell(value: Any) -> str:
    """A value in one line, in which a bar does not end the cell."""
    text = str(value)
    return (text if text.isprintable() else repr(text)[1:-1]).replace("|", "\\|")
