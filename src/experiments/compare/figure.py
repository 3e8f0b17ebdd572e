"""The figure of a comparison: the results of all seeds, and the course of the trainings."""

import csv
import io
from typing import Any

import numpy as np

from src.base.figure import DPI, png, same_for_everyone, shown_name
from src.experiments import stored
from src.experiments.compare.groups import Group
from src.plumbing import git, workspace

CURVES = ("val_loss", "val_accuracy")


@same_for_everyone()
def draw(groups: list[Group], split: str, metric: str) -> bytes:
    """PNG. Left: the metric on val or test of each seed, with mean and standard deviation; a line
    joins the same seed of two groups. Right: curves on val, the mean over seeds and the band from
    the lowest to the highest."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(15, 4.2), dpi=DPI, layout="constrained")
    axes = figure.subplots(1, 1 + len(CURVES))
    _results(axes[0], groups, split, metric)
    histories = [_histories(group) for group in groups]
    for panel, column in zip(axes[1:], CURVES, strict=True):
        for number, (group, rows) in enumerate(zip(groups, histories, strict=True)):
            _band(panel, [run[column] for run in rows if column in run], group.name, f"C{number}")
        panel.set(title=f"{column.replace('_', ' ')}: mean and range over seeds", xlabel="epoch")
        if column == "val_loss":
            panel.set_yscale("log")
            # 0.02, 0.05, 0.1, ..., without formulas
            panel.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
            panel.yaxis.set_minor_formatter(
                lambda value, _: f"{value:g}" if f"{value:e}"[0] in "25" else ""
            )
        panel.xaxis.set_major_locator(MaxNLocator(integer=True))
        panel.grid(alpha=0.3)
        panel.legend()
    return png(figure)


def _results(axes: Any, groups: list[Group], split: str, metric: str) -> None:
    first = groups[0].scores(split, metric)
    for number, group in enumerate(groups):
        scores = group.scores(split, metric)
        values = np.array(list(scores.values()))
        places = number + _beside(values)
        axes.plot(places, values, "o", color=f"C{number}", alpha=0.6)
        if len(values) > 1:
            look = {"fmt": "_", "markersize": 14, "color": f"C{number}", "capsize": 4}
            axes.errorbar(number + 0.3, values.mean(), values.std(ddof=1), **look)
        for seed in set(first) & set(scores) if number else ():
            axes.plot([0, number], [first[seed], scores[seed]], color="grey", lw=0.6, alpha=0.5)
    names = [f"{shown_name(group.name)}\nseeds: {len(group.by_seed)}" for group in groups]
    axes.set_xticks(range(len(groups)), names)
    title = f"{split} {metric.replace('_', ' ')}: each seed, mean ± sd"
    axes.set(title=title, xlim=(-0.5, len(groups) - 0.5))
    axes.grid(alpha=0.3, axis="y")


def _beside(values: np.ndarray) -> np.ndarray:
    """Where equal values stand, side by side: 0 for the first of each, then to the right."""
    listed = values.tolist()
    return np.array([0.03 * listed[:place].count(value) for place, value in enumerate(listed)])


def _histories(group: Group) -> list[dict[str, list[float]]]:
    """The columns of history.csv of each training of a group."""
    found = []
    revs = [result.rev for result in group.by_seed.values()]
    texts = list(git.read_at([(rev, stored.HISTORY) for rev in revs if rev]))
    if None in revs:
        texts.append(workspace.read_here(stored.HISTORY))
    for text in texts:
        rows = list(csv.DictReader(io.StringIO(text or "")))
        if rows:
            found.append({key: [float(row[key] or "nan") for row in rows] for key in rows[0]})
    return found


def _band(axes: Any, runs: list[list[float]], name: str, colour: str) -> None:
    if not runs:
        return
    length = min(map(len, runs))  # a training may have stopped early
    values = np.array([run[:length] for run in runs])
    epochs = np.arange(1, length + 1)
    axes.plot(epochs, values.mean(axis=0), color=colour, label=shown_name(name))
    axes.fill_between(epochs, values.min(axis=0), values.max(axis=0), color=colour, alpha=0.2, lw=0)
