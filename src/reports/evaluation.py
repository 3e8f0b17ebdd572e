"""What `evaluate` leaves: tables, figures, the description of the run."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from src.base.figure import shown_name
from src.base.files import write_bytes, write_csv
from src.base.kinds import kind_of, kind_part
from src.base.plots import confusion_matrix, reliability_diagram
from src.base.words import counted
from src.data.groups import is_one_group
from src.data.packed import GROUP, PackedSplit
from src.reports.metrics import per_class_rows, reliability

SPLITS = ("val", "test")
WORST_SHOWN = 40

Splits = dict[str, PackedSplit]
Probabilities = dict[str, np.ndarray]  # by split, float64 N x K


def headline(split: str, values: dict[str, Any]) -> str:
    """A split's accuracy in a line, and whether it is worth the trouble."""
    line = (
        f"evaluate: {split} accuracy {values['accuracy']:.4f} "
        f"({values['accuracy_low']:.4f} to {values['accuracy_high']:.4f}{_by_groups(values)})"
    )
    beaten = values["accuracy"] > values["baseline_accuracy"]
    verdict = "" if beaten else ", which the net does not beat"
    return f"{line}, logistic regression {values['baseline_accuracy']:.4f}{verdict}"


def _by_groups(values: dict[str, Any]) -> str:
    """What to say behind an interval of resampled groups."""
    return f", over {values['groups']} groups" if "groups" in values else ""


def group_remark(split: str, samples: PackedSplit) -> str:
    """A line where groups cannot be resampled; empty if there is nothing to say."""
    if not is_one_group(samples.groups):
        return ""
    return (
        f"evaluate: all of {split} is one group: its intervals are over samples, and say nothing "
        "of other groups"
    )


def write_tables(data: Splits, probabilities: Probabilities, folder: Path) -> None:
    """predictions.csv for every sample, per_class.csv for val, on which choices are made."""
    classes = data["val"].meta["classes"]
    grouped = data["val"].groups is not None
    header = ["split", "index", "label", "prediction", *([GROUP] if grouped else [])]
    header += [f"probability {name}" for name in classes]
    write_csv(folder / "predictions.csv", header, _predictions(data, probabilities, classes))
    table = per_class_rows(data["val"].labels, probabilities["val"].argmax(axis=1), classes)
    write_csv(folder / "per_class.csv", ["class", "pictures", "precision", "recall", "f1"], table)


def _predictions(
    data: Splits, probabilities: Probabilities, classes: Sequence[str]
) -> Iterator[tuple[Any, ...]]:
    """The rows of predictions.csv: with many classes all at once would take gigabytes."""
    for split, samples in data.items():
        of_group = [[name] for name in samples.groups] if samples.groups else [[]] * len(samples)
        for index, (label, group, row) in enumerate(
            zip(samples.labels, of_group, probabilities[split], strict=True)
        ):
            yield split, index, classes[label], classes[row.argmax()], *group, *row.tolist()


def write_figures(val: PackedSplit, probabilities: np.ndarray, folder: Path) -> None:
    """The confusion matrix, and the samples on which the net is most wrong, both of val."""
    from sklearn.metrics import confusion_matrix as count_confusions

    labels = val.labels
    classes = [shown_name(name) for name in val.meta["classes"]]
    predictions = probabilities.argmax(axis=1)
    matrix = count_confusions(labels, predictions, labels=np.arange(len(classes)))
    figure = confusion_matrix(matrix, classes, f"val: {counted(len(labels), 'image')}")
    write_bytes(folder / "confusion_matrix.png", figure)

    right = probabilities[np.arange(len(labels)), labels]
    worst = np.argsort(right, kind="stable")[:WORST_SHOWN]
    captions = [
        f"{classes[labels[i]]}, {right[i]:.2f}\n→ {classes[predictions[i]]}, "
        f"{probabilities[i, predictions[i]]:.2f}"
        for i in worst
    ]
    mistakes = int((predictions != labels).sum())
    many = counted(mistakes, "mistake")
    title = f"least probable labels of val ({many}): label → prediction"
    grids = kind_part(kind_of(val.meta), "grids")
    png = grids.grids_side_by_side([(list(val.rows(worst)), captions, title)], columns=8)
    write_bytes(folder / "worst_mistakes.png", png)


def write_reliability(
    data: Splits, probabilities: Probabilities, metrics: dict[str, Any], folder: Path
) -> None:
    """The reliability diagrams of both splits."""
    panels = {
        f"{split}: {counted(len(samples), 'image')}, ECE "
        f"{metrics[split]['calibration_error']:.4f}": reliability(
            samples.labels, probabilities[split]
        )
        for split, samples in data.items()
    }
    write_bytes(folder / "reliability.png", reliability_diagram(panels))


def summary(metrics: dict[str, Any], description: dict[str, Any]) -> str:
    """The markdown description of the MLflow run."""
    counts = [f"{m['groups']} of {split}" for split, m in metrics.items() if "groups" in m]
    how = f" (resampled are groups, {' and '.join(counts)})" if counts else ""
    head = [
        f"`{description['architecture']}`, best of {description['epochs']} epochs: "
        f"{description['best_epoch']}",
        "",
        f"95 % intervals in brackets{how}; calibration: expected calibration error.",
        "",
        "| split | n | accuracy | macro F1 | log loss | calibration | logistic | majority |",
        "|---|---|---|---|---|---|---|---|",
    ]
    rows = [
        f"| {split} | {m['n']} | {_with_interval(m, 'accuracy')} | {_with_interval(m, 'macro_f1')} "
        f"| {_with_interval(m, 'log_loss')} | {m['calibration_error']:.4f} | "
        f"{m['baseline_accuracy']:.4f} | {m['majority_accuracy']:.4f} |"
        for split, m in metrics.items()
    ]
    return "\n".join(head + rows)


def _with_interval(values: dict[str, Any], key: str) -> str:
    low, high = values[f"{key}_low"], values[f"{key}_high"]
    return f"{values[key]:.4f} ({low:.4f} to {high:.4f})"
