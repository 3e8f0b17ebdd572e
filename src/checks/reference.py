"""What the declared loss is worth by formula: a bug in the loss must not move its yardstick."""

import math

import torch

from src.training.loss import Loss


def even_guess(loss: Loss, labels: torch.Tensor, classes: int) -> float:
    """The loss of logits that are all equal, where a fresh net should start: log K for
    cross-entropy. `labels` int64 B."""
    each = {
        "cross_entropy": math.log(classes),
        "bce": classes * math.log(2),
        "focal": (1 - 1 / classes) ** loss.focal_gamma * math.log(classes),
    }
    return each[loss.name] * _mean_weight(loss, labels)


def floor(loss: Loss, labels: torch.Tensor, classes: int) -> float:
    """The lowest loss that any logits can have for these labels: 0, but with smoothing the entropy
    of the smoothed targets."""
    if loss.name == "focal":
        return 0.0
    other = loss.label_smoothing / classes
    own = 1 - loss.label_smoothing + other
    each = _plogp(own) + (classes - 1) * _plogp(other)
    if loss.name == "bce":
        each += _plogp(1 - own) + (classes - 1) * _plogp(1 - other)
    return each * _mean_weight(loss, labels)


def _plogp(share: float) -> float:
    return -share * math.log(share) if share > 0 else 0.0


def _mean_weight(loss: Loss, labels: torch.Tensor) -> float:
    return 1.0 if loss.class_weights is None else loss.class_weights[labels].mean().item()
