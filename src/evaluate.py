"""Stage `evaluate`: the trained model on val and test, with intervals and baselines.

Choices are made on val; test is for the end. The model is rebuilt from its two files, and from
own_net if it is that.

With `evaluate.refresh_batchnorm: test` a split is evaluated with the BatchNorm statistics of its
own pictures, all at once and without their labels. A prediction then depends on the other pictures
of the split: the numbers hold where pictures come in such sets, not for one picture at a time.
"""

from pathlib import Path
from typing import Any

from src.plumbing import stage
from src.plumbing.errors import InputError
from src.reports.evaluation import (
    SPLITS,
    headline,
    summary,
    write_pictures,
    write_reliability,
    write_tables,
)

DATA, MODELS, RESULTS = "data/prepared", Path("models"), Path("results/evaluate")


def main(run: stage.Stage) -> None:
    from src.base.files import round_floats, write_json
    from src.base.randomness import derive
    from src.data.packed import PackedSplit
    from src.model.device import prepare_device, told_in_one_line
    from src.model.saved import load_model
    from src.reports.baselines import Baselines
    from src.reports.metrics import split_metrics
    from src.tracking import run as tracking

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
    from src.model.inference import ACTIVATIONS, logits_of, refresh_batchnorm

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


def check_same_data(description: dict[str, Any], meta: dict[str, Any]) -> None:
    """InputError unless the model was made for pictures and classes like these."""
    shape = [meta["channels"], meta["size"], meta["size"]]
    if description["input_size"] != shape or description["classes"] != meta["classes"]:
        raise InputError(
            "models/model.json was trained for other classes or another picture size than "
            "data/prepared holds: run `dvc repro train`"
        )


if __name__ == "__main__":
    stage.run("evaluate", main)
