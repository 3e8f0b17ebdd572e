"""What `evaluate` leaves: tables, pictures, the description of the run."""

from typing import Any

from src.evaluate import RESULTS

SPLITS = ("val", "test")


WORST_SHOWN = 40


def headline(split: str, values: dict[str, Any]) -> str:
    """A split's accuracy in a line, and whether it is worth the trouble."""
    line = (
        f"evaluate: {split} accuracy {values['accuracy']:.4f} "
        f"({values['accuracy_low']:.4f} to {values['accuracy_high']:.4f})"
    )
    beaten = values["accuracy"] > values["baseline_accuracy"]
    verdict = "" if beaten else ", which the net does not beat"
    return f"{line}, logistic regression {values['baseline_accuracy']:.4f}{verdict}"


def write_tables(data: dict[str, Any], probabilities: dict[str, Any]) -> None:
    """predictions.csv for every sample, per_class.csv for test."""
    from src.base.files import write_csv
    from src.reports.metrics import per_class_rows

    classes = data["test"].meta["classes"]
    header = ["split", "index", "label", "prediction", *(f"probability {name}" for name in classes)]
    rows = [
        (split, index, classes[label], classes[row.argmax()], *row.tolist())
        for split in SPLITS
        for index, (label, row) in enumerate(
            zip(data[split].labels, probabilities[split], strict=True)
        )
    ]
    write_csv(RESULTS / "predictions.csv", header, rows)
    table = per_class_rows(data["test"].labels, probabilities["test"].argmax(axis=1), classes)
    write_csv(RESULTS / "per_class.csv", ["class", "pictures", "precision", "recall", "f1"], table)


def write_pictures(test: Any, probabilities: Any) -> None:
    """The confusion matrix, and the pictures on which the net is most wrong."""
    import numpy as np
    from sklearn.metrics import confusion_matrix as count_confusions

    from src.base.figure import shown_name
    from src.base.files import write_bytes
    from src.base.plots import confusion_matrix
    from src.images.grids import picture_grid

    labels = test.labels
    classes = [shown_name(name) for name in test.meta["classes"]]
    predictions = probabilities.argmax(axis=1)
    matrix = count_confusions(labels, predictions, labels=np.arange(len(classes)))
    picture = confusion_matrix(matrix, classes, f"test: {len(labels)} pictures")
    write_bytes(RESULTS / "confusion_matrix.png", picture)

    right = probabilities[np.arange(len(labels)), labels]
    worst = np.argsort(right, kind="stable")[:WORST_SHOWN]
    captions = [
        f"{classes[labels[i]]}, {right[i]:.2f}\n→ {classes[predictions[i]]}, "
        f"{probabilities[i, predictions[i]]:.2f}"
        for i in worst
    ]
    mistakes = int((predictions != labels).sum())
    told = f"{mistakes} mistake{'s' * (mistakes != 1)}"
    title = f"least probable labels of test ({told}): label → prediction"
    grid = picture_grid(list(test.pictures(worst)), captions, columns=8, title=title)
    write_bytes(RESULTS / "worst_mistakes.png", grid)


def write_reliability(
    data: dict[str, Any], probabilities: dict[str, Any], metrics: dict[str, Any]
) -> None:
    """The reliability diagrams of both splits."""
    from src.base.files import write_bytes
    from src.base.plots import reliability_diagram
    from src.reports.metrics import reliability

    panels = {
        f"{split}: {len(pictures)} pictures, ECE "
        f"{metrics[split]['calibration_error']:.4f}": reliability(
            pictures.labels, probabilities[split]
        )
        for split, pictures in data.items()
    }
    write_bytes(RESULTS / "reliability.png", reliability_diagram(panels))


def summary(metrics: dict[str, Any], description: dict[str, Any]) -> str:
    """The markdown description of the MLflow run."""
    head = [
        f"`{description['architecture']}`, best of {description['epochs']} epochs: "
        f"{description['best_epoch']}",
        "",
        "95 % intervals in brackets; calibration: expected calibration error.",
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
