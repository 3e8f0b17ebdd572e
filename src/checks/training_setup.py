"""A training set-up in the form in which anybody's code can be handed to the checks."""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from torch import nn


@dataclass
class TrainingSetup:
    """A fresh, independent training: nothing in it is shared with what `factory()` gave before.

    `loss_fn(logits, target)` is trained. `train_data`, `val_data` are map-style with items (input,
    label); the loaders yield (inputs, targets) and are read anew each epoch. `train_step(self,
    batch)` trains on one micro-batch with `model`, `loss_fn` and `optimizer` of `self` and returns
    {"loss": ...}; the optimizer steps in every `accumulate`-th call. `evaluate(self, loader)` gives
    {"loss", "accuracy"}. `save(self)` gives the bytes from which `load(fresh, bytes)` goes on.

    `declared`: what is known of the training: num_classes, mean, std (per channel, of images in
    0..1), total_steps (of the optimizer), accumulate, label_smoothing, focal_gamma (of a focal loss
    with softmax), mixup, precision (fp32 | bf16 | fp16), frozen (parameter names or prefixes). A
    check whose key is missing is left out.
    """

    model: nn.Module
    loss_fn: Callable[..., Any]
    optimizer: Any
    scheduler: Any = None
    train_data: Any = None
    val_data: Any = None
    train_loader: Iterable[Any] | None = None
    val_loader: Iterable[Any] | None = None
    train_step: Callable[..., Mapping[str, Any]] | None = None
    evaluate: Callable[..., Mapping[str, Any]] | None = None
    save: Callable[..., bytes] | None = None
    load: Callable[..., Any] | None = None
    declared: Mapping[str, Any] = field(default_factory=dict)


def _numbers(value: Any) -> list[float]:
    return [float(value)] if isinstance(value, int | float) else [float(v) for v in value]


@dataclass(frozen=True)
class Declared:
    """`TrainingSetup.declared`, typed; None for what is not said."""

    num_classes: int | None = field(default=None, metadata={"read": int})
    mean: list[float] | None = field(default=None, metadata={"read": _numbers})
    std: list[float] | None = field(default=None, metadata={"read": _numbers})
    total_steps: int | None = field(default=None, metadata={"read": int})
    accumulate: int = field(default=1, metadata={"read": lambda value: max(1, int(value))})
    label_smoothing: float | None = field(default=None, metadata={"read": float})
    focal_gamma: float = field(default=0.0, metadata={"read": float})
    mixup: float | None = field(default=None, metadata={"read": float})
    precision: str | None = field(default=None, metadata={"read": str})
    frozen: tuple[str, ...] | None = field(default=None, metadata={"read": tuple})

    @classmethod
    def of(cls, setup: TrainingSetup) -> "Declared":
        """What `setup` declares; other keys are left out, and keys with the value None."""
        given = {key: value for key, value in (setup.declared or {}).items() if value is not None}
        known = [key for key in fields(cls) if key.name in given]
        return cls(**{key.name: key.metadata["read"](given[key.name]) for key in known})

    def even_loss(self, classes: int) -> float:
        """Softmax loss of equal logits, for focal loss weighed by (1 - probability) ^ gamma."""
        return math.log(classes) * (1 - 1 / classes) ** self.focal_gamma

    def is_frozen(self, name: str) -> bool:
        """Whether the parameter `name` is declared frozen."""
        return any(name == known or name.startswith(f"{known}.") for known in self.frozen or ())
