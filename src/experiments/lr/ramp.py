"""The learning-rate range test: real optimizer steps while the rate rises exponentially, and the
loss that each of them saw (Smith 2015, arXiv:1506.01186; Smith 2018, arXiv:1803.09820).

The steps are those of `train` (batches, augmentation, mix, accumulation, clipping) on a set-up of
its own, with the ramp as schedule and nothing frozen. The random generators end as they began.
"""

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from src.data.batches import Batch, training_batches
from src.data.packed import PackedSplit
from src.data.readers import Reading
from src.experiments.lr import curve
from src.model.device import prepare_device, readable_errors
from src.plumbing.errors import GateError, InputError
from src.training.learner import Learner
from src.training.loop import Training
from src.training.step import prepare_batch, train_step

CALM = 10  # first steps, at rates that change nothing: they show the loss of an untrained net
RISE = 0.25  # the loss has exploded when it is so much (of it) above that of the start (choice)
SIGMAS = 3.0  # and so many standard deviations of a batch's loss (choice)
FORGETTING = 0.9  # of the running mean that decides when to stop: of some 10 steps (choice)


@dataclass(frozen=True)
class Ramp:
    """What rises from `low` to `high`, by the same factor in each step: lr itself, or the number of
    past gradients that count, 1 / (1 - momentum), by which momentum enlarges a step."""

    name: str  # of the param
    label: str  # of the rate
    low: float
    high: float

    def rate_of(self, value: float) -> float:
        """The rate that a value of the param gives."""
        return value if self.name == "lr" else 1 / (1 - value)

    def as_param(self, rate: float) -> str:
        """A rate as the value of the param, to two significant digits."""
        return f"{rate:.2g}" if self.name == "lr" else f"{1 - float(f'{1 / rate:.2g}'):.6g}"

    def set(self, learner: Learner, rate: float, lr: float) -> None:
        """Make `learner` take its next step at this rate; `lr` is the configured one."""
        for group in learner.optimizer.param_groups:
            # timm's layer-wise decay: a group's share of the rate. lr is set with momentum, too: a
            # schedule leaves the one that its warm-up begins with.
            group["lr"] = (rate if self.name == "lr" else lr) * group.get("lr_scale", 1.0)
            if self.name == "momentum":
                group["momentum"] = 1 - 1 / rate


LR = Ramp("lr", "learning rate", 1e-6, 10.0)
MOMENTUM = Ramp("momentum", "1 / (1 - momentum)", 2.0, 1000.0)  # momentum 0.5 .. 0.999


def measure(
    params: Mapping[str, Any], folder: str, ramp: Ramp, seeds: int, steps: int
) -> list[curve.Curve]:
    """The curve of each seed, from the configured one on, on the packed data set in `folder`.
    GateError for a curve that ends before it can be read."""
    data = PackedSplit(folder, "train")
    settings = (params[key] for key in ("machine.device", "threads", "deterministic", "tf32"))
    device = prepare_device(*settings)
    curves = []
    with readable_errors("lr_find"):
        for seed in range(params["seed"], params["seed"] + seeds):
            rates, losses = range_test({**params, "seed": seed}, data, device, ramp, steps)
            if len(losses) < min(curve.LEAST, steps):
                last = rates[len(losses) - 1] if len(losses) else ramp.low
                raise GateError(
                    f"lr_find: the loss explodes after {len(losses)} steps, at {ramp.name} "
                    f"{ramp.as_param(last)}: {_remedy(ramp, len(losses), steps)}"
                )
            curves.append(curve.fit(rates, losses))
    return curves


def _remedy(ramp: Ramp, seen: int, steps: int) -> str:
    """What to do about a curve that ends after `seen` of `steps` steps."""
    if seen * curve.STEPS >= curve.LEAST * steps:  # that many show enough of it
        return f"give it more, such as --steps {curve.STEPS}"
    return f"look at the data, or {'take another net' if ramp is LR else 'lower lr'}"


def range_test(
    params: Mapping[str, Any], data: PackedSplit, device: torch.device, ramp: Ramp, steps: int
) -> tuple[np.ndarray, np.ndarray]:
    """(rates, training losses), float64 of equal length <= `steps`: the loss of each batch before
    the step at that rate. Shorter than `steps` if the loss exploded; what was not finite is left
    out. InputError if the optimizer has no such param."""
    rates = np.geomspace(ramp.low, ramp.high, steps)
    cuda = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=cuda):
        training = Training(params, data, data, device, Reading.from_params(params))
        if ramp.name not in training.learner.optimizer.param_groups[0]:
            raise InputError(
                f"params.yaml: optimizer {params['optimizer']} has no {ramp.name} to vary: "
                "take another one, such as -S optimizer=sgd"
            )
        losses = list(_losses(training, ramp, rates, params["lr"]))
    return rates[: len(losses)], np.array(losses)


def _losses(training: Training, ramp: Ramp, rates: np.ndarray, lr: float) -> Iterator[float]:
    """The loss of each step, until it explodes; `lr` is the configured one."""
    learner = training.learner
    seen: list[float] = []
    mean = 0.0
    for step, (rate, batch) in enumerate(zip(rates, _endless(training), strict=False)):
        ramp.set(learner, float(rate), lr)
        ready = prepare_batch(batch, learner, training.augment, training.mix, step)
        loss = train_step(learner, ready, step)[0].item()
        if not math.isfinite(loss):
            return
        seen.append(loss)
        mean = FORGETTING * mean + (1 - FORGETTING) * seen[-1]
        yield seen[-1]
        calm = np.array(seen[:CALM])
        limit = calm.mean() + max(RISE * calm.mean(), SIGMAS * calm.std())
        if step >= CALM and mean / (1 - FORGETTING ** (step + 1)) > limit:
            return


def _endless(training: Training) -> Iterator[Batch]:
    """The training batches, epoch after epoch."""
    for epoch in itertools.count():
        yield from training_batches(
            training.train,
            training.learner.seed,
            epoch,
            training.plan.step_size,
            training.learner.device,
            reading=training.reading,
            sampling=training.plan.sampling,
        )
