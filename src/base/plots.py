"""Figures of results (curves, confusion matrix, reliability) as PNG; equal numbers, equal bytes."""

from collections.abc import Mapping, Sequence

import numpy as np

from src.base.figure import DPI, png, same_for_everyone

NAMES_SHOWN = 30  # classes above which the confusion matrix has no names and numbers


@same_for_everyone()
def curves(panels: Mapping[str, Mapping[str, Sequence[float]]], x_label: str) -> bytes:
    """One panel per entry of `panels`, each with its lines by name, over 1, 2, 3 ..."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(5 * len(panels), 3.6), dpi=DPI, layout="constrained")
    for number, (title, lines) in enumerate(panels.items()):
        axes = figure.add_subplot(1, len(panels), number + 1)
        for name, values in lines.items():
            marker = "o" if len(values) < 30 else None
            axes.plot(range(1, len(values) + 1), values, label=name, marker=marker, markersize=3)
        axes.set_title(title)
        axes.set_xlabel(x_label)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
        axes.legend()
    return png(figure)


@same_for_everyone()
def confusion_matrix(matrix: np.ndarray, classes: Sequence[str], title: str) -> bytes:
    """`matrix` K x K of counts, row = label, column = prediction; colours by share of the row.
    `classes` as `shown_name` gives them."""
    from matplotlib.figure import Figure

    count = len(classes)
    side = min(12.0, 3.5 + 0.45 * min(count, NAMES_SHOWN))
    figure = Figure(figsize=(side, side), dpi=DPI, layout="constrained")
    axes = figure.add_subplot()
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axes.set(title=title, xlabel="prediction", ylabel="label")
    if count <= NAMES_SHOWN:
        axes.set_xticks(range(count), classes, rotation=90 if max(map(len, classes)) > 2 else 0)
        axes.set_yticks(range(count), classes)
        for row in range(count):
            for column in range(count):
                if matrix[row, column]:
                    colour = "white" if shares[row, column] > 0.5 else "black"
                    text = str(int(matrix[row, column]))
                    axes.text(column, row, text, ha="center", va="center", color=colour, size=8)
    return png(figure)


@same_for_everyone()
def reliability_diagram(panels: Mapping[str, tuple[np.ndarray, np.ndarray, np.ndarray]]) -> bytes:
    """For each title the bins of `src.reports.metrics.reliability`: above, accuracy against the
    mean top probability, which agree on the diagonal; below, the samples of each bin."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5 * len(panels), 5.4), dpi=DPI, layout="constrained")
    axes = figure.subplots(2, len(panels), squeeze=False, sharex=True, height_ratios=[3, 1])
    for (top, bottom), (title, bins) in zip(axes.T, panels.items(), strict=True):
        counts, confidence, accuracy = bins
        width = 1 / len(counts)
        middles = (np.arange(len(counts)) + 0.5) * width
        some = counts > 0
        top.plot([0, 1], [0, 1], color="grey", linestyle="--", label="calibrated")
        top.bar(middles[some], accuracy[some], width * 0.9, label="accuracy")
        top.plot(confidence[some], accuracy[some], "ko", markersize=4, label="mean probability")
        top.set(title=title, ylabel="accuracy", xlim=(0, 1), ylim=(0, 1.05))
        top.legend(loc="upper left")
        bars = bottom.bar(middles, counts, width * 0.9, color="grey")
        bottom.bar_label(bars, [str(count) if count else "" for count in counts], size=6)
        bottom.set(xlabel="top probability", ylabel="samples")
        bottom.margins(y=0.2)  # room for the numbers
    return png(figure)
