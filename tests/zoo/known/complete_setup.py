"""The set-up of the zoo: every part is there, and a fault may put anything in its place."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from src.checks import training_setup


@dataclass
class TrainingSetup(training_setup.TrainingSetup):
    """A `src.checks.TrainingSetup` in which nothing is left out but the scheduler."""

    model: Any
    loss_fn: Any
    optimizer: Any
    scheduler: Any = None
    train_data: Any = None
    val_data: Any = None
    train_loader: Any = None
    val_loader: Any = None
    train_step: Any = None
    evaluate: Any = None
    save: Any = None
    load: Any = None
    declared: dict[str, Any] = field(default_factory=dict)


Factory = Callable[[], TrainingSetup]
