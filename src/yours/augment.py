"""Your own augmentation, for `augment_own: true`."""

from collections.abc import Mapping
from typing import Any

import torch

from src.base.randomness import generator


def own_augment(
    rows: torch.Tensor, seed: int, step: int, params: Mapping[str, Any]
) -> torch.Tensor:
    """A training batch, changed sample by sample; it comes after the built-in augmentation and
    before mixup and cutmix. Edit it: this one makes each image brighter or darker by up to a tenth.

    `rows` are packed samples on the device of the net, images B x H x W x C (uint8 or float32) in
    0..255. Returns the same shape, on the same device, in 0..255. All that is random must follow
    from `seed` and `step`, as numbers of a `generator` on the CPU do: a training that was killed
    then goes on with the same bits. What you read of params.yaml, as `params["key"]`, is declared
    by `python -m src.deps`. `overfit-check` calls it as training does.
    """
    draws = generator(seed, "augment.own", step)
    factors = 0.9 + 0.2 * torch.rand(len(rows), generator=draws)
    return (rows.float() * factors.to(rows.device)[:, None, None, None]).clamp(0, 255)
