"""Class balance and sizes of a data set as PNG bytes, the same for the same numbers."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from src.base.figure import DPI, png, same_for_everyone, shown_name

if TYPE_CHECKING:
    from matplotlib.axes import Axes

CLASSES_SHOWN = 120  # bars that have room for their names (choice)
COLOURS = {"train": "tab:blue", "val": "tab:orange", "test": "tab:green"}


@same_for_everyone()
def class_balance(counts: Mapping[str, np.ndarray], classes: Sequence[str]) -> bytes:
    """`counts`: by split the images of each class (K). Left the images, right shares of splits,
    dashed for the whole. Of more than CLASSES_SHOWN classes, the rarest and most frequent."""
    from matplotlib.figure import Figure

    table = np.stack(list(counts.values()))
    totals = table.sum(axis=0)
    shown = np.arange(len(classes))
    title = f"{len(classes)} classes"
    if len(classes) > CLASSES_SHOWN:
        by_size, half = np.argsort(-totals, kind="stable"), CLASSES_SHOWN // 2
        shown = np.concatenate([by_size[:half], by_size[-half:]])
        title = f"the {half} most frequent and the {half} rarest of {title}"
    figure = Figure(figsize=(11, 1.8 + 0.2 * max(len(shown), 4)), dpi=DPI, layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    rows, start = np.arange(len(shown)), np.zeros(len(shown))
    shares = table / np.maximum(totals, 1)
    for split, number, share in zip(counts, table, shares, strict=True):
        left.barh(rows, number[shown], 0.8, start, label=split, color=COLOURS.get(split))
        starts = start / np.maximum(totals[shown], 1)
        right.barh(rows, share[shown], 0.8, starts, color=COLOURS.get(split))
        start = start + number[shown]
    for row, total in zip(rows, totals[shown], strict=True):
        left.text(total, row, f" {total}", va="center", size=7)
    ends = (table.sum(axis=1) / max(1, totals.sum())).cumsum()[:-1]
    for end in ends:
        right.axvline(end, color="black", linestyle="--", linewidth=0.8)
    left.set_yticks(rows, [shown_name(classes[label]) for label in shown.tolist()], size=8)
    left.invert_yaxis()
    left.set_ylim(len(shown) - 0.4, -0.6)
    left.set(xlabel="images", title=title)
    left.margins(x=0.12)
    right.set(xlabel="share of the class (dashed: of all images)", xlim=(0, 1))
    figure.legend(loc="outside upper right", ncols=len(counts))
    return png(figure)


@same_for_everyone()
def size_distribution(
    sizes: np.ndarray, shapes: np.ndarray, octave: Sequence[int], size: int, title: str
) -> bytes:
    """`sizes` W x H: images by width and height; `shapes`: by width / height, the middle one is 1.
    `octave`: logarithmic steps per doubling (sizes, shapes). `size`: of packed images, in px."""
    from matplotlib.colors import LogNorm
    from matplotlib.figure import Figure

    figure = Figure(figsize=(14, 4.4), dpi=DPI, layout="constrained")
    figure.suptitle(title)
    area, side, shape = figure.subplots(1, 3)
    used = np.flatnonzero(sizes.sum(axis=0) + sizes.sum(axis=1))
    packed = int(octave[0] * np.log2(size))
    low = max(0, min(used[0], packed) - octave[0])
    high = min(len(sizes), max(used[-1], packed) + 1 + octave[0])
    edges = 2 ** (np.arange(low, high + 1) / octave[0])
    part = sizes[low:high, low:high]
    scale = LogNorm(1, max(2, part.max()))
    mesh = area.pcolormesh(edges, edges, np.ma.masked_equal(part.T, 0), cmap="viridis", norm=scale)
    figure.colorbar(mesh, ax=area, label="images", format="{x:g}")
    area.plot(edges[[0, -1]], edges[[0, -1]], color="grey", linewidth=0.8)
    area.set(xlabel="width in pixels", ylabel="height in pixels", aspect="equal", title="size")
    shorter_side = np.minimum(*np.indices(sizes.shape))
    shorter = np.bincount(shorter_side.ravel(), sizes.ravel(), len(sizes))[low:high]
    side.bar(edges[:-1], shorter, np.diff(edges), align="edge")
    side.axvline(size, color="black", linestyle="--", label=f"packed: {size} px")
    side.set(xlabel="shorter side in pixels", ylabel="images", title="shorter side")
    side.legend()
    for axes, names in ((area, ("x", "y")), (side, ("x",))):
        _log_ticks(axes, names, edges[0], edges[-1])
    middle = len(shapes) // 2
    used = np.flatnonzero(shapes)
    # Both ways alike, so that the square stands in the middle.
    reach = max(octave[1], abs(used - middle).max() + 2)
    positions = np.arange(max(0, middle - reach), min(len(shapes), middle + reach + 1))
    borders = 2 ** ((positions - middle - 0.5) / octave[1])
    shape.bar(borders, shapes[positions], borders * (2 ** (1 / octave[1]) - 1), align="edge")
    shape.axvline(1, color="black", linestyle="--", label="square")
    shape.set(xlabel="width / height", ylabel="images", title="shape")
    shape.legend()
    _log_ticks(shape, ("x",), borders[0], borders[-1])
    return png(figure)


def _log_ticks(axes: "Axes", names: Sequence[str], low: float, high: float) -> None:
    """Logarithmic axes with a tick per doubling, at most about eight, and none between."""
    first, last = int(np.ceil(np.log2(low))), int(np.floor(np.log2(high)))
    ticks = 2.0 ** np.arange(first, last + 1, max(1, (last - first) // 6))
    for name in names:
        getattr(axes, f"set_{name}scale")("log", base=2)
        getattr(axes, f"set_{name}lim")(low, high)
        getattr(axes, f"set_{name}ticks")(ticks, [f"{tick:g}" for tick in ticks])
        getattr(axes, f"set_{name}ticks")([], minor=True)
