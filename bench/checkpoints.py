"""What the resume checkpoint costs: `python -m bench.checkpoints`.

The state of a training with averages, after a step, is written to the disk of this folder `--times`
times; the median over machine.checkpoint_minutes is the share of the loop's time that it takes.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from bench.loop import images_in, training_for
from src.data.batches import training_batches
from src.plumbing import params
from src.training.checkpoint import Checkpoint
from src.training.step import train_step

NETS = {"resnet10t": 32, "resnet50": 32, "vit_base_patch16_224": 224}  # with their side in pixels


def seconds_per_save(name: str, side: int, times: int) -> tuple[float, float]:
    """(median seconds, megabytes) of a checkpoint of the net `name`."""
    given: dict[str, Any] = {**params.load(), "model": name, "ema": 0.999, "batch_size": 2}
    with tempfile.TemporaryDirectory(dir=".") as folder:
        data = images_in(Path(folder), 4, side)
        training = training_for(data, given)
        learner = training.learner
        train_step(learner, next(training_batches(data, 0, 0, 2, learner.device)), 0)
        checkpoint = Checkpoint(Path(folder), "0", given["machine.checkpoint_minutes"], {})
        seconds = []
        for _ in range(times):
            start = time.perf_counter()
            checkpoint.save(training.state_dict())
            seconds.append(time.perf_counter() - start)
        return statistics.median(seconds), checkpoint.path.stat().st_size / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.checkpoints", description=__doc__)
    parser.add_argument("--times", type=int, default=7)
    times = parser.parse_args().times
    minutes = float(str(params.load()["machine.checkpoint_minutes"]))
    for name, side in NETS.items():
        seconds, size = seconds_per_save(name, side, times)
        share = seconds / (60 * minutes)
        print(f"{name}: {size:.0f} MB in {seconds:.2f} s, {share:.3%} of {minutes:g} minutes")


if __name__ == "__main__":
    main()
