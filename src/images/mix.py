"""mixup and CutMix per sample: drawn on the CPU for the global batch, one weighted sum on the
device. A function of (seed, step); timm's Mixup draws from NumPy's global generator."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from src.base.randomness import derive, generator
from src.images.geometry import numbers, rectangle_mask, to_device


@dataclass(frozen=True)
class Mix:
    """`mixup`, `cutmix`: alpha of the Beta(alpha, alpha) that a sample's own share is drawn from; 0
    = off. With both on, each sample takes one of the two with probability 1/2. `classes`: the width
    of the targets. mixup (arXiv:1710.09412) is a weighted sum of two samples, CutMix
    (arXiv:1905.04899) pastes a rectangle of the other one. A random permutation of the batch gives
    the other one, so a sample may meet itself."""

    mixup: float
    cutmix: float
    classes: int

    @classmethod
    def from_params(cls, params: Mapping[str, Any], classes: int) -> "Mix":
        """The keys `mixup` and `cutmix` of params.yaml."""
        return cls(mixup=params["mixup"], cutmix=params["cutmix"], classes=classes)

    def __call__(
        self, images: Tensor, labels: Tensor, seed: int, step: int
    ) -> tuple[Tensor, Tensor]:
        """`images` B x H x W x C in 0..255 and `labels` int64 B, on one device. Off: both
        unchanged. On: images float32 in 0..255 of the same shape and targets float32 B x classes,
        rows adding up to one. Nothing waits for the device."""
        if not self.mixup and not self.cutmix:
            return images, labels
        count, height, width, _ = images.shape
        device = images.device
        partner = torch.randperm(count, generator=generator(seed, "mix", step))
        is_cutmix, share, rectangles = self.draw(count, height, width, seed, step)
        partner = to_device(partner, device)
        # 0 of its own inside the rectangle, which is empty where mixup is used.
        outside = ~rectangle_mask(to_device(rectangles, device), height, width)
        own = to_device(share.float(), device)
        within = to_device(torch.where(is_cutmix, 1.0, share).float(), device)
        weight = outside * within[:, None, None, None]
        images = images.float()
        mixed = images * weight + images[partner] * (1 - weight)
        hot = (labels[:, None] == numbers(self.classes, device)).float()
        return mixed, hot * own[:, None] + hot[partner] * (1 - own[:, None])

    def draw(
        self, count: int, height: int, width: int, seed: int, step: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        """(is_cutmix bool B, own share float64 B, rectangles int64 4 x B: top, bottom, left, right,
        empty for mixup). CutMix's share counts the area left after cutting at the edges."""
        is_cutmix = torch.rand(count, generator=generator(seed, "mix.choice", step)) < 0.5
        if not (self.mixup and self.cutmix):
            is_cutmix = torch.full_like(is_cutmix, bool(self.cutmix))
        cutmix = _beta(self.cutmix, count, seed, "mix.cutmix", step)
        rectangles = _rectangles(cutmix, height, width, seed, step)
        rectangles = torch.where(is_cutmix, rectangles, 0)
        top, bottom, left, right = rectangles
        kept = 1 - ((bottom - top) * (right - left)).double() / (height * width)
        mixup = _beta(self.mixup, count, seed, "mix.mixup", step)
        return is_cutmix, torch.where(is_cutmix, kept, mixup), rectangles


def _beta(alpha: float, count: int, seed: int, purpose: str, step: int) -> Tensor:
    """float64 B, ones for alpha 0. By numpy: torch draws beta from its global generator alone."""
    if not alpha:
        return torch.ones(count, dtype=torch.float64)
    draws = np.random.default_rng(derive(seed, purpose, step))
    return torch.from_numpy(draws.beta(alpha, alpha, count))


def _rectangles(share: Tensor, height: int, width: int, seed: int, step: int) -> Tensor:
    """int64 4 x B: CutMix's rectangles of area 1 - `share`, centred uniformly, cut at the edges."""
    draws = generator(seed, "mix.rectangle", step)
    sides = torch.tensor([[height], [width]])
    # As in timm, an odd size keeps its last row: half of it would be lost by rounding down twice.
    size = (sides * (1 - share).sqrt()).long()
    centre = (torch.rand((2, len(share)), generator=draws, dtype=torch.float64) * sides).long()
    start = (centre - size // 2).clamp(min=0)
    end = (centre + (size + 1) // 2).minimum(sides)
    return torch.stack([start[0], end[0], start[1], end[1]])
