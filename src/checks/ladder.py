"""The first two rungs of the ladder, climbed with the real model, loss, optimizer and lr:
the loss at the start against log K, one batch learnt by heart, then the subset.

Augmentation, schedule and warm-up are off. How far a rung may climb is a number of steps, never a
time, so that a report is a function of its inputs.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch

from src.checks.reference import even_guess, floor
from src.checks.report import Check
from src.data.batches import Batch, steps_per_epoch, training_batches
from src.data.packed import PackedSplit
from src.training.setup import Setup, train_step

# Healthy timm nets start between 0.97 and 3.2 times log K (measured); more says that something
# is wrong, and a loss that is not a number says that for certain.
START_RATIO_LOW, START_RATIO_HIGH = 0.5, 5.0
BATCH_STEPS = 200  # AdamW at 1e-3 needs 5 to 30, a transformer 60 (measured)
BATCH_GAP = 0.05  # of the way from the loss floor up to the loss of an even guess
SUBSET_STEPS = 600
SUBSET_ACCURACY = 0.95
RETRY_STEPS = 60
RETRY_FACTORS = {
    30.0: "lr_too_low",
    1000.0: "lr_too_low",
    0.03: "lr_too_high",
    0.001: "lr_too_high",
}

MakeSetup = Callable[[float], Setup]


@dataclass
class Climb:
    """The course of a rung: loss and accuracy of each step or epoch, and whether the top was
    reached."""

    loss: list[float]
    accuracy: list[float]
    reached: bool

    @property
    def finite(self) -> bool:
        return all(math.isfinite(value) for value in self.loss)


def climb_ladder(
    make_setup: MakeSetup, data: PackedSplit, batch_size: int, lr: float, seed: int
) -> tuple[list[Check], dict[str, Climb]]:
    """The three checks and the climbs behind them, by check id.

    `make_setup(factor)` gives a fresh set-up whose learning rate is `factor` times the configured
    one; `data` is the subset's training part.
    """
    setup = make_setup(1.0)
    batch = next(iter(training_batches(data, seed, 0, batch_size, setup.device)))
    classes = len(data.meta["classes"])
    even = even_guess(setup.criterion, batch[1], classes)
    lowest = floor(setup.criterion, batch[1], classes)
    ceiling = lowest + BATCH_GAP * (even - lowest)
    by_heart = overfit_batch(setup, batch, ceiling, BATCH_STEPS)
    checks = [_judge_start(by_heart.loss[0], even, setup.criterion.name, classes)]
    checks.append(_judge_batch(by_heart, make_setup, batch, ceiling, lr))
    climbs = {"overfit_batch": by_heart}
    if by_heart.reached:
        climbs["fit_subset"] = fit_subset(make_setup(1.0), data, batch_size, seed)
        checks.append(_judge_subset(climbs["fit_subset"]))
    else:
        message = "not tried: one batch was not learnt"
        checks.append(
            Check("fit_subset", "inconclusive", None, SUBSET_ACCURACY, message,
                  consequence_of="overfit_batch")
        )  # fmt: skip
    return checks, climbs


def overfit_batch(setup: Setup, batch: Batch, ceiling: float, steps: int) -> Climb:
    """Train on the same batch until every picture is right and the loss is below `ceiling`."""
    climb = Climb([], [], reached=False)
    for step in range(steps):
        loss, correct, count, _ = train_step(setup, batch, step).tolist()
        climb.loss.append(loss / count)
        climb.accuracy.append(correct / count)
        if not math.isfinite(loss):
            break
        if correct == count and loss / count <= ceiling:
            climb.reached = True
            break
    return climb


def fit_subset(setup: Setup, data: PackedSplit, batch_size: int, seed: int) -> Climb:
    """Train on the subset until an epoch's running accuracy is high."""
    climb = Climb([], [], reached=False)
    steps = steps_per_epoch(len(data), batch_size)
    for epoch in range(max(1, SUBSET_STEPS // steps)):
        sums = torch.zeros(4, device=setup.device)
        for step, batch in enumerate(
            training_batches(data, seed, epoch, batch_size, setup.device), start=epoch * steps
        ):
            sums += train_step(setup, batch, step)
        loss, correct, count, _ = sums.tolist()
        climb.loss.append(loss / count)
        climb.accuracy.append(correct / count)
        if not math.isfinite(loss):
            break
        if correct / count >= SUBSET_ACCURACY:
            climb.reached = True
            break
    return climb


def _judge_start(loss: float, even: float, name: str, classes: int) -> Check:
    ratio = loss / even
    guess = f"log {classes}" if math.isclose(even, math.log(classes)) else f"{even:.3f}"
    text = f"loss at the start {loss:.3f} = {ratio:.2f} x {guess}, the {name} of an even guess"
    if not math.isfinite(loss):
        causes = ["input_not_finite", "bad_initialisation"]
        return Check("start_loss", "fail", None, START_RATIO_HIGH, text, causes)
    if ratio > START_RATIO_HIGH:
        causes = ["bad_initialisation", "input_not_normalised", "loss_reduction_sum"]
        return Check("start_loss", "warn", ratio, START_RATIO_HIGH, text + ", very high", causes)
    if ratio < START_RATIO_LOW:
        causes = ["label_in_input", "weights_already_trained"]
        return Check("start_loss", "warn", ratio, START_RATIO_LOW, text + ", very low", causes)
    return Check("start_loss", "pass", ratio, START_RATIO_HIGH, text)


def _judge_batch(
    climb: Climb, make_setup: MakeSetup, batch: Batch, ceiling: float, lr: float
) -> Check:
    loss = climb.loss[-1]
    value = loss if math.isfinite(loss) else None
    if climb.reached:
        text = f"one batch of {len(batch[1])} learnt by heart in {len(climb.loss)} steps"
        return Check("overfit_batch", "pass", value, ceiling, text)
    text = (
        f"one batch not learnt in {len(climb.loss)} steps: loss {loss:.3f} (needs {ceiling:.3f}), "
        f"accuracy {climb.accuracy[-1]:.2f}"
    )
    for factor, cause in RETRY_FACTORS.items():
        if overfit_batch(make_setup(factor), batch, ceiling, RETRY_STEPS).reached:
            text += f"; learnt at lr {lr * factor:g} instead of {lr:g}"
            # A rate that is too low wastes time; the numbers it gives can be trusted.
            status = "warn" if cause == "lr_too_low" and climb.finite else "fail"
            return Check("overfit_batch", status, value, ceiling, text, [cause])
    causes = ["labels_do_not_match_pictures", "loss_of_the_wrong_kind", "gradient_does_not_arrive"]
    return Check("overfit_batch", "fail", value, ceiling, text + "; no other lr helps", causes)


def _judge_subset(climb: Climb) -> Check:
    accuracy, epochs = climb.accuracy[-1], len(climb.accuracy)
    if climb.reached:
        text = f"the subset's training pictures {accuracy:.3f} right after {epochs} epochs"
        return Check("fit_subset", "pass", accuracy, SUBSET_ACCURACY, text)
    text = f"only {accuracy:.3f} of the subset's training pictures right after {epochs} epochs"
    causes = ["lr_too_high", "lr_too_low", "model_too_small", "label_noise"]
    # One batch was learnt, so the parts work: slow or noisy, but its numbers can be trusted.
    status = "warn" if climb.finite else "fail"
    return Check("fit_subset", status, accuracy, SUBSET_ACCURACY, text, causes)
