"""Stage `evaluate`: the trained model on val and test, with intervals and baselines.

Choices are made on val; test is for the end. The model is rebuilt from its two files alone.
"""

from pathlib import Path
from typing import Any

from src import stage
from src.errors import InputError

DATA, MODELS, RESULTS = "data/prepared", Path("models"), Path("results/evaluate")
SPLITS = ("val", "test")
WORST_SHOWN = 40


def main(run: stage.Stage) -> None:
    import numpy as np
    import torch

    from src.data.packed import PackedSplit
    from src.files import write_json
    from src.metrics import Baselines, softmax, split_metrics
    from src.tracking import run as tracking
    from src.training.device import prepare_device
    from src.training.model import load_model, logits_of

    device = prepare_device(run.params["machine.device"], run.params["threads"])
    model, description = load_model(MODELS)
    model.to(device)
    data = {split: PackedSplit(DATA, split) for split in SPLITS}
    check_same_data(description, data["val"].meta)
    baselines = Baselines(PackedSplit(DATA, "train"))
    metrics, probabilities = {}, {}
    for split, pictures in data.items():
        parts = logits_of(
            model, pictures, device, description["mean"], description["std"],
            run.params["machine.workers"],
        )  # fmt: skip
        logits = torch.cat([logits for logits, _ in parts]).cpu().numpy()
        if not np.isfinite(logits).all():
            raise InputError("models/model.safetensors gives outputs that are not numbers")
        probabilities[split] = softmax(logits)
        baseline, majority = baselines.accuracy(pictures)
        metrics[split] = {
            **split_metrics(pictures.labels, probabilities[split]),
            "baseline_accuracy": baseline,
            "majority_accuracy": majority,
        }
        print(headline(split, metrics[split]))
    write_json(RESULTS / "metrics.json", metrics)
    write_tables(data, probabilities)
    write_pictures(data["test"], probabilities["test"])

    run.confirm_inputs()  # before train's run gets numbers that belong to other inputs
    model_md5 = run.deps_md5["models/model.safetensors"]
    with tracking.reopen(run, description["fingerprint"], model_md5) as log:
        for split, values in metrics.items():
            for key, value in values.items():
                # val/accuracy has a curve over the epochs; the kept weights come after its end.
                # All else is a single number, which MLflow draws as a bar if it has no step.
                is_curve = (split, key) == ("val", "accuracy")
                step = description["epochs"] + 1 if is_curve else 0
                log.log_metrics({f"{split}/{key}": float(value)}, step)
            log.log_input(f"{DATA}:{split}", run.deps_md5[DATA], f"evaluate {split}")
        for path in sorted(RESULTS.iterdir()):
            if not path.name.startswith("."):
                log.log_artifact(path, "evaluate")
        log.describe(summary(metrics, description))


def headline(split: str, values: dict[str, Any]) -> str:
    """A split's accuracy in a line, and whether it is worth the trouble."""
    line = (
        f"evaluate: {split} accuracy {values['accuracy']:.4f} "
        f"({values['accuracy_low']:.4f} to {values['accuracy_high']:.4f})"
    )
    beaten = values["accuracy"] > values["baseline_accuracy"]
    verdict = "" if beaten else ", which the net does not beat"
    return f"{line}, logistic regression {values['baseline_accuracy']:.4f}{verdict}"


def check_same_data(description: dict[str, Any], meta: dict[str, Any]) -> None:
    """InputError unless the model was made for pictures and classes like these."""
    shape = [meta["channels"], meta["size"], meta["size"]]
    if description["input_size"] != shape or description["classes"] != meta["classes"]:
        raise InputError(
            "models/model.json was trained for other classes or another picture size than "
            "data/prepared holds: run `dvc repro train`"
        )


def write_tables(data: dict[str, Any], probabilities: dict[str, Any]) -> None:
    """predictions.csv for every sample, per_class.csv for test."""
    from src.files import write_csv
    from src.metrics import per_class_rows

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

    from src.data.pictures import picture_grid
    from src.files import write_bytes
    from src.plots import confusion_matrix, shown_name

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
    title = f"least probable labels of test ({mistakes} mistakes): label → prediction"
    grid = picture_grid(list(test.pictures(worst)), captions, columns=8, title=title)
    write_bytes(RESULTS / "worst_mistakes.png", grid)


def summary(metrics: dict[str, Any], description: dict[str, Any]) -> str:
    """The markdown description of the MLflow run."""
    head = [
        f"`{description['architecture']}`, best of {description['epochs']} epochs: "
        f"{description['best_epoch']}",
        "",
        "| split | n | accuracy | 95 % interval | macro F1 | log loss | logistic | majority |",
        "|---|---|---|---|---|---|---|---|",
    ]
    rows = [
        f"| {split} | {m['n']} | {m['accuracy']:.4f} | {m['accuracy_low']:.4f} to "
        f"{m['accuracy_high']:.4f} | {m['macro_f1']:.4f} | {m['log_loss']:.4f} | "
        f"{m['baseline_accuracy']:.4f} | {m['majority_accuracy']:.4f} |"
        for split, m in metrics.items()
    ]
    return "\n".join(head + rows)


if __name__ == "__main__":
    stage.run("evaluate", main)
