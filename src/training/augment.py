"""The augmentation of a training: that of the kind of sample, then your own."""

from collections.abc import Mapping
from typing import Any

import torch

from src.base.kinds import kind_part
from src.plumbing.errors import InputError
from src.training.step import Augment
from src.yours import augment as yours


def augmentation(params: Mapping[str, Any], kind: str) -> Augment:
    """A function of (rows, seed, step), as params ask for it. InputError where your own one does
    not give back a batch like the one that it got."""
    of_kind: Augment = kind_part(kind, "augment").augmentation(params)
    if not params["augment_own"]:
        return of_kind

    def both(rows: torch.Tensor, seed: int, step: int) -> torch.Tensor:
        rows = of_kind(rows, seed, step)
        changed = yours.own_augment(rows, seed, step, params)
        found, wanted = _described(changed), _described(rows)
        if found != wanted:
            raise InputError(
                f"own_augment in src/yours/augment.py must return {wanted} like the batch that it "
                f"got, got {found}"
            )
        return changed

    return both


def _described(rows: Any) -> str:
    if not isinstance(rows, torch.Tensor):
        return f"a {type(rows).__name__}"
    return f"a tensor of shape {'x'.join(map(str, rows.shape))} on {rows.device}"
