"""Stage `train`: a net on `data/${train_on}`, the best weights by validation, its history.

In order: set up, go on from a checkpoint if there is one, train, make sure that no input changed
meanwhile, write the outputs. The loop itself is src/training/loop.py.
"""

from pathlib import Path
from typing import Any

from src import process, stage

RESULTS = Path("results/train")


def main(run: stage.Stage) -> None:
    from src.data.augment import Augmentation
    from src.data.batches import steps_per_epoch
    from src.data.packed import PackedSplit
    from src.pipeline import md5_of
    from src.terminal import Progress
    from src.tracking import run as tracking
    from src.training.checkpoint import Checkpoint
    from src.training.device import machine_kind, prepare_device
    from src.training.loop import Training
    from src.training.setup import build_setup

    params = run.params
    device = prepare_device(params["machine.device"], params["threads"])
    folder = f"data/{params['train_on']}"
    train, val = PackedSplit(folder, "train"), PackedSplit(folder, "val")
    epochs, batch_size = params["epochs"], params["batch_size"]
    setup = build_setup(
        params,
        train.meta,
        device,
        steps=steps_per_epoch(len(train), batch_size),
        epochs=epochs,
        schedule=params["schedule"],
        warmup=params["warmup"],
        lr=params["lr"],
    )
    training = Training(
        setup,
        train,
        val,
        epochs=epochs,
        batch_size=batch_size,
        augmentation=Augmentation(params["augment_crop"], params["augment_flip"]),
        best_by=params["best_by"],
        workers=params["machine.workers"],
    )
    checkpoint = Checkpoint(
        run.root, run.fingerprint, params["machine.checkpoint_minutes"], machine_kind(device)
    )
    with tracking.start(run) as log:
        for split in (train, val):
            log.log_input(f"{folder}:{split.split}", run.deps_md5[folder], split.split)
        if state := checkpoint.load():
            training.load_state_dict(state)
            print(f"train: goes on after epoch {training.epoch}, step {training.step}")
        done = training.epoch * training.steps + training.step
        shown = params["machine.progress"]
        with (
            process.deferred() as stopping,
            Progress(epochs, training.steps, min(batch_size, len(train)), done, shown) as progress,
        ):
            training.run(checkpoint, progress, lambda row: log.log_metrics(*_points(row)), stopping)
        confirm_inputs(run, checkpoint, training)
        write_outputs(training, describe_model(run, train.meta, training))
        for picture in ("curves.png", "batch.png"):
            log.log_artifact(RESULTS / picture, "train")
        log.log_artifact(Path("models/model.json"), "model")
        log.log_artifact(Path("models/model.safetensors"), "model")
        log.log_artifact(RESULTS / "history.csv", "train")
        log.set_tags({"model.md5": md5_of("models/model.safetensors")})
        confirm_inputs(run, checkpoint, training)
        checkpoint.remove()


def confirm_inputs(run: stage.Stage, checkpoint: Any, training: Any) -> None:
    """GateError if an input changed meanwhile. The checkpoint then holds the finished training: if
    the edit is put back, the next run has only to write it."""
    if run.changed_inputs():
        checkpoint.save(training.state_dict())
    run.confirm_inputs()


def _points(row: dict[str, float]) -> tuple[dict[str, float], int]:
    """A row of history as MLflow metrics (`train/loss`, ...) and their step."""
    metrics = {key.replace("_", "/", 1): value for key, value in row.items() if key != "epoch"}
    return metrics, int(row["epoch"])


def describe_model(run: stage.Stage, meta: dict[str, Any], training: Any) -> dict[str, Any]:
    """What prediction needs beside the weights, and which run of `train` made them."""
    return {
        "architecture": run.params["model"],
        "classes": meta["classes"],
        "input_size": [meta["channels"], meta["size"], meta["size"]],
        "mean": meta["mean"],
        "std": meta["std"],
        "fit": meta["fit"],
        "interpolation": meta["interpolation"],
        "epochs": training.epoch,
        "best_epoch": training.best.epoch,
        "fingerprint": run.fingerprint,
    }


def write_outputs(training: Any, description: dict[str, Any]) -> None:
    """The model, the history, the metrics and the pictures of a finished training run."""
    from src.data.show import batch_picture
    from src.files import write_bytes, write_csv, write_json
    from src.plots import curves
    from src.training.model import save_model

    history, best = training.history, training.best
    save_model(best.weights, description)
    write_csv(RESULTS / "history.csv", list(history[0]), [list(row.values()) for row in history])
    chosen = history[best.epoch - 1]
    metrics = {
        "train_loss": chosen["train_loss"],
        "train_accuracy": chosen["train_accuracy"],
        "best_epoch": best.epoch,
    }
    write_json(RESULTS / "metrics.json", metrics)
    panels = {
        name: {split: [row[f"{split}_{name}"] for row in history] for split in ("train", "val")}
        for name in ("loss", "accuracy")
    }
    write_bytes(RESULTS / "curves.png", curves(panels, "epoch"))
    picture = batch_picture(
        training.train, training.setup, training.augmentation, training.batch_size
    )
    write_bytes(RESULTS / "batch.png", picture)


if __name__ == "__main__":
    stage.run("train", main)
