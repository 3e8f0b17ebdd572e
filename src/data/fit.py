"""A picture of any size and mode into the square uint8 array that the packed data set holds."""

import numpy as np
from PIL import Image, ImageOps

from src.errors import InputError

INTERPOLATION = "bilinear"  # Pillow's, which averages over the area when it reduces


def fit_picture(picture: Image.Image, size: int, channels: int, fit: str, name: str) -> np.ndarray:
    """`picture` as uint8 array, `size` x `size` x `channels`.

    Turned upright by its EXIF tag, transparency put on white; `fit`: `crop` keeps the middle
    square, `pad` adds black, `squash` ignores the aspect ratio. InputError for pictures of more
    than 8 bits per channel, which Pillow's conversion would clip to white or black.
    """
    picture = ImageOps.exif_transpose(picture)
    if picture.mode.startswith("I") or picture.mode == "F":
        raise InputError(f"{name} has more than 8 bits per channel: convert it to 8 bits")
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        ground = Image.new("RGBA", picture.size, "white")
        picture = Image.alpha_composite(ground, picture)
    picture = picture.convert("L" if channels == 1 else "RGB")
    target, method = (size, size), Image.Resampling.BILINEAR
    if fit == "crop":
        picture = ImageOps.fit(picture, target, method)
    elif fit == "pad":
        picture = ImageOps.pad(picture, target, method)
    else:
        picture = picture.resize(target, method)
    return np.asarray(picture, dtype=np.uint8).reshape(size, size, channels)
