"""The set-up that a battery checks."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass
class TrainingSetup:
    """A training set-up: the parts, and the functions that work on them."""

    model: Any
    loss_fn: Callable[..., Any]
    optimizer: Any
    scheduler: Any | None
    train_data: Any
    val_data: Any
    train_loader: Any
    val_loader: Any
    train_step: Callable[..., dict[str, Any]]
    evaluate: Callable[..., dict[str, float]]
    save: Callable[..., bytes]
    load: Callable[..., None]
    declared: dict[str, Any]
