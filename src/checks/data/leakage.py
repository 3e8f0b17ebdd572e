"""Validation pictures that are training pictures."""

import numpy as np
import torch
from torch import Tensor

from src.checks.context import Context
from src.checks.report import Check

NEAR, NEAR_SHARE = 0.08, 0.1  # rms difference, of the picture's deviation; share of val
LEAK_FAIL, LEAK_WARN = 0.02, 0.005  # of the validation items; real sets hold a few duplicates


def check_leakage(ctx: Context) -> list[Check]:
    """Validation pictures that are training pictures, up to a shift and a mirror image."""
    train, val = ctx.train_sample, ctx.val_sample
    if train is None or val is None or train.x.shape[1:] != val.x.shape[1:]:
        return []
    exact = {row.numpy().tobytes() for row in train.x.reshape(len(train), -1)}
    hits = [row.numpy().tobytes() in exact for row in val.x.reshape(len(val), -1)]
    same = float(np.mean(hits))
    near = 0.0
    if train.x.ndim == 4:
        shifted, near = _shifted_share(train.x, val.x)
        same = max(same, shifted)
    # Only a part of the training set was looked at: the share is higher in all of it.
    same = min(1.0, same * train.total / len(train))
    text = f"{same:.1%} of the validation pictures are in the training set"
    if same > LEAK_FAIL:
        return [Check("leakage", "fail", same, LEAK_FAIL, text, ["train_val_leakage"])]
    if same > LEAK_WARN:
        return [Check("leakage", "warn", same, LEAK_WARN, text,
                      ["train_val_leakage", "duplicates"])]  # fmt: skip
    if near > NEAR_SHARE:
        text = f"{near:.0%} of the validation pictures are next to equal to training pictures"
        return [Check("leakage", "warn", near, NEAR_SHARE, text,
                      ["train_val_leakage", "duplicates"])]  # fmt: skip
    return [Check("leakage", "pass", same, LEAK_FAIL, text)]


def _shifted_share(train: Tensor, val: Tensor, count: int = 100) -> tuple[float, float]:
    """The share of val pictures whose middle occurs in a training picture, value for value, and of
    those where it differs by next to nothing."""
    import torch.nn.functional as functional

    val = val[torch.linspace(0, len(val) - 1, min(count, len(val))).long()]
    height, width = val.shape[2:]
    margin = max(1, min(height, width) // 8)
    middle = val[:, :, margin : height - margin, margin : width - margin]
    alive = middle.reshape(len(val), -1).std(1) > 0.1 * float(val.std())
    small = functional.adaptive_avg_pool2d(train, 8).reshape(len(train), -1)
    found = torch.zeros(len(val), dtype=torch.bool)
    near = torch.zeros(len(val), dtype=torch.bool)
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
            difference = (patches - wanted[number][None, :, None, None]).abs()
            found[number] = bool((difference.amax((1, 4, 5)) < 1e-3).any())
            size = difference.square().mean((1, 4, 5)).sqrt().min()
            near[number] |= bool(size < NEAR * wanted[number].std())
    return float(found.float().mean()), float((near | found).float().mean())
