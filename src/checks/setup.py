"""What is checked: a training set-up in the form in which anybody's code can be handed over."""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn


@dataclass
class TrainingSetup:
    """A fresh, independent training: nothing in it is shared with what `factory()` gave before.

    `loss_fn(logits, target)` gives the loss that is trained. `train_data`, `val_data` are
    map-style, an item is (input, label); the loaders yield batches (inputs, targets) and are read
    anew for each epoch. `train_step(self, batch)` trains on one micro-batch with `model`,
    `loss_fn` and `optimizer` of the set-up it is given and returns {"loss": ...}; the optimizer
    steps inside every `accumulate`-th call. `evaluate(self, loader)` gives {"loss", "accuracy"}.
    `save(self)` gives the bytes from which `load(fresh, bytes)` goes on.

    `declared`: what the training is meant to be, as far as known: num_classes, mean, std (per
    channel, of pictures in 0..1), total_steps (of the optimizer), accumulate, label_smoothing,
    focal_gamma (of a focal loss with softmax), mixup, precision (fp32 | bf16 | fp16), frozen (names
    of parameters, or how they begin). A check that needs a key which is not there is left out.
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


@dataclass(frozen=True)
class Declared:
    """`TrainingSetup.declared`, typed; None for what is not said."""

    num_classes: int | None = None
    mean: list[float] | None = None
    std: list[float] | None = None
    total_steps: int | None = None
    accumulate: int = 1
    label_smoothing: float | None = None
    focal_gamma: float = 0.0
    mixup: float | None = None
    precision: str | None = None
    frozen: tuple[str, ...] | None = None

    @classmethod
    def of(cls, setup: TrainingSetup) -> "Declared":
        given = dict(setup.declared or {})

        def take(key: str, kind: Callable[[Any], Any]) -> Any:
            value = given.get(key)
            return None if value is None else kind(value)

        return cls(
            num_classes=take("num_classes", int),
            mean=take("mean", _numbers),
            std=take("std", _numbers),
            total_steps=take("total_steps", int),
            accumulate=max(1, take("accumulate", int) or 1),
            label_smoothing=take("label_smoothing", float),
            focal_gamma=take("focal_gamma", float) or 0.0,
            mixup=take("mixup", float),
            precision=take("precision", str),
            frozen=take("frozen", tuple),
        )

    def even_loss(self, classes: int) -> float:
        """The loss of equal logits, where it is a softmax's: cross-entropy, or the declared focal
        loss, which weighs it by (1 - probability of the label) ^ gamma."""
        return math.log(classes) * (1 - 1 / classes) ** self.focal_gamma

    def is_frozen(self, name: str) -> bool:
        """Whether the parameter `name` is meant to rest."""
        return any(name == known or name.startswith(f"{known}.") for known in self.frozen or ())


def _numbers(value: Any) -> list[float]:
    return [float(value)] if isinstance(value, int | float) else [float(v) for v in value]
