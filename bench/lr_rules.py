"""`python -m bench.lr_rules`: what lr_find suggests, beside the published rules of two frameworks.

On each of four set-ups on digits (convnet and transformer, AdamW and SGD) one range test; on its
curve, cut where their own rule would have stopped, what Lightning and fastai would suggest; then
short trainings at the suggestion of lr_find, at a third and at three times of it.

The rules, from the frameworks' documentation: both smooth by a running mean with beta 0.98 and
correct its bias, and stop when it is above four times its lowest value. Lightning drops the first
10 points and the last, and takes the steepest gradient: per step in its older versions, over the
rate itself today. fastai drops the first
tenth and the last 5; its `valley` takes the middle of the middle third of the longest decreasing
subsequence, its `minimum` a tenth of the rate at the lowest point.
"""

import statistics
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from bench.loop import run_epochs
from src.data.packed import PackedSplit
from src.experiments.lr import curve
from src.experiments.lr.ramp import LR, range_test
from src.model.device import prepare_device
from src.plumbing import command, params
from src.plumbing.errors import GateError
from src.training.loop import Training

DATA = "data/prepared"
EPOCHS = 6
SEEDS = (0, 1)
SET_UPS = {
    "convnet, AdamW": {"model": "test_resnet", "optimizer": "adamw"},
    "convnet, SGD": {"model": "test_resnet", "optimizer": "sgd"},
    "transformer, AdamW": {"model": "test_vit", "optimizer": "adamw"},
    "transformer, SGD": {"model": "test_vit", "optimizer": "sgd"},
}


def running_mean(losses: np.ndarray, beta: float = 0.98) -> np.ndarray:
    """The exponential running mean, its bias corrected, until it is above four times its lowest."""
    mean, found = 0.0, []
    for number, loss in enumerate(losses, start=1):
        mean = beta * mean + (1 - beta) * loss
        found.append(mean / (1 - beta**number))
        if number > 1 and found[-1] > 4 * min(found):
            break
    return np.array(found)


def lightning(rates: np.ndarray, losses: np.ndarray) -> float:
    smooth = running_mean(losses)[10:-1]
    kept = rates[10 : 10 + len(smooth)]
    return float(kept[np.gradient(smooth, kept).argmin()])


def lightning_before(rates: np.ndarray, losses: np.ndarray) -> float:
    return float(rates[10 + np.gradient(running_mean(losses)[10:-1]).argmin()])


def fastai_valley(rates: np.ndarray, losses: np.ndarray) -> float:
    smooth = running_mean(losses)[len(losses) // 10 : -5]
    kept = rates[len(losses) // 10 :]
    length = np.ones(len(smooth), dtype=int)  # of the longest falling subsequence that ends here
    for here in range(1, len(smooth)):
        above = length[:here][smooth[:here] > smooth[here]]
        length[here] = 1 + above.max(initial=0)
    end = int(length.argmax())
    third = int(length[end]) / 3
    return float(kept[end - int(length[end]) + int(third) + int(third / 2)])


def fastai_minimum(rates: np.ndarray, losses: np.ndarray) -> float:
    smooth = running_mean(losses)[len(losses) // 10 : -5]
    return float(rates[len(losses) // 10 :][smooth.argmin()] / 10)


def trained(values: Mapping[str, Any], device: torch.device) -> float:
    """The best validation accuracy of a short training; 0 if the loss is not a number any more."""
    train, val = PackedSplit(DATA, "train"), PackedSplit(DATA, "val")
    training = Training(values, train, val, device)
    try:
        run_epochs(training)
    except GateError:
        return 0.0
    return max(row["val_accuracy"] for row in training.history)


def main() -> None:
    base = params.load()
    device = prepare_device("cpu", int(str(base["threads"])))
    train = PackedSplit(DATA, "train")
    columns = (
        "set-up",
        "steepest",
        "tenth of minimum",
        "to try",
        "Lightning",
        "Lightning, per step",
        "fastai valley",
        "fastai minimum / 10",
        "val accuracy at a third",
        "at it",
        "at three times",
    )
    print(f"| {' | '.join(columns)} |")
    print("|---" * len(columns) + "|")
    for name, changed in SET_UPS.items():
        values = {**base, **changed, "epochs": EPOCHS}
        rates, losses = range_test(values, train, device, LR, 150)
        found = curve.suggest([curve.fit(rates, losses)])
        rules = [
            rule(rates, losses)
            for rule in (lightning, lightning_before, fastai_valley, fastai_minimum)
        ]
        accuracies = [
            statistics.fmean(
                trained({**values, "lr": found.to_try * factor, "seed": seed}, device)
                for seed in SEEDS
            )
            for factor in (1 / 3, 1, 3)
        ]
        shown = [found.steepest, found.tenth, found.to_try, *rules]
        cells = [name, *(f"{rate:.2g}" for rate in shown), *(f"{v:.3f}" for v in accuracies)]
        print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    sys.exit(command.guarded(main))
