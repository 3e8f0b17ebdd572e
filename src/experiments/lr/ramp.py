"""The learning-rate range test: real optimizer steps while the rate rises exponentially, and the
loss that each of them saw (Smith 2015, arXiv:1506.01186; Smith 2018, arXiv:1803.09820).

The steps are those of `train`: its set-up, batches, augmentation, mix, accumulation, clipping. The
schedule is replaced by the ramp, and nothing is frozen. It works on a set-up of its own and gives
the random generators back as they were, so that nothing else is touched.
"""

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from src.data.batches import Batch, steps_per_epoch, training_batches
from src.data.packed import PackedSplit
from src.data.readers import Reading
from src.images.augment import Augmentation
from src.images.mix import Mix
from src.plumbing.errors import InputError
from src.training.loop import Plan
from src.training.setup import Setup, build_setup
from src.training.step import prepared, train_step

CALM = 10  # first steps, at rates that change nothing: they tell the loss of a net as it starts
RISE = 0.25  # the loss has exploded when it is so much (of it) above that of the start (choice)
SIGMAS = 3.0  # and so many standard deviations of a batch's loss (choice)
FORGETTING = 0.9  # of the running mean that decides when to stop: of some 10 steps (choice)


@dataclass(frozen=True)
class Knob:
    """What rises: `rate` from `low` to `high`, by the same factor in each step.

    For lr the rate is lr itself. For momentum it is 1 / (1 - momentum), the number of past
    gradients that count and the factor by which momentum enlarges a step.
    """

    name: str
    low: float
    high: float

    def rates(self, steps: int) -> np.ndarray:
        return np.geomspace(self.low, self.high, steps)

    def set(self, setup: Setup, rate: float, lr: float) -> None:
        """Let the next step of `setup` use it; `lr` is the configured one."""
        for group in setup.optimizer.param_groups:
            # timm's layer-wise decay: a group's share of the rate. Also with another knob: a
            # schedule leaves what its warm-up begins with.
            group["lr"] = (rate if self.name == "lr" else lr) * group.get("lr_scale", 1.0)
            if self.name == "momentum":
                group["momentum"] = 1 - 1 / rate


LR = Knob("lr", 1e-6, 10.0)
MOMENTUM = Knob("momentum", 2.0, 1000.0)  # momentum 0.5 .. 0.999


def range_test(
    params: Mapping[str, Any], data: PackedSplit, device: torch.device, knob: Knob, steps: int
) -> tuple[np.ndarray, np.ndarray]:
    """(rates, training losses), float64 of equal length <= `steps`: the loss of each batch before
    the step at that rate. Shorter than `steps` if the loss exploded; what was not finite is left
    out. InputError if the optimizer has no such knob."""
    rates = knob.rates(steps)
    cuda = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=cuda):
        plan = Plan.from_params(params)
        setup = build_setup(params, data, device, steps_per_epoch(len(data), plan.step_size))
        if knob.name not in setup.optimizer.param_groups[0]:
            raise InputError(
                f"params.yaml: optimizer {params['optimizer']} has no {knob.name} to vary: "
                "take another one, such as -S optimizer=sgd"
            )
        losses = list(_losses(params, setup, data, plan, knob, rates))
    return rates[: len(losses)], np.array(losses)


def _losses(
    params: Mapping[str, Any],
    setup: Setup,
    data: PackedSplit,
    plan: Plan,
    knob: Knob,
    rates: np.ndarray,
) -> Iterator[float]:
    """The loss of each step, until it explodes."""
    mix = Mix.from_params(params, len(data.meta["classes"]))
    augmentation = Augmentation.from_params(params)
    batches = _endless(params, setup, data, plan)
    seen: list[float] = []
    mean = 0.0
    for number, (rate, batch) in enumerate(zip(rates, batches, strict=False)):
        knob.set(setup, float(rate), params["lr"])
        ready = prepared(batch, setup, augmentation, mix, number)
        loss, _, count, _ = train_step(setup, ready, number).tolist()
        if not math.isfinite(loss):
            return
        seen.append(loss / count)
        mean = FORGETTING * mean + (1 - FORGETTING) * seen[-1]
        yield seen[-1]
        calm = np.array(seen[:CALM])
        limit = calm.mean() + max(RISE * calm.mean(), SIGMAS * calm.std())
        if number >= CALM and mean / (1 - FORGETTING ** (number + 1)) > limit:
            return


def _endless(
    params: Mapping[str, Any], setup: Setup, data: PackedSplit, plan: Plan
) -> Iterator[Batch]:
    """The training batches, epoch after epoch."""
    reading = Reading.from_params(params)
    for epoch in itertools.count():
        yield from training_batches(
            data, setup.seed, epoch, plan.step_size, setup.device,
            reading=reading, sampling=plan.sampling,
        )  # fmt: skip
