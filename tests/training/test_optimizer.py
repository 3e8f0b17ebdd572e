"""Optimizer and schedule against torch's and timm's own, step by step, and groups made by hand."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from timm.optim import create_optimizer_v2, param_groups_layer_decay
from timm.scheduler import CosineLRScheduler, PlateauLRScheduler, StepLRScheduler
from torch import nn
from torch.nn import functional
from torch.optim import Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau

from src.data.batches import training_batches
from src.data.packed import PackedSplit
from src.images.input import enter
from src.training.learner import Learner
from src.training.optimizer import create_scheduler
from src.training.step import update
from tests.training.trainings import CPU, PARAMS, Splits, make_learner, make_training, run

LR, EPOCHS, STEPS = 0.01, 6, 3
Rates = list[list[float]]


def assert_same_steps(
    learner: Learner, plain: nn.Module, optimizer: Optimizer, schedule: Any, data: PackedSplit
) -> None:
    """`learner` has the rates and weights of the net and parts made by hand, in four epochs."""
    plain.train()
    step = 0
    for epoch in range(4):
        for batch in training_batches(data, 0, epoch, 16, CPU):
            rates = [group["lr"] for group in learner.optimizer.param_groups]
            by_hand = [group["lr"] for group in optimizer.param_groups]
            assert rates == pytest.approx(by_hand, rel=1e-12)
            update(learner, batch, step)
            logits = plain(enter(batch[0], learner.mean, learner.std))
            optimizer.zero_grad()
            functional.cross_entropy(logits, batch[1]).backward()
            optimizer.step()
            step += 1
            schedule.step_update(step)
            for ours, theirs in zip(learner.model.parameters(), plain.parameters(), strict=True):
                assert torch.allclose(ours, theirs, atol=1e-6)


@pytest.mark.parametrize("name", ["adamw", "sgd", "lamb"])
def test_optimizer_and_schedule_follow_torchs_and_timms(few: Splits, name: str) -> None:
    """No weight decay on norms and biases."""
    given = {**PARAMS, "optimizer": name, "schedule": "cosine", "warmup": 1, "epochs": 4}
    learner = make_learner(few[0], **given)
    plain = copy.deepcopy(learner.model)
    decayed = [p for p in plain.parameters() if p.ndim > 1]
    rest = [p for p in plain.parameters() if p.ndim <= 1]
    groups = [{"params": rest, "weight_decay": 0.0}, {"params": decayed, "weight_decay": 0.05}]
    makers: dict[str, Callable[[], Optimizer]] = {
        "adamw": lambda: torch.optim.AdamW(groups, lr=1e-3, fused=True),
        "sgd": lambda: torch.optim.SGD(groups, lr=1e-3, momentum=0.9, nesterov=True),
        "lamb": lambda: create_optimizer_v2(plain, "lamb", lr=1e-3, weight_decay=0.05),
    }
    optimizer = makers[name]()
    schedule = CosineLRScheduler(
        optimizer, t_initial=12, warmup_t=3, warmup_lr_init=1e-3 / 3, t_in_epochs=False
    )
    assert_same_steps(learner, plain, optimizer, schedule, few[0])


def test_plateau_follows_torchs_and_survives_a_checkpoint() -> None:
    metrics = [0.5, 0.6, 0.6, 0.6, 0.59, 0.61, 0.6, 0.6, 0.6, 0.6, 0.6, 0.6]
    given = {**PARAMS, "schedule": "plateau", "decay_epochs": 2, "decay_rate": 0.5, "epochs": 12}
    by_hand = torch.optim.SGD([torch.zeros(1)], lr=0.1)
    torchs = ReduceLROnPlateau(by_hand, mode="max", factor=0.5, patience=1)

    def fresh() -> tuple[Optimizer, Any]:
        optimizer = torch.optim.SGD([torch.zeros(1)], lr=0.1)
        return optimizer, create_scheduler(optimizer, given, 0.1, steps=3)

    optimizer, schedule = fresh()
    for epoch, metric in enumerate(metrics, start=1):
        for step in range(3):
            schedule.step_update((epoch - 1) * 3 + step + 1)
        schedule.step(epoch, metric)
        torchs.step(metric)
        assert optimizer.param_groups[0]["lr"] == pytest.approx(by_hand.param_groups[0]["lr"])
        states = copy.deepcopy((optimizer.state_dict(), schedule.state_dict()))
        optimizer, schedule = fresh()  # as after a kill
        optimizer.load_state_dict(states[0])
        schedule.load_state_dict(states[1])
    assert by_hand.param_groups[0]["lr"] < 0.1


def test_sgd_has_nesterov_momentum(few: Splits) -> None:
    learner = make_learner(few[0], optimizer="sgd", momentum=0.8)
    assert isinstance(learner.optimizer, torch.optim.SGD)
    assert all(g["nesterov"] and g["momentum"] == 0.8 for g in learner.optimizer.param_groups)


@pytest.mark.parametrize(
    ("schedule", "warmup", "expected"),
    [
        ("constant", 0, [1.0] * 9),
        ("constant", 1, [1 / 3, 5 / 9, 7 / 9] + [1.0] * 6),
        ("step", 0, [1.0] * 3 + [0.1] * 3 + [0.01] * 3),
        ("cosine", 0, [1.0, 0.9698, 0.8830, 0.75, 0.5868, 0.4132, 0.25, 0.1170, 0.0302, 0.0]),
    ],
)
def test_schedules(schedule: str, warmup: float, expected: list[float]) -> None:
    """Learning rate before each step, three epochs of three steps, in parts of lr."""
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1)
    given = {**PARAMS, "schedule": schedule, "warmup": warmup, "decay_epochs": 1}
    scheduler = create_scheduler(optimizer, given, 0.1, steps=3)
    rates = []
    for step in range(len(expected)):
        rates.append(optimizer.param_groups[0]["lr"] / 0.1)
        scheduler.step_update(step + 1)
    assert rates == pytest.approx(expected, abs=1e-4)


def step_rates(optimizer: Optimizer) -> Rates:
    """Fills with the rates of all groups with which each step is taken."""
    rates: Rates = []
    optimizer.register_step_pre_hook(
        lambda taken, *_: rates.append([group["lr"] for group in taken.param_groups])
    )
    return rates


def groups_by_hand(count: int) -> Optimizer:
    return torch.optim.SGD([{"params": [torch.zeros(1)]} for _ in range(count)], lr=LR)


def warmed_up(optimizer: Optimizer, schedule: str, warmup: float) -> Any:
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
    taken = step_rates(training.learner.optimizer)
    run(training, tmp_path)
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
    options: dict[str, Any] = {"lr": LR, "epochs": 9, "decay_epochs": 2, "decay_rate": 0.3}
    training = make_training(few, schedule="plateau", warmup=warmup, best_by=best_by, **options)
    taken = step_rates(training.learner.optimizer)
    run(training, tmp_path)
    rising, by_hand = groups_by_hand(2), groups_by_hand(2)
    steps_of_warmup = warmed_up(rising, "constant", warmup)
    plateau = PlateauLRScheduler(
        by_hand,
        decay_rate=0.3,
        patience_t=1,
        mode="min" if best_by == "val/loss" else "max",
        warmup_t=warmup,
        warmup_lr_init=LR / 6,
    )
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
    learner = make_learner(
        few[0], layer_decay=0.6, optimizer=name, schedule=schedule, warmup=1, lr=LR, epochs=EPOCHS
    )
    plain = copy.deepcopy(learner.model)
    groups = param_groups_layer_decay(plain, weight_decay=0.05, layer_decay=0.6)
    optimizer: Optimizer = (
        torch.optim.AdamW(groups, lr=LR, fused=True)
        if name == "adamw"
        else torch.optim.SGD(groups, lr=LR, momentum=0.9, nesterov=True)
    )
    rates = {group["lr"] for group in learner.optimizer.param_groups}
    shares = sorted(rate / max(rates) for rate in rates)
    assert shares == pytest.approx([0.6**layers for layers in (5, 4, 3, 2, 1, 0)])
    timms = warmed_up(optimizer, schedule, 1)
    assert_same_steps(learner, plain, optimizer, timms, few[0])
