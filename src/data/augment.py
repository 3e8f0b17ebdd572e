"""Augmentation, per sample on the whole batch: parameters drawn on the CPU for the global batch,
one gather on the device. A function of (seed, step)."""

from dataclasses import dataclass

import torch

from src.randomness import generator


@dataclass(frozen=True)
class Augmentation:
    """`crop`: random shift by up to that many pixels in each direction, edges repeated (the same
    as padding and cropping). `flip`: horizontal flip of every other sample on average."""

    crop: int = 0
    flip: bool = False

    def __call__(self, pictures: torch.Tensor, seed: int, step: int) -> torch.Tensor:
        """`pictures` B x H x W x C of any dtype, changed sample by sample; same shape and dtype."""
        if not self.crop and not self.flip:
            return pictures
        count, height, width, _ = pictures.shape
        draws = generator(seed, "augment", step)
        shift = torch.randint(-self.crop, self.crop + 1, (2, count, 1), generator=draws)
        flip = torch.randint(0, 2, (count, 1), generator=draws).bool() & self.flip
        rows = (torch.arange(height) + shift[0]).clamp(0, height - 1)
        columns = (torch.arange(width) + shift[1]).clamp(0, width - 1)
        columns = torch.where(flip, columns.flip(1), columns)
        rows, columns = rows.to(pictures.device), columns.to(pictures.device)
        samples = torch.arange(count, device=pictures.device)
        return pictures[samples[:, None, None], rows[:, :, None], columns[:, None, :]]
