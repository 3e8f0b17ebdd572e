"""Validation pictures that are training pictures."""

import numpy as np
import torch
from torch import Tensor

from src.checks.context import Context
from src.checks.report import Check

LEAK_FAIL, LEAK_WARN = 0.02, 0.005  # of the validation items; real sets hold a few duplicates


def check_leakage(ctx: Context) -> list[Check]:
    """Validation pictures that are training pictures, up to a shift and a mirror image."""
    train, val = ctx.train_sample, ctx.val_sample
    if train is None or val is None or train.x.shape[1:] != val.x.shape[1:]:
        return []
    exact = {row.numpy().tobytes() for row in train.x.reshape(len(train), -1)}
    hits = [row.numpy().tobytes() in exact for row in val.x.reshape(len(val), -1)]
    same = float(np.mean(hits))
    if train.x.ndim == 4 and not ctx.deterministic_train:
        same = max(same, _shifted_share(train.x, val.x))
    # Only a part of the training set was looked at: the share is higher in all of it.
    same = min(1.0, same * train.total / len(train))
    text = f"{same:.1%} of the validation pictures are in the training set"
    if same > LEAK_FAIL:
        return [Check("leakage", "fail", same, LEAK_FAIL, text, ["train_val_leakage"])]
    if same > LEAK_WARN:
        return [Check("leakage", "warn", same, LEAK_WARN, text,
                      ["train_val_leakage", "duplicates"])]  # fmt: skip
    return [Check("leakage", "pass", same, LEAK_FAIL, text)]


def _shifted_share(train: Tensor, val: Tensor, count: int = 150) -> float:
    """The share of val pictures whose middle occurs in a training picture, value for value."""
    import torch.nn.functional as functional

    val = val[torch.linspace(0, len(val) - 1, min(count, len(val))).long()]
    height, width = val.shape[2:]
    margin = max(1, min(height, width) // 8)
    middle = val[:, :, margin : height - margin, margin : width - margin]
    alive = middle.reshape(len(val), -1).std(1) > 0.1 * float(val.std())
    small = functional.adaptive_avg_pool2d(train, 8).reshape(len(train), -1)
    found = torch.zeros(len(val), dtype=torch.bool)
    for mirrored in (False, True):
        wanted = middle.flip(3) if mirrored else middle
        whole = val.flip(3) if mirrored else val
        close = torch.cdist(functional.adaptive_avg_pool2d(whole, 8).reshape(len(val), -1), small)
        nearest = close.topk(min(5, len(train)), largest=False).indices
        for number in range(len(val)):
            if found[number] or not alive[number]:
                continue
            patches = train[nearest[number]].unfold(2, middle.shape[2], 1)
            patches = patches.unfold(3, middle.shape[3], 1)
            difference = (patches - wanted[number][None, :, None, None]).abs().amax((1, 4, 5))
            found[number] = bool((difference < 1e-3).any())
    return float(found.float().mean())
