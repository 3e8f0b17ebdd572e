from collections.abc import Mapping
from typing import Any

import torch
from torchvision.transforms import v2

from src.base.randomness import derive


def own_augment(
    rows: torch.Tensor, seed: int, step: int, params: Mapping[str, Any]
) -> torch.Tensor:
    """torchvision's transforms, drawn for each image from a generator that is put back."""
    transform = v2.Compose([v2.RandomRotation(params["yours.turn"]), v2.ColorJitter(0.2, 0.2)])
    with torch.random.fork_rng():
        torch.manual_seed(derive(seed, "augment.own", step))
        changed = [transform(row.permute(2, 0, 1).byte()).permute(1, 2, 0) for row in rows]
    return torch.stack(changed)
