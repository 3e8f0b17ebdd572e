"""The table of a data set's quality: what is read back for it, and how it is written for people."""

import csv
from collections.abc import Mapping, Sequence, Set
from pathlib import Path
from typing import Any

from src.data.writer import PixelStatistics

Member = tuple[str, int]  # a picture: its split and its index there


def read_rows(folder: Path, wanted: Set[Member]) -> dict[Member, tuple[int, str]]:
    """Class index and path of the `wanted` pictures, from the tables of a packed data set."""
    rows: dict[Member, tuple[int, str]] = {}
    for split in {split for split, _ in wanted}:
        with open(folder / f"{split}.csv", encoding="utf-8", newline="") as file:
            for index, row in enumerate(csv.DictReader(file)):
                if (split, index) in wanted:
                    rows[split, index] = int(row["label"]), row["path"]
    return rows


def mean_and_std(statistics: PixelStatistics) -> dict[str, list[float]]:
    """Per channel, in units of the full range (0..1); a constant channel has the deviation 0."""
    count = statistics.count
    means = [int(total) / count for total in statistics.sums]
    variances = [int(s) / count - m * m for s, m in zip(statistics.squares, means, strict=True)]
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
