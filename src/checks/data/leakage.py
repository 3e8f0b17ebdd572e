"""Validation images that are training images."""

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from src.checks.context import Context
from src.checks.reading import rows_as_bytes
from src.checks.report import Check, fail, ok, warn

NEAR, NEAR_SHARE = 0.08, 0.1  # rms difference, of the image's deviation; share of val
LEAK_FAIL, LEAK_WARN = 0.02, 0.005  # of the validation items; real sets hold a few duplicates


def check_leakage(ctx: Context) -> list[Check]:
    """Validation images that are training images, up to a shift and a mirror image."""
    train, val, id = ctx.sample, ctx.val_sample, "leakage"
    if val is None or train.x.shape[1:] != val.x.shape[1:]:
        return []
    exact = set(rows_as_bytes(train.x.reshape(len(train), -1)))
    same = float(np.mean([row in exact for row in rows_as_bytes(val.x.reshape(len(val), -1))]))
    near = 0.0
    if train.x.ndim == 4:
        shifted, near = _shifted_share(train.x, val.x)
        same = max(same, shifted)
    # Only a part of the training set was looked at: the share is higher in all of it.
    same = min(1.0, same * train.total / len(train))
    text = f"{same:.1%} of the validation pictures are in the training set"
    if same > LEAK_FAIL:
        return [fail(id, same, LEAK_FAIL, text, "train_val_leakage")]
    if same > LEAK_WARN:
        return [warn(id, same, LEAK_WARN, text, "train_val_leakage", "duplicates")]
    if near > NEAR_SHARE:
        text = f"{near:.0%} of the validation pictures are next to equal to training pictures"
        return [warn(id, near, NEAR_SHARE, text, "train_val_leakage", "duplicates")]
    return [ok(id, same, LEAK_FAIL, text)]


def _shifted_share(train: Tensor, val: Tensor, count: int = 100) -> tuple[float, float]:
    """The share of val images whose middle occurs in a training image, value for value, and of
    those where it differs by next to nothing."""
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
