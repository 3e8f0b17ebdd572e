"""An upright image of any size into the square uint8 array that the packed data set holds."""

import numpy as np
from PIL import Image

from src.plumbing.errors import InputError


def fit_image(
    image: Image.Image,
    size: int,
    channels: int,
    fit: str,
    interpolation: str = "bilinear",
    crop_ratio: float = 1.0,
) -> np.ndarray:
    """`image` (mode L or RGB, see decode.py) as uint8, `size` x `size` x `channels`.

    `fit`: `crop` keeps the middle square, `pad` adds black, `squash` ignores the aspect ratio.
    `interpolation`: Pillow's bilinear, bicubic, lanczos (these average over the area when they
    reduce) or nearest. `crop_ratio`, in (0, 1]: the share of the side that is kept, as if the
    middle were cut out of a square of `size` / `crop_ratio` (timm's crop_pct): `pad` loses its
    black first, `squash` cuts both sides by one share. InputError for another `fit`.
    """
    image = image.convert("L" if channels == 1 else "RGB")
    method = Image.Resampling[interpolation.upper()]
    width, height = image.size
    if fit == "crop":
        side = min(width, height) * crop_ratio
        image = image.resize((size, size), method, box=_middle(image, side, side))
    elif fit == "pad":
        image = _pad(image, size, method, max(width, height) * crop_ratio)
    elif fit == "squash":
        box = _middle(image, width * crop_ratio, height * crop_ratio)
        image = image.resize((size, size), method, box=box)
    else:
        raise InputError(f"fit must be crop, pad or squash, got {fit!r}")
    return np.asarray(image, dtype=np.uint8).reshape(size, size, channels)


def _middle(image: Image.Image, width: float, height: float) -> tuple[float, float, float, float]:
    """A box in the middle, in fractional pixels: resampling still sees the pixels around it."""
    left, top = (image.width - width) * 0.5, (image.height - height) * 0.5
    return left, top, left + width, top + height


def _pad(image: Image.Image, size: int, method: Image.Resampling, side: float) -> Image.Image:
    """The middle square of `side` source pixels as `size` x `size`, black beyond the image."""
    width, height = min(image.width, side), min(image.height, side)
    # An image that is much longer than wide keeps a line of pixels.
    target = max(1, round(width / side * size)), max(1, round(height / side * size))
    resized = image.resize(target, method, box=_middle(image, width, height))
    if target == (size, size):
        return resized
    padded = Image.new(image.mode, (size, size))
    padded.paste(resized, (round((size - target[0]) * 0.5), round((size - target[1]) * 0.5)))
    return padded
