"""Stage `evaluate`: the trained model on val and test, with intervals and baselines.

Choices are made on val; test is for the end. The model is rebuilt from its two files, and from
own_net if it is that.

With `evaluate.refresh_batchnorm: test` a split is evaluated with the BatchNorm statistics of its
own pictures, all at once and without their labels. A prediction then depends on the other pictures
of the split: the numbers hold where pictures come in such sets, not for one picture at a time.
"""

from pathlib import Path
from typing import Any

from src import stage
from src.errors import InputError

DATA, MODELS, RESULTS = "data/prepared", Path("models"), Path("results/evaluate")
SPLITS = ("val", "test")
WORST_SHOWN = 40


def main(run: stage.Stage) -> None:
    from src.data.packed import PackedSplit
    from src.files import round_floats, write_json
    from src.metrics import Baselines, split_metrics
    from src.randomness import derive
    from src.tracking import run as tracking
    from src.training.device import prepare_device, told_in_one_line
    from src.training.model import load_model

    params = run.params
    device = prepare_device(params["machine.device"], params["threads"], params["deterministic"])
    model, description = load_model(MODELS, needed=("epochs", "best_epoch", "fingerprint"))
    model.to(device)
    data = {split: PackedSplit(DATA, split) for split in SPLITS}
    check_same_data(description, data["val"].meta)
    train = PackedSplit(DATA, "train")
    baselines = Baselines(train)
    if line := told_of_options(params):
        print(line)
    with told_in_one_line("evaluate"):
        probabilities = {
            split: predict(model, description, pictures, train, params, device)
            for split, pictures in data.items()
        }
    metrics = {}
    for split, pictures in data.items():
        baseline, majority = baselines.accuracy(pictures)
        found = split_metrics(pictures.labels, probabilities[split], derive(0, "bootstrap"))
        # Rounded once, as the file has them: else another digit would stand here and in MLflow.
        metrics[split] = round_floats(
            {**found, "baseline_accuracy": baseline, "majority_accuracy": majority}
        )
        print(headline(split, metrics[split]))
    write_json(RESULTS / "metrics.json", metrics)
    write_tables(data, probabilities)
    write_pictures(data["test"], probabilities["test"])
    write_reliability(data, probabilities, metrics)

    run.confirm_inputs()  # before train's run gets numbers that belong to other inputs
    model_md5 = run.deps_md5["models/model.safetensors"]
    with tracking.reopen(run, description["fingerprint"], model_md5) as log:
        for split, values in metrics.items():
            for key, value in values.items():
                # These have a curve over the epochs; the kept weights come after its end. All
                # else is a single number, which MLflow draws as a bar if it has no step.
                is_curve = f"{split}/{key}" in ("val/accuracy", "val/macro_f1")
                step = description["epochs"] + 1 if is_curve else 0
                log.log_metrics({f"{split}/{key}": float(value)}, step)
            log.log_input(f"{DATA}:{split}", run.deps_md5[DATA], f"evaluate {split}")
        for path in sorted(RESULTS.iterdir()):
            if not path.name.startswith("."):
                log.log_artifact(path, "evaluate")
        log.describe(summary(metrics, description))


def predict(
    model: Any, description: dict[str, Any], data: Any, train: Any, params: Any, device: Any
) -> Any:
    """Probabilities (float64 N x K) for the PackedSplit `data`, with the net and `description` of
    `load_model` and what `evaluate` of params asks for; `train` is the training split.

    Softmax of the logits, or, where `activation` in model.json is sigmoid, sigmoids divided by
    their sum. InputError for outputs that are not numbers.
    """
    import copy

    import numpy as np
    import torch

    from src.data.readers import Reading
    from src.metrics import ACTIVATIONS
    from src.training.inference import logits_of, refresh_batchnorm

    mean, std = description["mean"], description["std"]
    reading = Reading.from_params(params)
    refresh = params["evaluate.refresh_batchnorm"]
    if refresh != "none":
        model = copy.deepcopy(model)  # the next split starts from the trained statistics again
        refresh_batchnorm(model, train if refresh == "train" else data, device, mean, std, reading)
    parts = logits_of(model, data, device, mean, std, reading, params["evaluate.flip"])
    logits = torch.cat([logits for logits, _ in parts]).cpu().numpy()
    if not np.isfinite(logits).all():
        raise InputError("models/model.safetensors gives outputs that are not numbers")
    return ACTIVATIONS[description.get("activation", "softmax")](logits)


def told_of_options(params: Any) -> str | None:
    """A line that says in what the predictor of these figures is not that of src.predict, if in
    anything."""
    asked = []
    if params["evaluate.flip"]:
        asked.append("flip")
    if (refresh := params["evaluate.refresh_batchnorm"]) != "none":
        asked.append(f"refreshed BatchNorm statistics ({refresh})")
    if not asked:
        return None
    return (
        f"evaluate: these figures are with {' and '.join(asked)}: `python -m src.predict` and the "
        "served model answer without"
    )


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
    from src.figure import shown_name
    from src.files import write_bytes
    from src.plots import confusion_matrix

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
    from src.files import write_bytes
    from src.metrics import reliability
    from src.plots import reliability_diagram

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


if __name__ == "__main__":
    stage.run("evaluate", main)
