"""The trials of a search in the order of their validation accuracy, and what chance does to it."""

import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from src.base.figure import DPI, png, same_for_everyone
from src.experiments import statistics
from src.experiments.search.space import Dimension
from src.plumbing import overrides

SHOWN = 25  # rows in the terminal; the CSV has all (choice)


@dataclass(frozen=True)
class Row:
    """A trial: what it drew, and the group `val` of its metrics, empty without a result."""

    name: str
    state: str
    values: Mapping[str, str]
    metrics: Mapping[str, Any]

    @property
    def accuracy(self) -> float:
        return self.metrics.get("accuracy", float("-inf"))


def ranked(rows: Iterable[Row]) -> list[Row]:
    """The best first, equal ones by log loss; those without a result last, by name."""
    return sorted(rows, key=lambda row: (-row.accuracy, row.metrics.get("log_loss", 0), row.name))


def not_worse(
    best: str, correct: Mapping[str, np.ndarray], groups: np.ndarray | None = None
) -> set[str]:
    """Trials with predictions (`correct`: bool N, by image) that McNemar's test, or with `groups`
    (int N) that over groups, cannot distinguish from the best. That was chosen by its result, so p
    is corrected for the number of pairs."""
    pairs = len(correct) * (len(correct) - 1) / 2
    return {
        name
        for name, hits in correct.items()
        if name != best
        and statistics.p_on_images(correct[best], hits, groups) * pairs >= statistics.LEVEL
    }


def lines(
    rows: Sequence[Row],
    keys: Sequence[str],
    fixed: Mapping[str, str],
    correct: Mapping[str, np.ndarray],
    groups: np.ndarray | None = None,
) -> list[str]:
    """The leaderboard for a terminal. `=` marks trials that are `not_worse`. `fixed`: the values
    given with -S, the same for all trials; `correct`, `groups`: as for `not_worse`."""
    best = rows[0]
    alike = not_worse(best.name, correct, groups) if best.name in correct else set()
    width = {key: max(len(key), *(len(row.values.get(key, "-")) for row in rows)) for key in keys}
    title = "  ".join(f"{key:>{width[key]}}" for key in keys)
    printed = [f"{'trial':{len(best.name)}}  val accuracy  95 % interval   {title}"]
    for row in rows[:SHOWN]:
        cells = "  ".join(f"{row.values.get(key, '-'):>{width[key]}}" for key in keys)
        result = f"{row.state:>12}  {'':15}"
        if row.metrics:
            low, high = row.metrics["accuracy_low"], row.metrics["accuracy_high"]
            same = "=" if row.name in alike else " "
            result = f"{same} {row.accuracy:10.4f}  {low:.4f} {high:.4f}  "
        printed.append(f"{row.name}  {result}  {cells}")
    if len(rows) > SHOWN:
        printed.append(f"... and {len(rows) - SHOWN} more")
    if failed := [row for row in rows if row.state in ("failed", "killed")]:
        printed.append(f"{len(failed)} have no result: `dvc queue logs {failed[0].name}` says why")
    if sum(bool(row.metrics) for row in rows) > 1:
        if best.name in correct and len(correct) > 1:
            test = "McNemar" if groups is None else f"over {int(groups.max()) + 1} groups"
            printed.append(
                f"= {len(alike)} of {len(correct) - 1} others cannot be told from the best on "
                f"these {best.metrics['n']} images ({test}, corrected for {len(correct)} trials)."
            )
        printed.append("Another seed moves each of them. Before the best is believed:")
        options = shlex.join(overrides.arguments({**fixed, **best.values}))
        printed.append(f"python -m src.seeds 5 {options}")
    return printed


def table(rows: Sequence[Row], keys: Sequence[str]) -> tuple[list[str], list[list[Any]]]:
    """Header and rows of the leaderboard as CSV."""
    columns = ["accuracy", "accuracy_low", "accuracy_high", "log_loss"]
    return ["trial", "state", *columns, *keys], [
        [
            row.name,
            row.state,
            *(row.metrics.get(column, "") for column in columns),
            *(row.values.get(key, "") for key in keys),
        ]
        for row in rows
    ]


@same_for_everyone()
def draw(rows: Sequence[Row], space: Sequence[Dimension]) -> bytes:
    """PNG: the validation accuracy with its 95 % interval over each param, one panel per key."""
    from matplotlib.figure import Figure

    columns = min(3, len(space))
    lines_of_panels = -(-len(space) // columns)
    figure = Figure(figsize=(4 * columns, 3.2 * lines_of_panels), dpi=DPI, layout="constrained")
    look: Any = {"fmt": "o", "color": "C0", "markersize": 4, "elinewidth": 0.6, "alpha": 0.7}
    for number, item in enumerate(space, start=1):
        axes = figure.add_subplot(lines_of_panels, columns, number)
        if points := [row for row in rows if row.metrics and item.key in row.values]:
            texts = [row.values[item.key] for row in points]
            x = [item.values.index(x) if item.kind == "choice" else float(x) for x in texts]
            below = [row.accuracy - row.metrics["accuracy_low"] for row in points]
            above = [row.metrics["accuracy_high"] - row.accuracy for row in points]
            axes.errorbar(x, [row.accuracy for row in points], [below, above], **look)
        if item.kind == "choice":
            axes.set_xticks(range(len(item.values)), item.values)
            axes.margins(x=0.3)
        elif item.kind == "log_uniform":
            axes.set_xscale("log")
            axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")  # without formulas
            axes.xaxis.set_minor_formatter("")
        axes.set(xlabel=item.key, ylabel="val accuracy")
        axes.grid(alpha=0.3)
    return png(figure)
