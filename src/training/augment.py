"""The augmentation of a training: that of the kind of sample, then your own."""

import random
from collections.abc import Mapping
from typing import Any

import numpy as np
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

    draws_seen = False

    def both(rows: torch.Tensor, seed: int, step: int) -> torch.Tensor:
        nonlocal draws_seen
        rows = of_kind(rows, seed, step)
        before = None if draws_seen else _random_states(rows.device)
        changed = yours.own_augment(rows, seed, step, params)
        if before is not None and _random_states(rows.device) != before:
            raise InputError(
                "own_augment in src/yours/augment.py draws from a global generator of torch, NumPy "
                "or Python: a run that was killed could not go on with the same bits. Draw from "
                'generator(seed, "augment.own", step) of src/base/randomness.py'
            )
        draws_seen = True
        found, wanted = _described(changed), _described(rows)
        if found != wanted:
            raise InputError(
                f"own_augment in src/yours/augment.py must return {wanted} like the batch that it "
                f"got, got {found}"
            )
        return changed

    return both


def _random_states(device: torch.device) -> tuple[Any, ...]:
    """What every draw from a global generator changes."""
    states = [torch.get_rng_state()]
    if device.type == "cuda":
        states.append(torch.cuda.get_rng_state(device))
    of_numpy = np.random.get_state(legacy=False)["state"]
    drawn = of_numpy["key"].tolist(), of_numpy["pos"]
    return [state.tolist() for state in states], drawn, random.getstate()


def _described(rows: Any) -> str:
    if not isinstance(rows, torch.Tensor):
        return f"a {type(rows).__name__}"
    return f"a tensor of shape {'x'.join(map(str, rows.shape))} on {rows.device}"
