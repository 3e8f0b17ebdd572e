"""A step of a net of one layer here and in another checkout: `python -m bench.step FOLDER`.

With such a net nearly all of a step is the host's: reading, augmentation, starting operations, the
loop itself. Each round measures both, in a process each, by the time of the one thread that
computes; the weights at the end are compared, for a change of speed should move no bit.
"""

import argparse
import hashlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

STEPS, REPEATS = 128, 5


def measured(channels: int) -> tuple[float, str]:
    """(milliseconds per step, the best of some epochs; sha256 of the weights)."""
    from bench.loop import CLASSES, images_in, run_epochs, training_for
    from src.data.readers import Reading
    from src.plumbing import params
    from src.training.optimizer import create_optimizer

    given: dict[str, Any] = {
        **params.load(), "epochs": 1, "threads": 1, "model": "own", "machine.device": "cpu",
        "batch_size": 32, "accumulate": 1, "ema": "none", "freeze_epochs": 0, "warmup": 0,
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        data = images_in(Path(folder) / "images", STEPS * given["batch_size"], 32)
        if channels == 1:
            _make_grey(data)
        torch.manual_seed(0)
        net = nn.Sequential(nn.Flatten(), nn.Linear(channels * 32 * 32, CLASSES))
        training = training_for(data, given, Reading("resident"), net)
        training.learner.optimizer = create_optimizer(net, given, 1e-3)
        run_epochs(training)
        seconds = []
        for _ in range(REPEATS):
            start = time.thread_time()
            run_epochs(training)
            seconds.append(time.thread_time() - start)
    weights = training.learner.model.state_dict()["1.weight"].numpy().tobytes()
    return min(seconds) / STEPS * 1e3, hashlib.sha256(weights).hexdigest()


def _make_grey(data: Any) -> None:
    """The first channel alone, as digits have it."""
    grey = np.ascontiguousarray(data.rows(np.arange(len(data)))[..., :1])
    data.rows = lambda indices: grey[indices]
    data.shape = grey.shape[1:]
    data.meta |= {"channels": 1, "mean": [0.5], "std": [0.3]}


def in_checkout(folder: Path, channels: int) -> tuple[float, str]:
    """The same in a process that runs the code of `folder`."""
    environment = {**os.environ, "PYTHONPATH": str(folder.resolve())}
    command = [sys.executable, str(Path(__file__).resolve()), "--here", str(channels)]
    printed = subprocess.check_output(command, cwd=folder, env=environment, text=True)
    milliseconds, weights = printed.split()[-2:]
    return float(milliseconds), weights


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.step", description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?", help="a checkout of another commit")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--here", type=int, metavar="CHANNELS", help="measure this one alone")
    wanted = parser.parse_args()
    if wanted.here:
        print(*measured(wanted.here))
        return
    for channels in (1, 3):
        pairs = []
        for _ in range(wanted.rounds):
            new, other = (in_checkout(where, channels) for where in (Path(), wanted.folder))
            pairs.append((new[0], other[0]))
        ratios = sorted(new / other for new, other in pairs)
        here, there = (statistics.median(times) for times in zip(*pairs, strict=True))
        print(
            f"{channels} x 32 x 32, batches of 32: {here:.3f} ms here, {there:.3f} ms there, "
            f"{statistics.median(ratios):.2f} of its time ({ratios[0]:.2f} to {ratios[-1]:.2f}); "
            f"{'the same' if new[1] == other[1] else 'other'} weights"
        )


if __name__ == "__main__":
    main()
