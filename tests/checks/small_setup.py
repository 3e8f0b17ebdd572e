"""A small healthy set-up, as plain PyTorch, and the means to plant a fault in it."""

import functools
import io
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from src.checks import TrainingSetup, battery, run
from src.checks.context import Context
from src.checks.report import Check, Report

CLASSES, SIZE = 4, 12
MEAN, STD = [0.5, 0.45, 0.4], [0.25, 0.25, 0.25]
Plant = Callable[[TrainingSetup], Any]


@functools.cache
def images(count: int = 240) -> tuple[Tensor, Tensor]:
    """Bytes count x 3 x 12 x 12: a coarse pattern per class, much noise; and labels."""
    draws = torch.Generator().manual_seed(7)
    patterns = torch.rand(CLASSES, 3, 3, 3, generator=draws)
    labels = torch.arange(count) % CLASSES
    coarse = nn.functional.interpolate(patterns[labels], size=SIZE)
    noisy = coarse * 0.6 + 0.2 + 0.15 * torch.randn(count, 3, SIZE, SIZE, generator=draws)
    return (noisy.clamp(0, 1) * 255).round(), labels


def net() -> nn.Module:
    def block(inside: int, outside: int, end: nn.Module) -> list[nn.Module]:
        conv = nn.Conv2d(inside, outside, 3, padding=1)
        return [conv, nn.BatchNorm2d(outside), nn.ReLU(), end]

    first, second = block(3, 16, nn.MaxPool2d(2)), block(16, 32, nn.AdaptiveAvgPool2d(1))
    return nn.Sequential(*first, *second, nn.Flatten(), nn.Linear(32, CLASSES))


def normalised(x: Tensor) -> Tensor:
    mean, std = (torch.tensor(numbers).view(1, 3, 1, 1) for numbers in (MEAN, STD))
    return (x - mean) / std


def plain_loss(setup: TrainingSetup, batch: Any) -> Tensor:
    return setup.loss_fn(setup.model(batch[0]), batch[1])


def train_step(
    setup: TrainingSetup, batch: Any, loss_of: Callable[..., Tensor] = plain_loss
) -> dict[str, float]:
    setup.model.train()
    setup.optimizer.zero_grad()
    loss = loss_of(setup, batch)
    loss.backward()
    setup.optimizer.step()
    return {"loss": loss.item()}


@torch.no_grad()
def evaluate(setup: TrainingSetup, loader: Any) -> dict[str, float]:
    setup.model.eval()
    loss = hits = count = 0.0
    for x, y in loader:
        logits = setup.model(x)
        loss += setup.loss_fn(logits, y).item() * len(y)
        hits += (logits.argmax(1) == y).sum().item()
        count += len(y)
    return {"loss": loss / count, "accuracy": hits / count}


def save(setup: TrainingSetup) -> bytes:
    buffer = io.BytesIO()
    state = {"model": setup.model.state_dict(), "optimizer": setup.optimizer.state_dict()}
    torch.save(state, buffer)
    return buffer.getvalue()


def load(setup: TrainingSetup, saved: bytes) -> None:
    state = torch.load(io.BytesIO(saved), weights_only=True)
    setup.model.load_state_dict(state["model"])
    setup.optimizer.load_state_dict(state["optimizer"])


def healthy() -> TrainingSetup:
    x, y = images()
    x = normalised(x / 255)
    train, val = TensorDataset(x[:160], y[:160]), TensorDataset(x[160:], y[160:])
    torch.manual_seed(0)
    model = net()
    order = torch.Generator().manual_seed(1)
    return TrainingSetup(
        model=model,
        loss_fn=nn.CrossEntropyLoss(),
        optimizer=torch.optim.AdamW(model.parameters(), lr=3e-3),
        scheduler=None,
        train_data=train,
        val_data=val,
        train_loader=DataLoader(train, 16, shuffle=True, generator=order),
        val_loader=DataLoader(val, 32),
        train_step=train_step,
        evaluate=evaluate,
        save=save,
        load=load,
        declared={
            "num_classes": CLASSES,
            "mean": MEAN,
            "std": STD,
            "total_steps": 100,
            "accumulate": 1,
            "label_smoothing": 0.0,
            "mixup": 0.0,
            "precision": "fp32",
            "frozen": [],
        },
    )


def declare(setup: TrainingSetup, **known: Any) -> None:
    setup.declared = {**setup.declared, **known}


def having(**parts: Any) -> Plant:
    """The set-up with these parts in place of its own."""

    def plant(setup: TrainingSetup) -> None:
        for name, part in parts.items():
            setattr(setup, name, part)

    return plant


def bce(smoothing: float = 0.0) -> Callable[[Tensor, Tensor], Tensor]:
    def loss(logits: Tensor, y: Tensor) -> Tensor:
        wanted = (1 - smoothing) * nn.functional.one_hot(y, CLASSES) + smoothing / CLASSES
        return nn.functional.binary_cross_entropy_with_logits(logits, wanted)

    return loss


def after_each_step(setup: TrainingSetup, then: Callable[[TrainingSetup], object]) -> None:
    plain = setup.train_step

    def step(setup: TrainingSetup, batch: Any) -> Any:
        reported = plain(setup, batch)  # type: ignore[misc]
        then(setup)
        return reported

    setup.train_step = step


def accumulated(
    setup: TrainingSetup, count: int, keep: Callable[[Tensor], object] = lambda loss: None
) -> None:
    """Steps of `count` micro-batches, each of which gives its loss to `keep`."""
    calls = 0

    def step(setup: TrainingSetup, batch: Any) -> dict[str, float]:
        nonlocal calls
        setup.model.train()
        loss = plain_loss(setup, batch)
        (loss / count).backward()
        calls += 1
        if calls % count == 0:
            nn.utils.clip_grad_norm_(setup.model.parameters(), 1.0)
            setup.optimizer.step()
            setup.optimizer.zero_grad()
        keep(loss)
        return {"loss": loss.item()}

    setup.train_step = step
    declare(setup, accumulate=count)


def of_classes(setup: TrainingSetup, count: int) -> None:
    """The set-up on the first `count` classes alone."""

    def cut(data: Any) -> TensorDataset:
        x, y = data.tensors
        return TensorDataset(x[y < count], y[y < count])

    setup.train_data, setup.val_data = cut(setup.train_data), cut(setup.val_data)
    setup.train_loader = DataLoader(setup.train_data, 16, shuffle=True)
    setup.val_loader = DataLoader(setup.val_data, 32)
    setup.model[-1] = nn.Linear(32, count)  # type: ignore[operator]
    setup.optimizer = torch.optim.AdamW(setup.model.parameters(), 3e-3)
    declare(setup, num_classes=count)


def planted(plant: Plant | None) -> Callable[[], TrainingSetup]:
    """The factory of the healthy set-up with something planted in it."""

    def factory() -> TrainingSetup:
        setup = healthy()
        if plant is not None:
            plant(setup)
        return setup

    return factory


def check(plant: Plant | None = None, budget: float = 5) -> Report:
    torch.set_num_threads(1)
    return run(planted(plant), budget)


def loud(plant: Plant, *parts: Callable[[Context], list[Check]]) -> dict[str, tuple[str, str]]:
    """id -> (status, first cause) of what these parts of the battery find."""
    torch.set_num_threads(1)
    np.random.seed(3)
    ctx = Context(planted(plant), 5)
    battery.prepare(ctx, [])
    found = [check for part in parts for check in part(ctx)]
    return {c.id: (c.status, c.likely_causes[0]) for c in found if c.status in ("fail", "warn")}


def first(report: Report) -> Check:
    """The finding that a reader sees first."""
    loud = [c for c in report.checks if c.status in ("fail", "warn") and not c.consequence_of]
    return min(loud, key=lambda c: ("fail", "warn").index(c.status))
