"""What to look at before training: samples, class balance, sizes, near-duplicates, quality.

Counted while a data set is packed: 8 bytes per image are kept, the rest is counts and sums.
Integers throughout, so that the same images in the same order give the same bytes.
"""

import csv
import math
from array import array
from collections import Counter
from collections.abc import Mapping, Sequence, Set
from pathlib import Path
from typing import Any

import numpy as np

from src.base.files import write_bytes, write_json, write_text
from src.base.words import counted, either
from src.data.packed import read_meta
from src.data.split import SPLITS
from src.images.grids import grids_side_by_side
from src.images.near_duplicates import close_pairs, differences
from src.images.packing import Packed, Packer
from src.images.quality_figures import class_balance, size_distribution
from src.images.value_range import BYTES, Ranges
from src.preparation.report import Report

SIZE_STEPS, SHAPE_STEPS = 4, 8  # bins per doubling of a side, of width / height (choice)
LARGEST = 2**17  # pixels of a side, and longer ones count as that (choice)
MOST_OBLONG = 6  # doublings of width / height either way, and beyond counts as that (choice)
NAMED = 20  # images that the table names, of each kind (choice)
# Pairs that differ less are near-duplicates. Copies of photos, made again as JPEG or at half the
# size, differ by 0.00 to 0.05 at 32 px. Of different images with close hashes across splits, none
# of the digits, the synthetic shapes or 160 photos came below 0.10. (measured)
NEAR = 0.05
AT_ONCE_BYTES = 4 * 2**20  # of them in memory (choice)
COMPARED_BYTES = 2**30  # pixels read to confirm near-duplicates, the closest first (choice)
PER_CLASS, FEWER_PER_CLASS = 10, 5  # samples, and of more than MANY_CLASSES
MANY_CLASSES, SAMPLED_CLASSES = 20, 100
PAIRS_SHOWN = 30

Member = tuple[str, int]  # an image: its split and its index there
Pair = tuple[float, Member, Member]  # how much they differ, and the two images
Rows = dict[Member, tuple[int, str]]  # class index and path of images


class _Split:
    """Counts of one split. `pixels`, `sums` and `squares` per channel: exact, in any order."""

    def __init__(self, classes: int, channels: int):
        self.counts = np.zeros(classes, dtype=np.int64)
        self.pixels = 0
        self.sums = np.zeros(channels, dtype=object)
        self.squares = np.zeros(channels, dtype=object)
        self.hashes = array("Q")
        self.flat = 0
        self.flat_indices: list[int] = []

    def mean_and_std(self, least: float, constant: float) -> dict[str, list[float]]:
        """`mean` and `std` per channel, in units of the full range (0..1). A channel whose variance
        is at most `least` is constant: its deviation counts as `constant` (both in grey levels)."""
        mean = [int(total) / self.pixels for total in self.sums]
        pairs = zip(self.squares, mean, strict=True)
        variance = [int(square) / self.pixels - m * m for square, m in pairs]
        std = [v**0.5 if v > least else constant for v in variance]
        return {"mean": [m / 255 for m in mean], "std": [s / 255 for s in std]}


class Quality:
    """Counts the images of a data set with `add`, then `write` reports them."""

    def __init__(self, classes: list[str], packer: Packer):
        self.classes, self.size = classes, packer.size
        self.kept_mode = "L" if packer.channels == 1 else "RGB"
        self.modes: Counter[str] = Counter()
        self.turned, self.animations, self.frames, self.lost_colour = 0, 0, 0, 0
        self.ranges = Ranges(packer.value_range)
        self.grounds: Counter[str] = Counter()  # what transparent images were put on
        self.splits = {split: _Split(len(classes), packer.channels) for split in SPLITS}
        bins = SIZE_STEPS * LARGEST.bit_length()
        self.sizes = np.zeros((bins, bins), dtype=np.int64)  # by width and height
        self.shapes = np.zeros(2 * SHAPE_STEPS * MOST_OBLONG + 1, dtype=np.int64)
        self.sides = {"width": [LARGEST, 0], "height": [LARGEST, 0]}  # smallest and largest
        self.enlarged = 0  # images whose shorter side was smaller than it is packed
        self.samples: dict[int, list[int]] = {}  # the first of each class in train

    def add(self, split: str, label: int, image: Packed) -> None:
        """Count an image of class index `label`."""
        part = self.splits[split]
        index = len(part.hashes)
        part.counts[label] += 1
        if split == "train" and len(first := self.samples.setdefault(label, [])) < PER_CLASS:
            first.append(index)
        part.pixels += self.size**2
        part.sums += image.sums
        part.squares += image.squares
        if image.is_flat:
            part.flat += 1
            part.flat_indices += [index] * (len(part.flat_indices) < NAMED)
        part.hashes.append(image.hash)
        self._count_size(image.width, image.height)
        self.enlarged += min(image.width, image.height) < self.size
        self.turned += image.turned
        self.lost_colour += image.lost_colour
        if image.mode != self.kept_mode:
            self.modes[image.mode] += 1
        self.ranges.add(image.values)
        self.grounds[image.ground] += 1
        if image.frames > 1:
            self.animations += 1
            self.frames += image.frames - 1

    def meta(self) -> dict[str, Any]:
        """Mean and std per training channel, for meta.json; std 1, not 0, for a constant one."""
        return self.splits["train"].mean_and_std(1e-6, 255.0)

    def notes(self) -> dict[str, Any]:
        """What report.json says of the images beside their number."""
        return {
            "turned_upright": self.turned,
            "colour_packed_as_grey": self.lost_colour,
            "converted_modes": dict(sorted(self.modes.items())),
            "frames_left_out": {"pictures": self.animations, "frames": self.frames},
        }

    def remarks(self) -> list[str]:
        """A line for each thing about the images that a person should know of."""
        total = sum(len(part.hashes) for part in self.splits.values())
        found = self.ranges.remarks()
        if self.lost_colour:
            found.append(
                f"in colour, and packed as grey: {self.lost_colour} of {counted(total, 'image')}; "
                "prepare.channels=3 keeps their colour"
            )
        if self.animations:
            found.append(
                f"of {counted(self.animations, 'image')} with several frames or pages the first is "
                f"used: {counted(self.frames, 'frame')} left out"
            )
        if black := self.grounds["black"]:
            show = f"{counted(black, 'transparent image')} {either(black, 'shows', 'show')}"
            found.append(f"{show} nothing on white and {either(black, 'was', 'were')} put on black")
        if none := self.grounds["none"]:
            found.append(
                f"{counted(none, 'image')} {either(none, 'is', 'are')} transparent throughout: "
                f"{either(none, 'its', 'their')} colours were taken as they are"
            )
        if flat := sum(part.flat for part in self.splits.values()):
            found.append(
                f"{flat} of {total} {either(flat, 'is', 'are')} constant or nearly so once packed: "
                "quality.md names the first"
            )
        return found

    def _count_size(self, width: int, height: int) -> None:
        for name, side in (("width", width), ("height", height)):
            smallest, largest = self.sides[name]
            self.sides[name] = [min(smallest, side), max(largest, side)]
        last = len(self.sizes) - 1
        columns = [min(last, int(SIZE_STEPS * math.log2(side))) for side in (width, height)]
        self.sizes[columns[0], columns[1]] += 1
        middle = len(self.shapes) // 2
        step = round(SHAPE_STEPS * math.log2(width / height))
        self.shapes[middle + max(-middle, min(middle, step))] += 1

    def write(self, folder: Path, report: Report) -> None:
        """Write figures, quality.json and quality.md into `folder`, a complete packed data set
        (with meta.json) of the images of `add`, in order. `report` counts those left out."""
        meta = read_meta(folder)
        shards = {split: _Shards(folder, meta, split) for split in SPLITS}
        write_bytes(folder / "samples.png", self._samples(shards["train"]))
        counts = {split: part.counts for split, part in self.splits.items()}
        write_bytes(folder / "balance.png", class_balance(counts, self.classes))
        octave, title = (SIZE_STEPS, SHAPE_STEPS), self._size_title()
        sizes = size_distribution(self.sizes, self.shapes, octave, self.size, title)
        write_bytes(folder / "sizes.png", sizes)
        pairs, is_part = self._near_duplicates(shards)
        flat = [(split, i) for split in SPLITS for i in self.splits[split].flat_indices][:NAMED]
        wanted = {*flat, *(member for _, *members in pairs[:PAIRS_SHOWN] for member in members)}
        rows = read_rows(folder, wanted)
        if pairs:
            write_bytes(folder / "near_duplicates.png", self._pairs_grid(pairs, shards, rows))
        table = self._counted(report)
        table["near_duplicates_across_splits"] = {
            "pairs": len(pairs),
            "of_the_closest_alone": is_part,
            "first": [
                {"difference": difference, "pictures": [f"{m[0]}: {rows[m][1]}" for m in members]}
                for difference, *members in pairs[:NAMED]
            ],
        }
        table["constant"] = {
            "pictures": sum(part.flat for part in self.splits.values()),
            "first": [f"{split}: {rows[split, index][1]}" for split, index in flat],
        }
        table["values"] = self.ranges.table()
        write_json(folder / "quality.json", table)
        write_text(folder / "quality.md", as_markdown(table))

    def _counted(self, report: Report) -> dict[str, Any]:
        totals = sum(part.counts for part in self.splits.values())
        assert isinstance(totals, np.ndarray)
        ratio = totals.max() / totals.min() if totals.min() else None
        return {
            "remarks": report.told,
            "pictures": {split: len(part.hashes) for split, part in self.splits.items()},
            "per_class": {
                split: dict(zip(self.classes, part.counts.tolist(), strict=True))
                for split, part in self.splits.items()
            },
            **({"groups": report.ledger.groups()} if report.source.grouped else {}),
            "imbalance": ratio,  # of the largest class to the smallest
            "rejects": report.left_out(),
            "identical_pictures": report.ledger.identical.count,
            "identical_with_another_class": report.ledger.conflicts.count,
            "width": self.sides["width"],
            "height": self.sides["height"],
            "enlarged": self.enlarged,
            "channels": {
                split: part.mean_and_std(0, 0) for split, part in self.splits.items() if part.pixels
            },
        }

    def _size_title(self) -> str:
        width, height = (
            str(low) if low == high else f"{low} to {high}" for low, high in self.sides.values()
        )
        count = sum(len(part.hashes) for part in self.splits.values())
        return f"{counted(count, 'image')} before packing: {width} px wide, {height} px high"

    def _samples(self, train: "_Shards") -> bytes:
        """The first images of each class, a row each, or half a row of many classes."""
        each = FEWER_PER_CLASS if len(self.classes) > MANY_CLASSES else PER_CLASS
        images, captions = [], []
        for label, name in enumerate(self.classes[:SAMPLED_CLASSES]):
            indices = self.samples.get(label, [])[:each]
            blank = each - len(indices)
            images += [train[index] for index in indices] + [train.white] * blank
            captions += [name] * len(indices) + [""] * blank
        title = "prepared: training images"
        if len(self.classes) > SAMPLED_CLASSES:
            title += f" of {SAMPLED_CLASSES} of {len(self.classes)} classes"
        return grids_side_by_side([(images, captions, title)], PER_CLASS)

    def _near_duplicates(self, shards: Mapping[str, "_Shards"]) -> tuple[list[Pair], bool]:
        """(difference, (split, index), (split, index)) of the near-duplicates across splits, the
        closest first, and whether some pairs were not looked at."""
        parts = [np.frombuffer(part.hashes, dtype=np.uint64) for part in self.splits.values()]
        groups = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
        starts = np.cumsum([0, *map(len, parts)])
        most = max(1, COMPARED_BYTES // (2 * shards["train"].white.size))
        pairs, is_part = close_pairs(np.concatenate(parts), groups, most)
        at_once = max(1, most * AT_ONCE_BYTES // COMPARED_BYTES)
        found: list[Pair] = []
        for start in range(0, len(pairs), at_once):
            one, other = (
                [(SPLITS[groups[i]], int(i - starts[groups[i]])) for i in column]
                for column in pairs[start : start + at_once].T
            )
            first, second = (np.stack([shards[s][i] for s, i in column]) for column in (one, other))
            compared = zip(differences(first, second).tolist(), one, other, strict=True)
            found += [pair for pair in compared if pair[0] < NEAR]
        return sorted(found), is_part

    def _pairs_grid(self, pairs: list[Pair], shards: Mapping[str, "_Shards"], rows: Rows) -> bytes:
        images, captions = [], []
        for number, (difference, *members) in enumerate(pairs[:PAIRS_SHOWN]):
            if number % 3:
                images.append(shards["train"].white)
                captions.append("")
            for split, index in members:
                label, path = rows[split, index]
                images.append(shards[split][index])
                captions.append(f"{split}: {self.classes[label]}\n{path}\ndiffers {difference:.3f}")
        title = f"near-duplicates across splits: {counted(len(pairs), 'pair')}"
        title += f", the closest {PAIRS_SHOWN} of them" if len(pairs) > PAIRS_SHOWN else ""
        return grids_side_by_side([(images, captions, title)], 8)


class _Shards:
    """The packed images of a split, read one by one: a map of them would count as memory."""

    def __init__(self, folder: Path, meta: Mapping[str, Any], split: str):
        self.shape = (meta["size"], meta["size"], meta["channels"])
        self.white = np.full(self.shape, 255, dtype=np.uint8)
        self.files = [folder / name for name in meta["shards"][split]]
        maps = [np.load(file, mmap_mode="r") for file in self.files]
        self.offsets = [shard.offset for shard in maps]
        self.starts = np.cumsum([0, *map(len, maps)])

    def __getitem__(self, index: int) -> np.ndarray:
        number = int(np.searchsorted(self.starts, index, side="right")) - 1
        with open(self.files[number], "rb", buffering=0) as file:
            file.seek(self.offsets[number] + int(index - self.starts[number]) * self.white.size)
            return np.frombuffer(file.read(self.white.size), dtype=np.uint8).reshape(self.shape)


def read_rows(folder: Path, wanted: Set[Member]) -> Rows:
    """Those of the `wanted` images, from the tables of a packed data set."""
    rows: Rows = {}
    for split in {split for split, _ in wanted}:
        with open(folder / f"{split}.csv", encoding="utf-8", newline="") as file:
            for index, row in enumerate(csv.DictReader(file)):
                if (split, index) in wanted:
                    rows[split, index] = int(row["label"]), row["path"]
    return rows


def as_markdown(table: Mapping[str, Any]) -> str:
    """The table as markdown whose columns also stand in line as plain text."""
    near, flat = table["near_duplicates_across_splits"], table["constant"]
    totals, per_class, ratio = table["pictures"], table["per_class"], table["imbalance"]
    low, high = zip(table["width"], table["height"], strict=True)
    or_more = " or more" if near["of_the_closest_alone"] else ""
    facts = [
        ("images", ", ".join(f"{count} {split}" for split, count in totals.items())),
        ("classes", len(per_class["train"])),
        *_of_groups(table),
        ("largest / smallest class", "a class is empty" if ratio is None else f"{ratio:.2f}"),
        ("rejected", sum(table["rejects"].values())),
        ("identical to another image", table["identical_pictures"]),
        ("of these with another class", table["identical_with_another_class"]),
        ("near-duplicates across splits", f"{counted(near['pairs'], 'pair')}{or_more}"),
        ("constant or nearly so", flat["pictures"]),
        ("smallest width, height", f"{low[0]}, {low[1]} px"),
        ("largest width, height", f"{high[0]}, {high[1]} px"),
        ("smaller than packed", table["enlarged"]),
    ]
    parts = ["# Data quality", _table(["what", "value"], facts)]
    if table["remarks"]:
        lines = [f"- {_cell(line)}" for line in table["remarks"]]
        parts += ["## Remarks", "\n".join(lines)]
    if table["rejects"]:
        rejects = sorted(table["rejects"].items(), key=lambda item: (-item[1], item[0]))
        parts += ["## Rejected images", _table(["reason", "images"], rejects)]
    counts = {name: [per_class[split][name] for split in totals] for name in per_class["train"]}
    channels = [
        (split, number, f"{mean:.4f}", f"{std:.4f}")
        for split, values in table["channels"].items()
        for number, (mean, std) in enumerate(zip(values["mean"], values["std"], strict=True))
    ]
    parts += [
        "## Channels, in units of the full range",
        _table(["split", "channel", "mean", "std"], channels),
        "## Images per class",
        _table(
            ["class", *totals, "all"],
            [(name, *numbers, sum(numbers)) for name, numbers in counts.items()],
        ),
    ]
    values = [
        (v["values"], v["pictures"], f"{v['lowest']:g}", f"{v['highest']:g}", v["white"] or "none")
        for v in table["values"]
    ]
    if any(kind != BYTES for kind, *_ in values):
        head = ["values", "images", "lowest", "highest", "white"]
        parts += ["## Values of the images, before they became 8 bits", _table(head, values)]
    if near["pairs"]:
        pairs = [(f"{pair['difference']:.3f}", *pair["pictures"]) for pair in near["first"]]
        parts += ["## Near-duplicates across splits", _table(["difference", "one", "other"], pairs)]
    if flat["pictures"]:
        names = [(name,) for name in flat["first"]]
        parts += ["## Constant or nearly constant images", _table(["image"], names)]
    return "\n\n".join(parts) + "\n"


def _of_groups(table: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The row about groups, if the source knows some."""
    if not (groups := table.get("groups")):
        return []
    shown = ", ".join(f"{count} {split}" for split, count in groups.items())
    return [("groups, which intervals are over", shown)]


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
