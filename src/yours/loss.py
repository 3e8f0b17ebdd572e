"""Your own loss, for `loss: own`."""

from collections.abc import Mapping
from typing import Any

import torch
from torch.nn import functional


def own_loss(
    logits: torch.Tensor, targets: torch.Tensor, params: Mapping[str, Any]
) -> torch.Tensor:
    """The mean loss of the samples of a batch, a tensor with one number. Edit it: this one is
    Poly-1 (Leng et al. 2022), cross-entropy plus `yours.poly_epsilon` x (1 - the probability of the
    label).

    `logits` float B x K as the net gives them, without softmax. `targets`: labels int64 B or, with
    mixup or cutmix, shares float B x K whose rows add up to one. A mean, not a sum, so that the
    losses of equal parts of a batch average to that of the batch: gradient accumulation needs that.
    What you read of params.yaml, as `params["key"]`, is declared by `python -m src.deps`.
    """
    classes = logits.shape[1]
    shares = functional.one_hot(targets, classes).to(logits) if targets.ndim == 1 else targets
    right = (logits.softmax(dim=1) * shares).sum(dim=1)
    epsilon = params["yours.poly_epsilon"]
    return functional.cross_entropy(logits, targets) + epsilon * (1 - right).mean()
