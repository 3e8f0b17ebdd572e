"""How much of the step rate that synthetic data reach, real ones do: `python -m bench.feeding`.

Synthetic: the same steps on one batch that stays on the device, so that nothing is read and nothing
augmented. Real: the loop with the augmentation of params.yaml, by each way of reading, out of a
packed split whose pages the system may keep in memory. An epoch of each in turn, for some rounds;
the start of an epoch, with that of its processes, counts.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from bench.loop import images_in, run_epochs, training_for, wait
from src.data.batches import steps_per_epoch
from src.data.packed import PackedSplit
from src.data.readers import Reading, read_batches
from src.plumbing import params
from src.training.step import update


def real(data: PackedSplit, given: dict[str, Any], reading: Reading) -> Callable[[], None]:
    """One epoch of the project's loop, without validation and checkpoint."""
    training = training_for(data, given, reading)
    return lambda: run_epochs(training)


def synthetic(data: PackedSplit, given: dict[str, Any]) -> Callable[[], None]:
    """As many steps on the first batch."""
    learner = training_for(data, given).learner
    steps = steps_per_epoch(len(data), given["batch_size"])
    first = torch.arange(given["batch_size"]).numpy()
    batch = next(iter(read_batches(data, [first], learner.device)))

    def run() -> None:
        sums = torch.zeros(3, device=learner.device)
        for step in range(steps):
            torch._foreach_add_(sums.unbind(), update(learner, batch, step))
        wait(learner.device)

    return run


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.feeding", description=__doc__)
    parser.add_argument("--model")
    parser.add_argument("--size", type=int, default=32, help="side of the images in pixels")
    parser.add_argument("--batch", type=int)
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--images", type=int, default=2048)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    wanted = parser.parse_args()
    given: dict[str, Any] = {
        **params.load(),
        "epochs": 1,
        "precision": wanted.precision,
        "channels_last": wanted.precision != "fp32",
    }
    given["model"] = wanted.model or given["model"]
    given["batch_size"] = wanted.batch or given["batch_size"]
    with tempfile.TemporaryDirectory() as folder:
        data = images_in(Path(folder), wanted.images, wanted.size)
        epochs = {
            "synthetic": synthetic(data, given),
            "resident": real(data, given, Reading("resident")),
            "mapped": real(data, given, Reading("mapped")),
            f"{wanted.workers} workers": real(data, given, Reading("workers", wanted.workers)),
        }
        seconds: dict[str, list[float]] = {name: [] for name in epochs}
        for number in range(wanted.rounds + 1):
            for name, epoch in epochs.items():
                start = time.perf_counter()
                epoch()
                if number:  # the first round warms up
                    seconds[name].append(time.perf_counter() - start)
        steps = steps_per_epoch(len(data), given["batch_size"])
        print(f"{given['model']}, {wanted.size} px, {given['batch_size']} a step, {steps} steps")
        for name, found in seconds.items():
            share = statistics.median(
                there / here for here, there in zip(found, seconds["synthetic"], strict=True)
            )
            rate = steps * given["batch_size"] / statistics.median(found)
            print(f"{name}: {rate:.0f} images/s, {share:.3f} of the synthetic rate")


if __name__ == "__main__":
    main()
