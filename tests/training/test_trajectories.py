"""Trainings step by step: against timm's own schedules and groups made by hand, and sums of
gradients against one batch."""

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from timm.optim import param_groups_layer_decay
from timm.scheduler import CosineLRScheduler, PlateauLRScheduler, StepLRScheduler
from torch.nn import functional

from src.data.batches import Batch, to_input, training_batches
from src.data.packed import PackedSplit
from src.images.mix import Mix
from src.training.loop import Training
from src.training.step import update
from tests.training.test_parts import Plain, plain_setup
from tests.training.test_training import CPU, Splits, checkpoint_in, make_setup, make_training, run

LR, EPOCHS, STEPS = 0.01, 6, 3
Rates = list[list[float]]


def step_rates(optimizer: torch.optim.Optimizer) -> Rates:
    """Fills with the rates of all groups with which each step is taken."""
    rates: Rates = []
    optimizer.register_step_pre_hook(
        lambda taken, *_: rates.append([group["lr"] for group in taken.param_groups])
    )
    return rates


def groups_by_hand(count: int) -> torch.optim.Optimizer:
    return torch.optim.SGD([{"params": [torch.zeros(1)]} for _ in range(count)], lr=LR)


def warmed_up(optimizer: torch.optim.Optimizer, schedule: str, warmup: float) -> Any:
    """timm's schedule whose times are steps; `plateau` has none that counts both."""
    options: dict[str, Any] = {"t_in_epochs": False, "warmup_prefix": False}
    if warmup:
        options |= {"warmup_t": warmup * STEPS, "warmup_lr_init": LR / (warmup * STEPS)}
    if schedule == "cosine":
        return CosineLRScheduler(optimizer, t_initial=EPOCHS * STEPS, **options)
    rate = 0.3 if schedule == "step" else 1.0
    return StepLRScheduler(optimizer, decay_t=2 * STEPS, decay_rate=rate, **options)


@pytest.mark.parametrize("schedule", ["constant", "cosine", "step"])
@pytest.mark.parametrize("warmup", [0, 0.5, 2])
def test_the_rate_of_each_step_is_that_of_timms_schedule(
    few: Splits, tmp_path: Path, schedule: str, warmup: float
) -> None:
    training = make_training(
        few, schedule=schedule, warmup=warmup, lr=LR, epochs=EPOCHS, decay_epochs=2, decay_rate=0.3
    )
    taken = step_rates(training.setup.optimizer)
    run(training, checkpoint_in(tmp_path))
    by_hand = groups_by_hand(2)
    timms = warmed_up(by_hand, schedule, warmup)
    assert len(taken) == EPOCHS * STEPS
    for number, rates in enumerate(taken, start=1):
        assert rates == pytest.approx([group["lr"] for group in by_hand.param_groups], rel=1e-12)
        timms.step_update(number)
    wanted = [taken[STEPS * epoch - 1][0] for epoch in range(1, EPOCHS + 1)]
    assert [row["lr"] for row in training.history] == pytest.approx(wanted, rel=1e-12)


@pytest.mark.filterwarnings("ignore:PlateauLRScheduler is deprecated:FutureWarning")
@pytest.mark.parametrize("best_by", ["val/accuracy", "val/loss"])
@pytest.mark.parametrize("warmup", [0, 2])
def test_the_rate_of_each_step_is_that_of_timms_plateau(
    few: Splits, tmp_path: Path, warmup: int, best_by: str
) -> None:
    """timm's counts epochs alone, in warm-up too: there the steps are those of its other ones."""
    training = make_training(
        few, schedule="plateau", warmup=warmup, lr=LR, epochs=9, decay_epochs=2, decay_rate=0.3,
        best_by=best_by,
    )  # fmt: skip
    taken = step_rates(training.setup.optimizer)
    run(training, checkpoint_in(tmp_path))
    rising, by_hand = groups_by_hand(2), groups_by_hand(2)
    steps_of_warmup = warmed_up(rising, "constant", warmup)
    plateau = PlateauLRScheduler(
        by_hand, decay_rate=0.3, patience_t=1, mode="min" if best_by == "val/loss" else "max",
        warmup_t=warmup, warmup_lr_init=LR / 6,
    )  # fmt: skip
    for number, rates in enumerate(taken):
        used = rising if number < warmup * STEPS else by_hand
        assert rates == pytest.approx([group["lr"] for group in used.param_groups], rel=1e-12)
        steps_of_warmup.step_update(number + 1)
        epoch, rest = divmod(number + 1, STEPS)
        if not rest:
            row = training.history[epoch - 1]
            plateau.step(epoch, row[best_by.replace("/", "_")])
    assert taken[-1][0] < LR * 0.9  # else nothing but a constant rate was compared


@pytest.mark.parametrize("name", ["adamw", "sgd"])
@pytest.mark.parametrize("schedule", ["constant", "cosine"])
def test_layer_decay_follows_timms_groups(few: Splits, name: str, schedule: str) -> None:
    """The rates of all layers, and the weights that come of them, with warm-up."""
    setup = make_setup(
        few[0], layer_decay=0.6, optimizer=name, schedule=schedule, warmup=1, lr=LR, epochs=EPOCHS
    )
    plain = copy.deepcopy(setup.model)
    groups = param_groups_layer_decay(plain, weight_decay=0.05, layer_decay=0.6)
    if name == "adamw":
        optimizer: torch.optim.Optimizer = torch.optim.AdamW(groups, lr=LR, fused=True)
    else:
        optimizer = torch.optim.SGD(groups, lr=LR, momentum=0.9, nesterov=True)
    timms = warmed_up(optimizer, schedule, 1)
    plain.train()
    for step, batch in enumerate(epochs_of(few[0], 4)):
        rates = [group["lr"] for group in setup.optimizer.param_groups]
        assert rates == pytest.approx([group["lr"] for group in optimizer.param_groups], rel=1e-12)
        shares = sorted({round(rate / max(rates), 12) for rate in rates})
        assert shares == pytest.approx([0.6**layers for layers in (5, 4, 3, 2, 1, 0)])
        update(setup, batch, step)
        logits = plain(to_input(batch[0], setup.mean, setup.std))
        optimizer.zero_grad()
        functional.cross_entropy(logits, batch[1]).backward()
        optimizer.step()
        timms.step_update(step + 1)
        for ours, theirs in zip(setup.model.parameters(), plain.parameters(), strict=True):
            assert torch.allclose(ours, theirs, atol=1e-6)


def epochs_of(data: PackedSplit, epochs: int) -> Iterator[Batch]:
    for epoch in range(epochs):
        yield from training_batches(data, 0, epoch, 16, CPU)


MIXED = {"mixup": 0.2, "cutmix": 1.0}


class InFloat64(Mix):
    """Shares that keep the precision of the net: float32 would hide a difference."""

    def __call__(self, *given: Any) -> Batch:
        pictures, targets = super().__call__(*given)
        return pictures, targets.double() if targets.is_floating_point() else targets


@pytest.mark.parametrize(
    "options",
    [
        {"label_smoothing": 0.1},
        {"loss": "focal", "focal_gamma": 1.5},
        {"loss": "bce", "label_smoothing": 0.1},
        {"class_weights": [1.0, 2.0, 4.0]},
        {**MIXED, "label_smoothing": 0.1, "class_weights": [1.0, 2.0, 4.0]},
        {**MIXED, "loss": "focal", "class_weights": [1.0, 2.0, 4.0]},
        {**MIXED, "loss": "bce", "clip_grad": 0.1},
    ],
    ids=str,
)
def test_four_parts_of_16_learn_like_one_batch_of_64(
    finished: tuple[Path, object], tmp_path: Path, options: dict[str, Any]
) -> None:
    """In float64, on a net without BatchNorm, through the loop with its augmentation."""
    folder = finished[0] / "data/prepared"
    train, val = PackedSplit(folder, "train"), PackedSplit(folder, "val")
    ends: list[Training] = []
    for batch_size, accumulate, parts in ((64, 1, [64]), (16, 4, [16] * 4)):
        given = {**options, "batch_size": batch_size, "accumulate": accumulate, "epochs": 5}
        training = make_training((train, val), **given)
        training.mix = InFloat64(**vars(training.mix))
        training.setup = plain_setup(train, **given)
        training.setup.criterion.double()
        sizes: list[int] = []
        training.setup.model.register_forward_pre_hook(
            lambda net, entered, sizes=sizes: (
                sizes.append(len(entered[0])) if net.training else None
            )
        )
        run(training, checkpoint_in(tmp_path / f"{accumulate}"))
        assert sizes == 5 * parts
        ends.append(training)
    whole, summed = (training.setup.model.state_dict() for training in ends)
    for name, value in whole.items():
        assert (value - summed[name]).abs().max() < 1e-12, name
    for first, second in zip(*(training.history for training in ends), strict=True):
        assert first == pytest.approx(second, rel=1e-5)  # sums are kept in float32
    start = Plain().state_dict()
    assert max((value - start[name]).abs().max() for name, value in whole.items()) > 1e-3
