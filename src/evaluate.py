"""Stage `evaluate`: the trained model on val and test, with intervals and baselines.

Choices are made on val; test is for the end. The model is rebuilt from its two files, and from
src/yours/net.py if it is that net.

With `evaluate.refresh_batchnorm: test` the BatchNorm statistics are those of the split's own
samples, without labels: the numbers hold for samples that come in such sets, not one at a time.
"""

from pathlib import Path
from typing import Any

from src.plumbing.errors import InputError
from src.plumbing.stage import Stage, run_stage

DATA, MODELS, RESULTS = "data/prepared", Path("models"), Path("results/evaluate")


def main(stage: Stage) -> None:
    from src.base.eager import defer_compiler

    defer_compiler()

    from src.base.files import round_floats, write_json
    from src.base.randomness import derive
    from src.data.groups import clusters
    from src.data.packed import PackedSplit
    from src.model.device import prepare_device, readable_errors
    from src.model.saved import load_model
    from src.reports import evaluation
    from src.reports.baselines import Baselines
    from src.reports.metrics import own_split_metrics, split_metrics
    from src.tracking import run as tracking

    params = stage.params
    device = prepare_device(params["machine.device"], params["threads"], params["deterministic"])
    model, description = load_model(MODELS, needed=("epochs", "best_epoch", "fingerprint"))
    model.to(device)
    data = {split: PackedSplit(DATA, split) for split in evaluation.SPLITS}
    require_same_data(description, data["val"].meta)
    train = PackedSplit(DATA, "train")
    baselines = Baselines(train)
    if line := options_remark(params):
        print(line)
    with readable_errors("evaluate"):
        probabilities = {
            split: predict(model, description, samples, train, params, device)
            for split, samples in data.items()
        }
    metrics = {}
    for split, samples in data.items():
        baseline, majority = baselines.accuracy(samples)
        groups, seed = clusters(samples.groups), derive(0, "bootstrap")
        found = split_metrics(samples.labels, probabilities[split], seed, groups)
        own = own_split_metrics(samples.labels, probabilities[split], split, seed, groups)
        # Rounded once, as the file has them: else another digit would stand here and in MLflow.
        metrics[split] = round_floats(
            {**found, **own, "baseline_accuracy": baseline, "majority_accuracy": majority}
        )
        print(evaluation.headline(split, metrics[split]))
        if line := evaluation.group_remark(split, samples):
            print(line)
    write_json(RESULTS / "metrics.json", metrics)
    evaluation.write_tables(data, probabilities, RESULTS)
    evaluation.write_figures(data["val"], probabilities["val"], RESULTS)
    evaluation.write_reliability(data, probabilities, metrics, RESULTS)

    stage.confirm_inputs()  # before train's run gets numbers that belong to other inputs
    model_md5 = stage.deps_md5["models/model.safetensors"]
    with tracking.reopen(stage, description["fingerprint"], model_md5) as log:
        log.log_evaluation(metrics, description["epochs"], description.get("best_by", ""))
        log.log_data(DATA, evaluation.SPLITS)
        for path in sorted(RESULTS.glob("[!.]*")):
            log.log_artifact(path, "evaluate")
        log.describe(evaluation.summary(metrics, description))


def predict(
    model: Any, description: dict[str, Any], data: Any, train: Any, params: Any, device: Any
) -> Any:
    """Probabilities (float64 N x K) for the PackedSplit `data`: the softmax of the logits or, where
    `activation` in model.json is sigmoid, sigmoids divided by their sum. `train` is the training
    split. InputError for outputs that are not numbers."""
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


def options_remark(params: Any) -> str:
    """A line that says in what the predictor of these figures is not that of src.predict; empty if
    in nothing."""
    options = ["flip"] if params["evaluate.flip"] else []
    if (refresh := params["evaluate.refresh_batchnorm"]) != "none":
        options.append(f"refreshed BatchNorm statistics ({refresh})")
    if not options:
        return ""
    return (
        f"evaluate: these figures are with {' and '.join(options)}: `python -m src.predict` and "
        "the served model predict without"
    )


def require_same_data(description: dict[str, Any], meta: dict[str, Any]) -> None:
    """InputError unless the model was made for samples and classes like these."""
    from src.base.kinds import kind_of, kind_part

    kind = kind_of(meta)
    sizes = kind_part(kind, "model").input_size(meta)
    made_for = kind_of(description), description["input_size"], description["classes"]
    if made_for != (kind, sizes, meta["classes"]):
        raise InputError(
            "models/model.json was trained for other classes or samples of another size than "
            "data/prepared holds: run `dvc repro train`"
        )


if __name__ == "__main__":
    run_stage("evaluate", main)
