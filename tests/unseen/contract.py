"""The one place that names the contract."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass
class TrainingSetup:
    """Stands for `src.checks.TrainingSetup` until that exists; then this file imports it."""

    model: Any
    loss_fn: Any
    optimizer: Any
    scheduler: Any
    train_data: Any
    val_data: Any
    train_loader: Any
    val_loader: Any
    train_step: Callable[..., dict[str, Any]]
    evaluate: Callable[..., dict[str, float]]
    save: Callable[..., bytes]
    load: Callable[..., None]
    declared: dict[str, Any]
