"""Images on their way into the net and back, in every stage alike."""

import functools
from collections.abc import Sequence

import torch
from torch import Tensor


def enter(rows: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Images B x H x W x C in 0..255, normalised per channel in 0..1, as float32 B x C x H x W."""
    scale, shift = _scale_and_shift(tuple(mean), tuple(std), rows.device)
    images = rows.permute(0, 3, 1, 2)
    # Into the net's order of memory at once: to copy floats of three channels there costs three to
    # five times as much (measured).
    inputs = torch.empty(images.shape, device=rows.device)
    return torch.mul(images, scale, out=inputs).sub_(shift)


@functools.lru_cache(maxsize=8)
def _scale_and_shift(
    mean: tuple[float, ...], std: tuple[float, ...], device: torch.device
) -> tuple[Tensor, Tensor]:
    """C x 1 x 1 each, kept on the device: to copy them there in each step would wait for it."""
    scale = torch.tensor([1 / (255 * s) for s in std], device=device)
    shift = torch.tensor([m / s for m, s in zip(mean, std, strict=True)], device=device)
    return scale[:, None, None], shift[:, None, None]


def leave(inputs: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """The packed images (uint8 B x H x W x C, on the CPU) that entered as `inputs`."""
    shape = (1, -1, 1, 1)
    shares = inputs.cpu() * torch.tensor(std).view(shape) + torch.tensor(mean).view(shape)
    return (shares * 255).round().clamp(0, 255).byte().permute(0, 2, 3, 1)


def mirror(rows: Tensor) -> Tensor:
    """Packed images B x H x W x C, left and right exchanged."""
    return rows.flip(2)
