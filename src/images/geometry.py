"""Boxes, rotations and rectangles per sample, and the resampling that applies them."""

import math
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from src.base.randomness import generator

CROP_RATIO = (3 / 4, 4 / 3)  # width / height of the box in pixels, torchvision's RandomResizedCrop
TRIES = 10  # for a box or rectangle that fits, as in torchvision


def to_device(drawn: Tensor, device: torch.device) -> Tensor:
    """Move drawn parameters; from pageable memory a copy to a GPU would wait for the GPU."""
    drawn = drawn.pin_memory() if device.type == "cuda" else drawn
    return drawn.to(device, non_blocking=True)


@lru_cache(maxsize=8)
def _places(side: int, furthest: int) -> np.ndarray:
    """int64 2 x (2 `furthest` + 1) x `side`: which row (or column) stands at each place after a
    shift by -`furthest` to `furthest` with the edges repeated; then the same mirrored."""
    shifts = np.arange(-furthest, furthest + 1)[:, None]
    places = np.clip(shifts + np.arange(side), 0, side - 1)
    return np.stack([places, places[:, ::-1]])


def shift_and_mirror(images: Tensor, furthest: int, shift: Tensor, mirrored: Tensor) -> Tensor:
    """`images` B x H x W x C, each moved by `shift` (int64 2 x B, vertical first, from -`furthest`
    to `furthest`) with the edges repeated, then mirrored where `mirrored` (int64 2 x B, 0 or 1)
    says so: one copy to the device and one gather there, whatever the batch."""
    count, height, width, channels = images.shape
    # By numpy, which starts an operation in a fifth of torch's time.
    (down, across), (upside, sideways) = shift.numpy() + furthest, mirrored.numpy()
    rows = _places(height, furthest)[upside, down]
    rows += np.arange(count)[:, None] * height  # of all images, one below the other
    columns = _places(width, furthest)[sideways, across]
    if images.device.type == "cpu":  # a third of the time of torch's index (measured)
        pixels = (rows * width)[:, :, None] + columns[:, None, :]
        flat = images.numpy().reshape(-1, channels)
        return torch.from_numpy(flat.take(pixels, axis=0, mode="clip"))
    drawn = to_device(torch.from_numpy(np.concatenate([rows, columns], axis=1)), images.device)
    lines = images.reshape(count * height, width, channels)
    return lines[drawn[:, :height, None], drawn[:, None, height:]]


def draw_boxes(
    count: int, height: int, width: int, scale: float, seed: int, step: int
) -> tuple[Tensor, Tensor]:
    """Boxes of resized crops, (size, centre), float64 2 x B each, vertical first: size as a share
    of the side, centre from -1 to 1 between the edges. The area is uniform in [scale, 1], the
    logarithm of the aspect ratio too; as in torchvision the first of ten tries that lies in the
    image counts, or else the whole image."""
    draws = generator(seed, "augment.scale", step)
    area = scale + (1 - scale) * uniform(draws, (TRIES, count))
    ratio = log_uniform(draws, CROP_RATIO, (TRIES, count)) * height / width
    sizes = torch.stack([(area / ratio).sqrt(), (area * ratio).sqrt()])
    fits = (sizes <= 1).all(0)
    size = torch.where(fits.any(0), first_that_fits(sizes, fits), 1.0)
    return size, (uniform(draws, (2, count)) * 2 - 1) * (1 - size)


def affine_matrices(
    size: Tensor, centre: Tensor, mirrored: Tensor, angle: Tensor, aspect: float
) -> Tensor:
    """Where each output point of a box that is turned about its centre is taken from: float32 B x 2
    x 3 in the coordinates of torch.nn.functional.affine_grid (align_corners=False), from (x, y, 1)
    in the output to (x, y) in the image. `size`, `centre` 2 x B as from `draw_boxes`; `mirrored`
    bool 2 x B, vertical first; `angle` B in degrees, positive turns the image counter-clockwise;
    `aspect` height / width in pixels."""
    down, across = torch.where(mirrored, -size, size)
    cos, sin = torch.deg2rad(angle).cos(), torch.deg2rad(angle).sin()
    x = torch.stack([cos * across, -sin * down * aspect, centre[1]], dim=1)
    y = torch.stack([sin * across / aspect, cos * down, centre[0]], dim=1)
    return torch.stack([x, y], dim=1).float()


def resample(images: Tensor, matrices: Tensor) -> Tensor:
    """`images` B x H x W x C through `matrices` (see `affine_matrices`): float32 of the same
    shape, bilinear, edges repeated. grid_sample is deterministic in the forward pass."""
    _, height, width, _ = images.shape
    x = _pixel_centres(width, images.device)[None, None, :]
    y = _pixel_centres(height, images.device)[None, :, None]
    # Not affine_grid: its matrix product would lose pixels to TF32 where that is allowed.
    terms = matrices[:, :, :, None, None]
    grid = terms[:, :, 0] * x[:, None] + terms[:, :, 1] * y[:, None] + terms[:, :, 2]
    sampled = torch.nn.functional.grid_sample(
        images.permute(0, 3, 1, 2).float(),
        grid.permute(0, 2, 3, 1),
        mode="bilinear",
        padding_mode="border",
        align_corners=False,
    )
    # The four weights of a point add up to one but for rounding.
    return sampled.clamp(0, 255).permute(0, 2, 3, 1)


@lru_cache(maxsize=8)
def numbers(count: int, device: torch.device) -> Tensor:
    """0 to `count` - 1, kept on the device: each step needs them."""
    return torch.arange(count, device=device)


@lru_cache(maxsize=8)
def _pixel_centres(count: int, device: torch.device) -> Tensor:
    return (torch.arange(count, device=device) * 2 + 1) / count - 1


def rectangle_mask(rectangles: Tensor, height: int, width: int) -> Tensor:
    """bool B x H x W x 1; `rectangles` int64 4 x B: top, bottom, left, right, ends exclusive."""
    top, bottom, left, right = rectangles[:, :, None, None, None]
    row = numbers(height, rectangles.device)[:, None, None]
    column = numbers(width, rectangles.device)[:, None]
    return (row >= top) & (row < bottom) & (column >= left) & (column < right)


def uniform(draws: torch.Generator, shape: tuple[int, ...]) -> Tensor:
    """Numbers in [0, 1), float64: their product with a number of pixels never rounds up to it."""
    return torch.rand(shape, generator=draws, dtype=torch.float64)


def log_uniform(
    draws: torch.Generator, bounds: tuple[float, float], shape: tuple[int, ...]
) -> Tensor:
    """Numbers between the `bounds`, float64, whose logarithm is uniform."""
    low, high = math.log(bounds[0]), math.log(bounds[1])
    return (low + (high - low) * uniform(draws, shape)).exp()


def first_that_fits(tries: Tensor, fits: Tensor) -> Tensor:
    """2 x B of the `tries` 2 x T x B: of each sample the first one that `fits` (bool T x B)."""
    index = fits.byte().argmax(dim=0)
    return tries.gather(1, index.expand(2, 1, -1)).squeeze(1)
