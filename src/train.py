"""Stage `train`: a net on `data/${train_on}`, the best weights by validation, its history.

In order: put the training together, go on from a checkpoint if there is one, train, make sure that
no input changed meanwhile, write and log the outputs. The checkpoint goes when the run has ended
well. The loop itself is src/training/loop.py.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from src.plumbing import process
from src.plumbing.stage import Stage, run_stage

RESULTS, MODELS = Path("results/train"), Path("models")


def main(stage: Stage) -> None:
    from src.base.eager import defer_compiler

    params = stage.params
    if params["compile"] == "none":
        defer_compiler()

    from src.data.packed import PackedSplit
    from src.data.readers import Reading
    from src.model.device import machine_kind, prepare_device, readable_errors
    from src.reports.training import write_outputs
    from src.tracking import run as tracking
    from src.training.checkpoint import Checkpoint
    from src.training.loop import Training

    device = prepare_device(
        params["machine.device"], params["threads"], params["deterministic"], params["tf32"]
    )
    folder = f"data/{params['train_on']}"
    train, val = PackedSplit(folder, "train"), PackedSplit(folder, "val")
    with readable_errors("train"):  # torch's, such as too little memory for the net
        training = Training(params, train, val, device, Reading.from_params(params))
    for line in training.remarks():
        print(line)
    checkpoint = Checkpoint(
        stage.root,
        stage.fingerprint,
        params["machine.checkpoint_minutes"],
        machine_kind(device),
        anywhere=params["machine.resume"] == "any",
    )
    with (
        tracking.start(stage, checkpoint.needed_kind, afterwards=checkpoint.remove) as log,
        readable_errors("train"),
    ):
        log.log_data(folder, ("train", "val"))
        if state := checkpoint.load():
            training.load_state_dict(state)
            print(f"train: goes on after epoch {training.epoch}, step {training.step_in_epoch}")
            for row in training.history:  # a power cut may have lost logged points
                log.log_epoch(row)
        log.log_machines(checkpoint.kinds)
        with process.deferred() as stopping, progress_of(training, params) as progress:
            training.run(checkpoint, progress, after_epoch(training, log, params), stopping)
        # Here the training is finished: a signal that stopped it was raised where the block ended.
        # An input that changed meanwhile would make dvc.lock vouch for what did not go in.
        stage.confirm_inputs()
        write_outputs(training, params, stage.fingerprint, MODELS, RESULTS)
        for name in ("curves.png", "batch.png", "history.csv"):
            log.log_artifact(RESULTS / name, "train")
        log.log_model(MODELS)
        stage.confirm_inputs()  # to log a model takes a while


def progress_of(training: Any, params: Any) -> Any:
    """The bar of a training, which begins where that stands."""
    from src.base.kinds import kind_of
    from src.plumbing.terminal import Progress

    plan, samples = training.plan, len(training.train)
    per_step, unit = min(plan.step_size, samples), kind_of(training.train.meta)
    done, mode = training.global_step, params["machine.progress"]
    return Progress(plan.epochs, training.steps_per_epoch, per_step, unit, done, mode)


def after_epoch(training: Any, log: Any, params: Any) -> Callable[[dict[str, float]], None]:
    """What is logged when an epoch ends: its row of history and, now and then, examples."""
    from src.reports.batch import examples_grid

    every = params["machine.examples_every"]

    def on_epoch(row: dict[str, float]) -> None:
        log.log_epoch(row)
        epoch = int(row["epoch"])
        if every and epoch % every == 0:
            title = f"val after epoch {epoch}: label, prediction where it differs, probability"
            grid = examples_grid(training.val, training.learner, title)
            log.log_image(f"examples/epoch_{epoch:03d}.png", grid)

    return on_epoch


if __name__ == "__main__":
    run_stage("train", main)
