"""Stage `train`: a net on `data/${train_on}`, the best weights by validation, its history.

In order: set up, go on from a checkpoint if there is one, train, make sure that no input changed
meanwhile, write and log the outputs, make sure again, remove the checkpoint. The loop itself is
src/training/loop.py.
"""

from pathlib import Path
from typing import Any

from src.plumbing import locks, process, stage

RESULTS, MODELS = Path("results/train"), Path("models")


def main(run: stage.Stage) -> None:
    from src.data.batches import steps_per_epoch, told_of_rest
    from src.data.packed import PackedSplit
    from src.data.readers import Reading
    from src.images.augment import Augmentation
    from src.images.mix import Mix
    from src.model.device import machine_kind, prepare_device, told_in_one_line
    from src.plumbing.dvc_files import md5_of
    from src.plumbing.terminal import Progress
    from src.reports.batch import examples_picture
    from src.reports.training import write_outputs
    from src.tracking import run as tracking
    from src.tracking.journal import journal
    from src.tracking.lookup import KIND
    from src.training.average import told_of_warm_up
    from src.training.checkpoint import Checkpoint
    from src.training.loop import Plan, Training
    from src.training.setup import build_setup

    params = run.params
    device = prepare_device(
        params["machine.device"], params["threads"], params["deterministic"], params["tf32"]
    )
    folder = f"data/{params['train_on']}"
    train, val = PackedSplit(folder, "train"), PackedSplit(folder, "val")
    plan = Plan.from_params(params)
    with told_in_one_line("train"):  # errors of torch, such as too little memory for the net
        setup = build_setup(params, train, device, steps_per_epoch(len(train), plan.step_size))
    mix = Mix.from_params(params, len(train.meta["classes"]))
    augmentation = Augmentation.from_params(params)
    reading = Reading.from_params(params)
    training = Training(setup, train, val, plan, augmentation, mix, reading)
    for line in (
        told_of_warm_up(params["ema"], plan.epochs * training.steps),
        told_of_rest(len(train), plan.step_size, plan.sampling),
    ):
        if line:
            print(line)
    kind = machine_kind(device)
    minutes, anywhere = params["machine.checkpoint_minutes"], params["machine.resume"] == "any"
    checkpoint = Checkpoint(run.root, run.fingerprint, minutes, kind, anywhere)
    # A run in MLflow that a kill left open is gone on with only where the checkpoint is.
    kind_of_run = "" if anywhere else checkpoint.own_kind
    with tracking.start(run, kind_of_run) as log, told_in_one_line("train"):
        for split in (train, val):
            log.log_input(f"{folder}:{split.split}", run.deps_md5[folder], split.split)
        for path in to_look_at(folder, train.meta):
            log.log_artifact(path, "data")
        if state := checkpoint.load():
            training.load_state_dict(state)
            print(f"train: goes on after epoch {training.epoch}, step {training.step}")
            for row in training.history:  # a power cut may have taken points
                log.log_metrics(*_points(row))
        log.set_tags({KIND: " + ".join(checkpoint.kinds)})
        done = training.epoch * training.steps + training.step
        per_step = min(plan.step_size, len(train))
        every = params["machine.examples_every"]

        def on_epoch(row: dict[str, float]) -> None:
            metrics, epoch = _points(row)
            log.log_metrics(metrics, epoch)
            if every and epoch % every == 0:
                title = f"val after epoch {epoch}: label, prediction where it differs, probability"
                picture = examples_picture(val, setup, title)
                log.log_picture(f"examples/epoch_{epoch:03d}.png", picture)

        with (
            process.deferred() as stopping,
            Progress(
                plan.epochs, training.steps, per_step, done, params["machine.progress"]
            ) as progress,
        ):
            training.run(checkpoint, progress, on_epoch, stopping)
        # Here the training is finished: a signal that stopped it was raised where the block ended.
        # An input that changed meanwhile would make dvc.lock vouch for what did not go in.
        run.confirm_inputs()
        write_outputs(training, params, run.fingerprint, MODELS, RESULTS)
        for name in ("curves.png", "batch.png", "history.csv"):
            log.log_artifact(RESULTS / name, "train")
        log.log_model(MODELS)
        log.set_tags({"model.md5": md5_of(MODELS / "model.safetensors")})
        run.confirm_inputs()  # to log a model takes a while
    run.confirm_inputs()  # and so does what the server had not taken yet
    with locks.try_hold(journal.lock_path(run.root, run.fingerprint)) as free:
        if free:  # else the same training has begun again, and goes on from here
            checkpoint.remove()


def to_look_at(folder: str, meta: dict[str, Any]) -> list[Path]:
    """The files of a packed data set that are for people: all but the arrays and their tables."""
    tables = [f"{split}.csv" for split in meta["shards"]]
    files = [path for path in sorted(Path(folder).iterdir()) if path.is_file()]
    return [path for path in files if path.suffix != ".npy" and path.name not in tables]


def _points(row: dict[str, float]) -> tuple[dict[str, float], int]:
    """A row of history as MLflow metrics (`train/loss`, ...) and their step."""
    metrics = {
        key.replace("_", "/", 1) if key.startswith(("train_", "val_")) else key: value
        for key, value in row.items()
        if key != "epoch"
    }
    return metrics, int(row["epoch"])


if __name__ == "__main__":
    stage.run("train", main)
