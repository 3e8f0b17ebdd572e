"""The battery on a plain set-up: quiet when it is healthy, and the right cause for each fault."""

from collections.abc import Callable
from functools import partial
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, Subset, TensorDataset

from src.checks import TrainingSetup
from tests.checks import small_setup
from tests.checks.small_setup import CLASSES, Plant, check, declare, first, having

# --- healthy


def smoothed(setup: TrainingSetup) -> None:
    setup.loss_fn = nn.CrossEntropyLoss(label_smoothing=0.1)
    declare(setup, label_smoothing=0.1)


def mixed(setup: TrainingSetup) -> None:
    def loss(setup: TrainingSetup, batch: Any) -> Tensor:
        x, y = batch
        share, other = float(np.random.beta(0.4, 0.4)), torch.randperm(len(x))
        logits = setup.model(share * x + (1 - share) * x[other])
        return share * setup.loss_fn(logits, y) + (1 - share) * setup.loss_fn(logits, y[other])

    setup.train_step = partial(small_setup.train_step, loss_of=loss)
    declare(setup, mixup=0.4)


def little_is_known(setup: TrainingSetup) -> None:
    setup.declared, setup.save, setup.val_data, setup.val_loader = {}, None, None, None


HEALTHY: dict[str, Plant | None] = {
    "as it is": None,
    "smoothed": smoothed,
    "bce": having(loss_fn=small_setup.bce()),
    "weighted": having(loss_fn=nn.CrossEntropyLoss(weight=torch.tensor([0.5, 1.0, 2.0, 4.0]))),
    "accumulated": partial(small_setup.accumulated, count=4),
    "mixed": mixed,
    "little is known": little_is_known,
}


@pytest.mark.parametrize("name", HEALTHY)
def test_healthy_set_ups_pass(name: str) -> None:
    report = check(HEALTHY[name])
    assert {c.id: c.message for c in report.checks if c.status != "pass"} == {}
    assert {"overfit_batch", "grad_bookkeeping", "loss_gradient"} <= {c.id for c in report.checks}


# --- faults


def step_of(order: str) -> Plant:
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

    return having(train_step=step)


class Apply(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]):
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


softmax_in_loss = having(loss_fn=lambda z, y: functional.cross_entropy(z.softmax(1), y))


def labels_rolled(setup: TrainingSetup, batch: Any) -> dict[str, float]:
    return small_setup.train_step(setup, (batch[0], batch[1].roll(1)))


def head_left_out(setup: TrainingSetup) -> None:
    setup.optimizer = torch.optim.AdamW(list(setup.model.parameters())[:-2], lr=3e-3)


def too_wide(setup: TrainingSetup) -> None:
    setup.model[-1] = nn.Linear(32, 7)  # type: ignore[operator]
    setup.optimizer = torch.optim.AdamW(setup.model.parameters(), lr=3e-3)


def at_rate(lr: float) -> Plant:
    def plant(setup: TrainingSetup) -> None:
        setup.optimizer = torch.optim.SGD(setup.model.parameters(), lr=lr)

    return plant


def ends_early(setup: TrainingSetup) -> None:
    setup.scheduler = torch.optim.lr_scheduler.StepLR(setup.optimizer, 5, gamma=0.3)
    small_setup.after_each_step(setup, lambda setup: setup.scheduler.step())


def statistics_stand_still(setup: TrainingSetup) -> None:
    setup.model[1].momentum = 0.0  # type: ignore[index]


def other_data(change: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]], *parts: str) -> Plant:
    """`change(inputs, labels)` of the items of these parts, "train" or "val"."""

    def plant(setup: TrainingSetup) -> None:
        for part in parts:
            tensors = getattr(setup, f"{part}_data").tensors
            data = TensorDataset(*change(*(tensor.clone() for tensor in tensors)))
            setattr(setup, f"{part}_data", data)
            setattr(setup, f"{part}_loader", DataLoader(data, 16, shuffle=part == "train"))

    return plant


def shuffled(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    return x, y[torch.randperm(len(y), generator=torch.Generator().manual_seed(3))]


def some_wrong(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    wrong = torch.rand(len(y), generator=torch.Generator().manual_seed(4)) < 0.25
    return x, torch.where(wrong, (y + 1) % CLASSES, y)


def val_in_train(setup: TrainingSetup) -> None:
    x, y = setup.val_data.tensors
    other_data(lambda a, b: (torch.cat([a, x[:40]]), torch.cat([b, y[:40]])), "train")(setup)


def not_finite(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    x[5, 0, 0, 0] = float("nan")
    return x, y


def not_shuffled(setup: TrainingSetup) -> None:
    order = setup.train_data.tensors[1].argsort(stable=True)
    setup.train_loader = DataLoader(Subset(setup.train_data, order.tolist()), 16)


def half_of_the_data(setup: TrainingSetup) -> None:
    setup.train_loader = DataLoader(Subset(setup.train_data, range(80)), 16, shuffle=True)


def collated_apart(setup: TrainingSetup) -> None:
    def collate(items: list) -> tuple[Tensor, Tensor]:
        x, y = (torch.stack(column) for column in zip(*items, strict=True))
        return x, y.roll(1)

    setup.train_loader = DataLoader(setup.train_data, 16, shuffle=True, collate_fn=collate)


def no_eval(setup: TrainingSetup, loader: Any) -> dict[str, float]:
    with patch.object(setup.model, "eval", lambda: setup.model):
        setup.model.train()
        return small_setup.evaluate(setup, loader)


def mean_of_means(setup: TrainingSetup, loader: Any) -> dict[str, float]:
    parts = [small_setup.evaluate(setup, [batch]) for batch in loader]
    return {key: sum(p[key] for p in parts) / len(parts) for key in ("loss", "accuracy")}


def optimizer_forgotten(setup: TrainingSetup, saved: bytes) -> None:
    before = setup.optimizer.state_dict()
    small_setup.load(setup, saved)
    setup.optimizer.load_state_dict(before)


# name:cause that must stand first or second in the first finding
FAULTS: dict[str, Plant] = {
    "fbs:zero_grad_missing": step_of("fbs"),
    "fbzs:zero_grad_before_step": step_of("fbzs"),
    "zfb:optimizer_never_steps": step_of("zfb"),
    "zfs:backward_missing": step_of("zfs"),
    "softmax_in_model:activation_before_loss": lambda s: s.model.append(nn.Softmax(dim=1)),  # type: ignore[operator]
    "softmax_in_loss:activation_before_loss": softmax_in_loss,
    "summed:loss_reduction_sum": having(loss_fn=nn.CrossEntropyLoss(reduction="sum")),
    "negative:loss_sign": having(loss_fn=lambda z, y: -functional.cross_entropy(z, y)),
    "labels_rolled:targets_changed_in_step": having(train_step=labels_rolled),
    "head_left_out:parameter_not_in_optimizer": head_left_out,
    "frozen:parameter_frozen": lambda s: s.model[0].weight.requires_grad_(False),  # type: ignore[index]
    "detached:gradient_blocked": lambda s: s.model.insert(4, Apply(lambda x: x.detach())),  # type: ignore[operator]
    "batch_mean_taken_off:samples_mixed": lambda s: s.model.append(Apply(lambda x: x - x.mean(0))),  # type: ignore[operator]
    "too_wide:num_classes": too_wide,
    "rate_too_high:lr_too_high": at_rate(300.0),
    "rate_too_low:lr_too_low": at_rate(1e-7),
    "ends_early:schedule_too_short": ends_early,
    "statistics_stand_still:batchnorm_momentum": statistics_stand_still,
    "labels_shuffled:labels_shuffled": other_data(shuffled, "train"),
    "other_numbers_in_val:label_map_differs": other_data(lambda x, y: (x, (y + 1) % 4), "val"),
    "wrong_labels:label_noise": other_data(some_wrong, "train"),
    "val_in_train:train_val_leakage": val_in_train,
    "not_finite:input_not_finite": other_data(not_finite, "train"),
    "normalised_twice:normalised_twice": other_data(
        lambda x, y: (small_setup.normalised(x), y), "train", "val"
    ),
    "counted_from_one:labels_out_of_range": other_data(lambda x, y: (x, y + 1), "train"),
    "not_shuffled:loader_sorted": not_shuffled,
    "half_of_the_data:loader_incomplete": half_of_the_data,
    "collated_apart:loader_misaligned": collated_apart,
    "no_eval:eval_in_train_mode": having(evaluate=no_eval),
    "mean_of_means:eval_mean_of_batch_means": having(evaluate=mean_of_means),
    "optimizer_forgotten:optimizer_not_saved": having(load=optimizer_forgotten),
}


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
