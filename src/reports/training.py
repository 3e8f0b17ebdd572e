"""What a finished training leaves: the model with its description, history, metrics, figures."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from src.base.files import write_bytes, write_csv, write_json
from src.base.kinds import kind_part
from src.base.plots import curves
from src.model.nets.names import OWN
from src.model.saved import save_model
from src.plumbing.params import own_params
from src.reports.batch import batch_grid
from src.training.loop import Training


def write_outputs(
    training: Training, params: Mapping[str, Any], fingerprint: str, models: Path, results: Path
) -> None:
    """Write the outputs of stage `train`: the model into `models`, all else into `results`."""
    history, best = training.history, training.best
    save_model(best.weights, _description(training, params, fingerprint), models)
    write_csv(results / "history.csv", list(history[0]), [list(row.values()) for row in history])
    chosen = history[best.epoch - 1]
    metrics = {
        "train_loss": chosen["train_loss"],
        "train_accuracy": chosen["train_accuracy"],
        "best_epoch": best.epoch,
    }
    write_json(results / "metrics.json", metrics)
    panels = {
        name: {split: [row[f"{split}_{name}"] for row in history] for split in ("train", "val")}
        for name in ("loss", "accuracy")
    }
    panels["learning rate"] = {"lr": [row["lr"] for row in history]}
    panels["gradient norm"] = {"mean of the epoch": [row["grad_norm"] for row in history]}
    write_bytes(results / "curves.png", curves(panels, "epoch"))
    write_bytes(results / "batch.png", batch_grid(training))


def _description(training: Training, params: Mapping[str, Any], fingerprint: str) -> dict[str, Any]:
    """What prediction needs beside the weights, and which run of `train` made them."""
    meta, learner = training.train.meta, training.learner
    of_kind = kind_part(learner.kind, "model")
    return {
        "architecture": params["model"],
        "classes": meta["classes"],
        "input_size": of_kind.input_size(meta),
        "mean": learner.mean,
        "std": learner.std,
        **of_kind.about(meta),
        **({"own_params": own_params(params)} if params["model"] == OWN else {}),
        "activation": learner.criterion.activation,
        "best_by": params["best_by"],
        "epochs": training.epoch,
        "best_epoch": training.best.epoch,
        "fingerprint": fingerprint,
    }
