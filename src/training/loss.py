"""The loss: one object for training, validation and the check before training.

Every loss is a mean over samples of (weight of the sample) x (loss of the sample), so that the mean
over equal parts of a batch is the mean over the batch: gradient accumulation changes nothing.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from src.plumbing.errors import InputError
from src.yours import loss as yours

OWN = "own"  # `loss` in params.yaml for src/yours/loss.py


class Loss(nn.Module):
    """`name`: cross_entropy, bce (binary cross-entropy of each class against the rest, summed),
    focal (Lin et al. 2017, with softmax), or own, which `own` computes. `class_weights`: K numbers
    that weigh the samples. Takes logits B x K and targets: labels (int64 B) or shares (float B x K,
    rows sum to one). InputError for an own loss that is not one number."""

    class_weights: torch.Tensor | None

    def __init__(
        self,
        name: str = "cross_entropy",
        label_smoothing: float = 0.0,
        focal_gamma: float = 2.0,
        class_weights: torch.Tensor | None = None,
        own: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] | None = None,
    ):
        super().__init__()
        self.name, self.label_smoothing, self.focal_gamma = name, label_smoothing, focal_gamma
        self.own = own
        self.register_buffer("class_weights", class_weights)

    @property
    def activation(self) -> str:
        """How logits become probabilities, as src.model.inference names it."""
        return "sigmoid" if self.name == "bce" else "softmax"

    def forward(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        if self.own is not None:
            return _mean_with_graph(self.own(logits, targets), logits)
        if self.name == "cross_entropy" and self.class_weights is None:
            return functional.cross_entropy(logits, targets, label_smoothing=self.label_smoothing)
        if self.name == "cross_entropy":
            losses = functional.cross_entropy(
                logits, targets, label_smoothing=self.label_smoothing, reduction="none"
            )
        elif self.name == "bce":
            losses = functional.binary_cross_entropy_with_logits(
                logits, self._shares(targets, logits), reduction="none"
            ).sum(dim=1)
        else:
            log_p = logits.log_softmax(dim=1)
            rest = 1 - log_p.exp()
            if self.focal_gamma < 1:  # the slope of the power is infinite at 0
                rest = rest.clamp_min(torch.finfo(rest.dtype).eps)
            hard = rest**self.focal_gamma
            losses = -(self._shares(targets, logits) * hard * log_p).sum(dim=1)
        if self.class_weights is None:
            return losses.mean()
        weights = self.class_weights
        weight = weights[targets] if targets.ndim == 1 else targets @ weights
        return (losses * weight).mean()

    def _shares(self, targets: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
        """Targets as B x K shares; for bce smoothed, each class towards 1 / K."""
        classes = logits.shape[1]
        shares = functional.one_hot(targets, classes).to(logits) if targets.ndim == 1 else targets
        if self.name == "bce" and self.label_smoothing:
            shares = shares * (1 - self.label_smoothing) + self.label_smoothing / classes
        return shares


def _mean_with_graph(loss: Any, logits: torch.Tensor) -> torch.Tensor:
    if isinstance(loss, torch.Tensor) and loss.ndim == 0:
        if logits.requires_grad and torch.is_grad_enabled() and not loss.requires_grad:
            raise InputError(
                "own_loss in src/yours/loss.py gives a number without a gradient: compute it from "
                "the logits by torch alone, without .item(), .detach() or numpy"
            )
        return loss
    got = f"shape {tuple(loss.shape)}" if isinstance(loss, torch.Tensor) else type(loss).__name__
    raise InputError(
        "own_loss in src/yours/loss.py must return the mean over the batch, a tensor with one "
        f"number and no dimension, got {got}"
    )


def create_loss(params: Mapping[str, Any], labels: np.ndarray, classes: Sequence[str]) -> Loss:
    """The loss that params ask for; `labels` (int, N) of the training set give the frequencies."""
    return Loss(
        params["loss"],
        params["label_smoothing"],
        params["focal_gamma"],
        _class_weights(params["class_weights"], labels, classes),
        partial(yours.own_loss, params=params) if params["loss"] == OWN else None,
    )


def _class_weights(
    choice: str | list[float], labels: np.ndarray, classes: Sequence[str]
) -> torch.Tensor | None:
    """K weights whose mean over the training samples is one, so that lr keeps its meaning; None for
    `none`. `balanced`: N / (K x count), scikit-learn's rule."""
    if choice == "none":
        return None
    counts = np.bincount(labels, minlength=len(classes))
    if choice == "balanced":
        weights = len(labels) / (len(classes) * np.maximum(counts, 1))
    else:
        if len(choice) != len(classes):
            raise InputError(
                f"params.yaml: class_weights must have one number for each of the {len(classes)} "
                f"classes ({', '.join(classes[:5])}{' ...' if len(classes) > 5 else ''}), "
                f"got {len(choice)}"
            )
        weights = np.asarray(choice, dtype=np.float64)
    return torch.tensor(weights * len(labels) / (weights * counts).sum(), dtype=torch.float32)
