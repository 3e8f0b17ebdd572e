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


def train_step(setup: TrainingSetup, batch: tuple[Tensor, Tensor]) -> dict[str, float]:
    setup.model.train()
    setup.optimizer.zero_grad()
    loss = setup.loss_fn(setup.model(batch[0]), batch[1])
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
    shape = (1, 3, 1, 1)
    x = (x / 255 - torch.tensor(MEAN).view(shape)) / torch.tensor(STD).view(shape)
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
    setup.declared = {**setup.declared, "num_classes": count}


def planted(plant: Plant | None) -> Callable[[], TrainingSetup]:
    """The factory of the healthy set-up with something planted in it."""

    def factory() -> TrainingSetup:
        setup = healthy()
        return (plant(setup) or setup) if plant else setup

    return factory


def check(plant: Plant | None = None, budget: float = 5) -> Report:
    """The report on the healthy set-up with something planted in it."""
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
