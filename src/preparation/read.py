"""Items of a source into packed pictures."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from PIL import Image

from src.images.decode import BadPicture
from src.images.fit import fit_picture
from src.images.near_duplicates import perceptual_hash
from src.preparation.sources.base import Item

# Standard deviation in grey levels of 255 below which a picture shows nothing: that of noise. The
# plainest of digits, Fashion-MNIST, 160 photos and the synthetic shapes has 19. (choice)
FLAT = 2.0
CHUNK = 64  # pictures per task at most, so that small ones cost more than their way (choice)
CHUNK_BYTES = 2 * 2**20  # of packed pixels per task at most, so that memory has a bound (choice)


@dataclass(frozen=True)
class Packed:
    """A picture that was read: sha256 (hex) of its content, `pixels` (uint8 H x W x C), sums of
    them and of their squares per channel, whether it shows nothing (`is_flat`), the perceptual
    `hash` (0 if it shows nothing: such pictures are all alike), and what it was: width and height
    in pixels (upright), mode, whether it was turned, number of frames."""

    sha256: str
    pixels: np.ndarray
    sums: list[int]
    squares: list[int]
    is_flat: bool
    hash: int
    width: int
    height: int
    mode: str
    turned: bool
    frames: int


@dataclass(frozen=True)
class Rejected:
    """A picture that cannot be used; see BadPicture."""

    reason: str
    remedy: str
    detail: str


Result = Packed | Rejected


@dataclass(frozen=True)
class Reader:
    """Reads items and fits them; the settings are those of `prepare:`."""

    size: int
    channels: int
    fit: str
    interpolation: str
    crop_ratio: float

    @property
    def chunk(self) -> int:
        """Pictures per task."""
        return max(1, min(CHUNK, CHUNK_BYTES // (self.size**2 * self.channels)))

    def __call__(self, items: Iterable[Item]) -> list[Result]:
        return [self._read(item) for item in items]

    def _read(self, item: Item) -> Result:
        try:
            content, picture = item.read()
        except BadPicture as error:
            return Rejected(error.reason, error.remedy, error.detail)
        pixels = fit_picture(
            picture.image, self.size, self.channels, self.fit, self.interpolation, self.crop_ratio
        )
        sums, squares = _sums(pixels)
        is_flat = _variance(sums, squares, self.size**2) < FLAT**2
        return Packed(
            hashlib.sha256(content).hexdigest(),
            pixels,
            sums,
            squares,
            is_flat,
            0 if is_flat else perceptual_hash(pixels.sum(axis=2, dtype=np.float64)),
            picture.image.width,
            picture.image.height,
            picture.mode,
            picture.turned,
            picture.frames,
        )


def _sums(pixels: np.ndarray) -> tuple[list[int], list[int]]:
    """Sum and sum of squares per channel, by Pillow's histogram: at 224 px a tenth of numpy's time
    (measured)."""
    squeezed = pixels[:, :, 0] if pixels.shape[2] == 1 else pixels
    counts = np.array(Image.fromarray(squeezed).histogram()).reshape(-1, 256)
    values = np.arange(256)
    return (counts @ values).tolist(), (counts @ values**2).tolist()


def _variance(sums: list[int], squares: list[int], pixels: int) -> float:
    """That of the channel that varies most, in grey levels."""
    pairs = zip(sums, squares, strict=True)
    return max(square * pixels - total * total for total, square in pairs) / pixels**2
