"""Augmentation, per sample on the whole batch: parameters drawn on the CPU for the global batch, a
gather or one resampling on the device. A function of (seed, step).

torchvision's v2 transforms draw once per batch, kornia's from the global generator: only formulas
are theirs. Each feature draws for a purpose of its own: none moves another's draws."""

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass
from typing import Any

import torch
from torch import Tensor

from src.base.randomness import generator
from src.images import geometry
from src.images.geometry import TRIES, first_that_fits, log_uniform, to_device, uniform
from src.images.mix import Mix

ERASE_AREA = (0.02, 0.33)  # share of the image, torchvision's RandomErasing
ERASE_RATIO = (0.3, 3.3)  # height / width in pixels, the same
GREY = (0.2989, 0.587, 0.114)  # ITU-R BT.601 with torchvision's digits


@dataclass(frozen=True)
class Augmentation:
    """What varies, in the order in which it is applied; the defaults change nothing.

    `crop`: shift by up to that many pixels in each direction, edges repeated (the same as padding
    and cropping). `scale`: smallest area of a resized crop, as a share; aspect ratio 3/4 to 4/3.
    `flip`, `vertical_flip`: mirror every other sample on average. `rotation`: by up to that many
    degrees either way. `color`: factors of brightness, contrast and saturation, each in
    [1 - color, 1 + color]. `erase`: probability that a rectangle of 2 to 33 % of the area gets the
    image's mean colour (arXiv:1708.04896).
    """

    crop: int = 0
    flip: bool = False
    _: KW_ONLY
    vertical_flip: bool = False
    scale: float = 1.0
    rotation: float = 0.0
    color: float = 0.0
    erase: float = 0.0

    @classmethod
    def from_params(cls, params: Mapping[str, Any]) -> "Augmentation":
        """The `augment_...` keys of params.yaml; every one of them is read."""
        return cls(
            crop=params["augment_crop"],
            flip=params["augment_flip"],
            vertical_flip=params["augment_vertical_flip"],
            scale=params["augment_scale"],
            rotation=params["augment_rotation"],
            color=params["augment_color"],
            erase=params["augment_erase"],
        )

    def __call__(self, images: Tensor, seed: int, step: int) -> Tensor:
        """`images` B x H x W x C in 0..255, changed sample by sample: same shape and device. Crop
        and flips alone keep the dtype (uint8) and the values of the pixels; all else gives float32
        in 0..255. Nothing waits for the device."""
        count, height, width, _ = images.shape
        if self.scale < 1 or self.rotation:
            matrices = self.draw_matrices(count, height, width, seed, step)
            images = geometry.resample(images, to_device(matrices, images.device))
        elif self.crop or self.flip or self.vertical_flip:
            shift, mirrored = self._draw_shift(count, seed, step)
            images = geometry.shift_and_mirror(images, self.crop, shift, mirrored)
        if self.color:
            factors = draw_factors(count, self.color, seed, step)
            images = adjust_color(images, to_device(factors, images.device))
        if self.erase:
            boxes = draw_rectangles(count, height, width, self.erase, seed, step)
            images = fill_rectangles(images, to_device(boxes, images.device))
        return images

    def _draw_shift(self, count: int, seed: int, step: int) -> tuple[Tensor, Tensor]:
        """(shift, mirrored: 0 or 1), both int64 2 x B: of the rows, of the columns."""
        draws = generator(seed, "augment", step)
        shift = torch.randint(-self.crop, self.crop + 1, (2, count), generator=draws)
        mirrored = torch.zeros((2, count), dtype=torch.int64)
        if self.flip:
            mirrored[1] = torch.randint(0, 2, (count,), generator=draws)
        if self.vertical_flip:
            draws = generator(seed, "augment.vertical_flip", step)
            mirrored[0] = torch.randint(0, 2, (count,), generator=draws)
        return shift, mirrored

    def draw_matrices(self, count: int, height: int, width: int, seed: int, step: int) -> Tensor:
        """Crop, resized crop, flips and rotation as matrices for `resample`."""
        shift, mirrored = self._draw_shift(count, seed, step)
        size, centre = geometry.draw_boxes(count, height, width, self.scale, seed, step)
        centre = centre + 2 * shift / torch.tensor([[height], [width]])
        draws = generator(seed, "augment.rotation", step)
        angle = (uniform(draws, (count,)) * 2 - 1) * self.rotation
        return geometry.affine_matrices(size, centre, mirrored.bool(), angle, height / width)


def draw_factors(count: int, color: float, seed: int, step: int) -> Tensor:
    """Brightness, contrast and saturation: float32 3 x B, uniform in [1 - color, 1 + color]."""
    draws = generator(seed, "augment.color", step)
    return (1 + (uniform(draws, (3, count)) * 2 - 1) * color).float()


def adjust_color(images: Tensor, factors: Tensor) -> Tensor:
    """Brightness, contrast about the mean grey of the image and, for 3 channels, saturation
    against the grey image, in this order and clamped each time, as torchvision's adjust_...
    do it. `images` B x H x W x C in 0..255, `factors` 3 x B; float32 of the same shape."""
    brightness, contrast, saturation = factors[:, :, None, None, None]
    images = (images.float() * brightness).clamp(0, 255)
    mean = _grey(images).mean(dim=(1, 2, 3), keepdim=True)
    images = (images * contrast + mean * (1 - contrast)).clamp(0, 255)
    if images.shape[3] == 3:
        images = images * saturation + _grey(images) * (1 - saturation)
    return images.clamp(0, 255)


def _grey(images: Tensor) -> Tensor:
    """B x H x W x 1; one channel is grey already."""
    if images.shape[3] != 3:
        return images
    red, green, blue = images.split(1, dim=3)
    return red * GREY[0] + green * GREY[1] + blue * GREY[2]


def draw_rectangles(
    count: int, height: int, width: int, probability: float, seed: int, step: int
) -> Tensor:
    """int64 4 x B: top, bottom, left, right of what is erased; an empty rectangle where nothing
    is. Sizes and the ten tries as in torchvision's RandomErasing, in whole pixels."""
    draws = generator(seed, "augment.erase", step)
    erased = uniform(draws, (count,)) < probability
    low, high = ERASE_AREA
    area = (low + (high - low) * uniform(draws, (TRIES, count))) * height * width
    ratio = log_uniform(draws, ERASE_RATIO, (TRIES, count))
    sizes = torch.stack([(area * ratio).sqrt(), (area / ratio).sqrt()]).round().long()
    sides = torch.tensor([[height], [width]])
    fits = (sizes < sides[:, :, None]).all(0)
    size = torch.where(erased & fits.any(0), first_that_fits(sizes, fits), 0)
    start = (uniform(draws, (2, count)) * (sides - size + 1)).long()
    return torch.stack([start[0], start[0] + size[0], start[1], start[1] + size[1]])


def fill_rectangles(images: Tensor, rectangles: Tensor) -> Tensor:
    """`images` B x H x W x C, `rectangles` (int64 4 x B) in each image's mean colour; float32."""
    images = images.float()
    inside = geometry.rectangle_mask(rectangles, images.shape[1], images.shape[2])
    return torch.where(inside, images.mean(dim=(1, 2), keepdim=True), images)


# The interface of a kind, see src/base/kinds.py.
augmentation = Augmentation.from_params
mix = Mix.from_params
