"""The battery on a plain set-up: quiet when it is healthy, and the right cause for each fault."""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, Subset, TensorDataset

from src.checks import TrainingSetup
from tests.checks import small_setup
from tests.checks.small_setup import CLASSES, check, first

# --- healthy


def smoothed(setup: TrainingSetup) -> None:
    setup.loss_fn = nn.CrossEntropyLoss(label_smoothing=0.1)
    setup.declared = {**setup.declared, "label_smoothing": 0.1}


def bce(setup: TrainingSetup) -> None:
    def loss(logits: Tensor, labels: Tensor) -> Tensor:
        wanted = functional.one_hot(labels, CLASSES).float()
        return functional.binary_cross_entropy_with_logits(logits, wanted)

    setup.loss_fn = loss


def weighted(setup: TrainingSetup) -> None:
    setup.loss_fn = nn.CrossEntropyLoss(weight=torch.tensor([0.5, 1.0, 2.0, 4.0]))


def accumulated(setup: TrainingSetup) -> None:
    calls = 0

    def step(setup: TrainingSetup, batch: Any) -> dict[str, float]:
        nonlocal calls
        setup.model.train()
        loss = setup.loss_fn(setup.model(batch[0]), batch[1])
        (loss / 4).backward()
        calls += 1
        if calls % 4 == 0:
            nn.utils.clip_grad_norm_(setup.model.parameters(), 1.0)
            setup.optimizer.step()
            setup.optimizer.zero_grad()
        return {"loss": loss.item()}

    setup.train_step = step
    setup.declared = {**setup.declared, "accumulate": 4}


def mixed(setup: TrainingSetup) -> None:
    def step(setup: TrainingSetup, batch: Any) -> dict[str, float]:
        setup.model.train()
        x, y = batch
        share, other = float(np.random.beta(0.4, 0.4)), torch.randperm(len(x))
        logits = setup.model(share * x + (1 - share) * x[other])
        setup.optimizer.zero_grad()
        loss = share * setup.loss_fn(logits, y) + (1 - share) * setup.loss_fn(logits, y[other])
        loss.backward()
        setup.optimizer.step()
        return {"loss": loss.item()}

    setup.train_step = step
    setup.declared = {**setup.declared, "mixup": 0.4}


def little_is_known(setup: TrainingSetup) -> None:
    setup.declared, setup.save, setup.val_data, setup.val_loader = {}, None, None, None


@pytest.mark.parametrize(
    "plant", [None, smoothed, bce, weighted, accumulated, mixed, little_is_known]
)
def test_healthy_set_ups_pass(plant: small_setup.Plant | None) -> None:
    report = check(plant)
    assert {c.id: c.message for c in report.checks if c.status != "pass"} == {}
    assert {"overfit_batch", "grad_bookkeeping", "loss_gradient"} <= {c.id for c in report.checks}


# --- faults, each with the cause that must stand first or second in the first finding

FAULTS: dict[str, small_setup.Plant] = {}


def fault(cause: str) -> Callable[[small_setup.Plant], small_setup.Plant]:
    def add(plant: small_setup.Plant) -> small_setup.Plant:
        name = getattr(plant, "__name__", cause)
        FAULTS[f"{name}:{cause}"] = plant
        return plant

    return add


def step_of(setup: TrainingSetup, order: str) -> None:
    """A step that does what `order` says: z(ero_grad), f(orward), b(ackward), s(tep)."""

    def step(setup: TrainingSetup, batch: Any) -> dict[str, float]:
        setup.model.train()
        loss = torch.zeros(())
        for letter in order:
            if letter == "z":
                setup.optimizer.zero_grad()
            elif letter == "f":
                loss = setup.loss_fn(setup.model(batch[0]), batch[1])
            elif letter == "b":
                loss.backward()
            else:
                setup.optimizer.step()
        return {"loss": loss.item()}

    setup.train_step = step


ORDERS = {
    "fbs": "zero_grad_missing",
    "fbzs": "zero_grad_before_step",
    "zfb": "optimizer_never_steps",
    "zfs": "backward_missing",
}
for _order, _cause in ORDERS.items():
    FAULTS[f"{_order}:{_cause}"] = functools.partial(step_of, order=_order)


@fault("activation_before_loss")
def softmax_in_model(setup: TrainingSetup) -> None:
    setup.model.append(nn.Softmax(dim=1))  # type: ignore[operator]


@fault("activation_before_loss")
def softmax_in_loss(setup: TrainingSetup) -> None:
    loss = setup.loss_fn
    setup.loss_fn = lambda logits, labels: loss(logits.softmax(1), labels)


@fault("loss_reduction_sum")
def summed(setup: TrainingSetup) -> None:
    setup.loss_fn = nn.CrossEntropyLoss(reduction="sum")


@fault("loss_sign")
def negative(setup: TrainingSetup) -> None:
    loss = setup.loss_fn
    setup.loss_fn = lambda logits, labels: -loss(logits, labels)


@fault("targets_changed_in_step")
def labels_rolled(setup: TrainingSetup) -> None:
    def step(setup: TrainingSetup, batch: Any) -> dict[str, float]:
        return small_setup.train_step(setup, (batch[0], batch[1].roll(1)))

    setup.train_step = step


@fault("parameter_not_in_optimizer")
def head_left_out(setup: TrainingSetup) -> None:
    setup.optimizer = torch.optim.AdamW(list(setup.model.parameters())[:-2], lr=3e-3)


@fault("parameter_frozen")
def frozen(setup: TrainingSetup) -> None:
    setup.model[0].weight.requires_grad_(False)  # type: ignore[index]


@fault("gradient_blocked")
def detached(setup: TrainingSetup) -> None:
    class Detached(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.detach()

    setup.model.insert(4, Detached())  # type: ignore[operator]


@fault("samples_mixed")
def batch_mean_taken_off(setup: TrainingSetup) -> None:
    class Centred(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x - x.mean(0)

    setup.model.append(Centred())  # type: ignore[operator]


@fault("num_classes")
def too_wide(setup: TrainingSetup) -> None:
    setup.model[-1] = nn.Linear(32, 7)  # type: ignore[operator]
    setup.optimizer = torch.optim.AdamW(setup.model.parameters(), lr=3e-3)


@fault("lr_too_high")
def rate_too_high(setup: TrainingSetup) -> None:
    setup.optimizer = torch.optim.SGD(setup.model.parameters(), lr=300.0)


@fault("lr_too_low")
def rate_too_low(setup: TrainingSetup) -> None:
    setup.optimizer = torch.optim.SGD(setup.model.parameters(), lr=1e-7)


@fault("schedule_too_short")
def ends_early(setup: TrainingSetup) -> None:
    setup.scheduler = torch.optim.lr_scheduler.StepLR(setup.optimizer, 5, gamma=0.3)

    def step(setup: TrainingSetup, batch: Any) -> dict[str, float]:
        reported = small_setup.train_step(setup, batch)
        setup.scheduler.step()
        return reported

    setup.train_step = step


@fault("batchnorm_momentum")
def statistics_stand_still(setup: TrainingSetup) -> None:
    setup.model[1].momentum = 0.0  # type: ignore[index]


def change_data(
    setup: TrainingSetup, change: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]], part: str
) -> None:
    data = getattr(setup, f"{part}_data")
    data = TensorDataset(*change(*(tensor.clone() for tensor in data.tensors)))
    setattr(setup, f"{part}_data", data)
    loader = DataLoader(data, 16, shuffle=part == "train")
    setattr(setup, f"{part}_loader", loader)


@fault("labels_shuffled")
def labels_shuffled(setup: TrainingSetup) -> None:
    order = torch.randperm(160, generator=torch.Generator().manual_seed(3))
    change_data(setup, lambda x, y: (x, y[order]), "train")


@fault("label_map_differs")
def other_numbers_in_val(setup: TrainingSetup) -> None:
    change_data(setup, lambda x, y: (x, (y + 1) % CLASSES), "val")


@fault("label_noise")
def wrong_labels(setup: TrainingSetup) -> None:
    draws = torch.Generator().manual_seed(4)
    wrong = torch.rand(160, generator=draws) < 0.25
    change_data(setup, lambda x, y: (x, torch.where(wrong, (y + 1) % CLASSES, y)), "train")


@fault("train_val_leakage")
def val_in_train(setup: TrainingSetup) -> None:
    x, y = setup.val_data.tensors
    change_data(setup, lambda a, b: (torch.cat([a, x[:40]]), torch.cat([b, y[:40]])), "train")


@fault("input_not_finite")
def not_finite(setup: TrainingSetup) -> None:
    def spoil(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        x[5, 0, 0, 0] = float("nan")
        return x, y

    change_data(setup, spoil, "train")


@fault("normalised_twice")
def normalised_twice(setup: TrainingSetup) -> None:
    shape = (1, 3, 1, 1)
    mean, std = (
        torch.tensor(small_setup.MEAN).view(shape),
        torch.tensor(small_setup.STD).view(shape),
    )
    for part in ("train", "val"):
        change_data(setup, lambda x, y: ((x - mean) / std, y), part)


@fault("labels_out_of_range")
def counted_from_one(setup: TrainingSetup) -> None:
    change_data(setup, lambda x, y: (x, y + 1), "train")


@fault("loader_sorted")
def not_shuffled(setup: TrainingSetup) -> None:
    order = setup.train_data.tensors[1].argsort(stable=True)
    data = Subset(setup.train_data, order.tolist())
    setup.train_loader = DataLoader(data, 16)


@fault("loader_incomplete")
def half_of_the_data(setup: TrainingSetup) -> None:
    setup.train_loader = DataLoader(Subset(setup.train_data, range(80)), 16, shuffle=True)


@fault("loader_misaligned")
def collated_apart(setup: TrainingSetup) -> None:
    def collate(items: list) -> tuple[Tensor, Tensor]:
        x, y = (torch.stack(column) for column in zip(*items, strict=True))
        return x, y.roll(1)

    setup.train_loader = DataLoader(setup.train_data, 16, shuffle=True, collate_fn=collate)


@fault("eval_in_train_mode")
def no_eval(setup: TrainingSetup) -> None:
    def evaluate(setup: TrainingSetup, loader: Any) -> dict[str, float]:
        setup.model.eval = lambda: setup.model  # type: ignore[method-assign]
        try:
            setup.model.train()
            return small_setup.evaluate(setup, loader)
        finally:
            del setup.model.eval

    setup.evaluate = evaluate


@fault("eval_mean_of_batch_means")
def mean_of_means(setup: TrainingSetup) -> None:
    def evaluate(setup: TrainingSetup, loader: Any) -> dict[str, float]:
        parts = [small_setup.evaluate(setup, [batch]) for batch in loader]
        return {key: sum(p[key] for p in parts) / len(parts) for key in ("loss", "accuracy")}

    setup.evaluate = evaluate


@fault("optimizer_not_saved")
def optimizer_forgotten(setup: TrainingSetup) -> None:
    def load(setup: TrainingSetup, saved: bytes) -> None:
        before = setup.optimizer.state_dict()
        small_setup.load(setup, saved)
        setup.optimizer.load_state_dict(before)

    setup.load = load


# Each takes a second: every other one is for the slow group.
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow if number % 2 else ())
        for number, name in enumerate(FAULTS)
    ],
)
def test_a_fault_is_found_and_named(name: str) -> None:
    cause = name.partition(":")[2]
    report = check(FAULTS[name])
    assert report.status in ("fail", "warn")
    found = first(report)
    assert cause in found.likely_causes[:2], report.as_text(colour=False)
