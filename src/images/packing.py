"""Images into packed rows, in the same way for preparation and for prediction."""

import hashlib
import io
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from src.base.words import counted
from src.images.decode import SUFFIXES, Upright, decode, is_coloured, read_content
from src.images.fit import fit_image
from src.images.model import AUTO
from src.images.near_duplicates import perceptual_hash
from src.images.value_range import Values, eight_bits, seen
from src.plumbing.errors import InputError
from src.preparation.sources.base import BadSample, Files, Item, Rejected
from src.preparation.sources.own import FILE as OWN_FILE

# Standard deviation in grey levels of 255 below which an image shows nothing: that of noise. The
# plainest of digits, Fashion-MNIST, 160 photos and the synthetic shapes has 19. (choice)
FLAT = 2.0
CHUNK = 64  # images per task at most, so that small ones cost more than their way (choice)
CHUNK_BYTES = 2 * 2**20  # of packed pixels per task at most, so that memory has a bound (choice)


@dataclass(frozen=True)
class ImageFile:
    """An image in a file."""

    path: str

    def __call__(self) -> tuple[bytes, Upright]:
        content = read_content(self.path)
        return content, decode(content)


@dataclass(frozen=True)
class ImageContent:
    """An image in a file that lies in another one: `get` returns its bytes."""

    get: Callable[[], bytes]

    def __call__(self) -> tuple[bytes, Upright]:
        content = self.get()
        return content, decode(content)


@dataclass(frozen=True)
class Pixels:
    """An image in memory: uint8, H x W (grey) or H x W x 3 or 4 (colour, and alpha)."""

    array: np.ndarray

    def __call__(self) -> tuple[bytes, Upright]:
        return self.array.tobytes(), Upright.of(Image.fromarray(self.array))


@dataclass(frozen=True)
class OwnImage:
    """An image of src/yours/source.py without a file: one of Pillow, an array (uint8, H x W or
    H x W x 1, 3 or 4), or a function that returns one of these."""

    image: Any

    def __call__(self) -> tuple[bytes, Upright]:
        try:
            image = self.image() if callable(self.image) else self.image
            if isinstance(image, Image.Image):
                image.load()
                return image.tobytes(), Upright.of(image)
        except (BadSample, MemoryError):
            raise
        except Exception as error:
            said = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
            raise BadSample(f"{OWN_FILE} cannot read it", "correct it there", said) from None
        if not isinstance(image, np.ndarray):
            got = f"a {type(image).__name__}"
        elif _is_image(image):
            return Pixels(image[:, :, 0] if image.shape[2:] == (1,) else image)()
        else:
            got = f"{image.dtype} {' x '.join(map(str, image.shape))}"
        remedy = "give a Pillow image or uint8 H x W or H x W x 1, 3 or 4"
        raise BadSample(f"{OWN_FILE} gives no image for it", remedy, got)


def _is_image(array: np.ndarray) -> bool:
    layers = array.shape[2:]
    fits = array.ndim in (2, 3) and layers in ((), (1,), (3,), (4,))
    return bool(fits and array.size and array.dtype == np.uint8)


FILES = Files(SUFFIXES, ImageFile, ImageContent)
UNSEEN_COLOUR = "in colour, which this model, made with prepare.channels=1, sees as grey"


@dataclass(frozen=True)
class Packed:
    """An image as read: sha256 (hex) of its content, `row` (uint8 H x W x C), sums of values and of
    squares per channel, `is_flat` if it shows nothing, perceptual `hash` (0 if flat: those are all
    alike); whether colour was lost; its upright width and height in pixels, mode, whether turned,
    number of frames, what its transparent parts were put on, and what its values were."""

    sha256: str
    row: np.ndarray
    sums: list[int]
    squares: list[int]
    is_flat: bool
    hash: int
    lost_colour: bool
    width: int
    height: int
    mode: str
    turned: bool
    frames: int
    ground: str
    values: Values


@dataclass(frozen=True)
class Packer:
    """Reads images and fits them; the settings are those of `prepare:`."""

    size: int
    channels: int
    fit: str
    interpolation: str
    crop_ratio: float
    value_range: float | str = AUTO

    @property
    def chunk(self) -> int:
        """Images per task."""
        return max(1, min(CHUNK, CHUNK_BYTES // (self.size**2 * self.channels)))

    @property
    def meta(self) -> dict[str, Any]:
        """What meta.json says of the rows."""
        return {**self._fit, "value_range": self.value_range}

    @property
    def _fit(self) -> dict[str, Any]:
        keys = ("size", "channels", "fit", "crop_ratio", "interpolation")
        return {key: getattr(self, key) for key in keys}

    def __str__(self) -> str:
        return f"{self.size} px, {counted(self.channels, 'channel')}"

    def __call__(self, items: Iterable[Item]) -> list[Packed | Rejected]:
        return [self._read(item) for item in items]

    def _read(self, item: Item) -> Packed | Rejected:
        try:
            content, found = item.read()
            image, values = eight_bits(found, self.value_range)
        except BadSample as error:
            return Rejected(error.reason, error.remedy, error.detail)
        row = fit_image(image, **self._fit)
        sums, squares, brightest = _sums(row)
        is_flat = _variance(sums, squares, self.size**2) < FLAT**2
        return Packed(
            hashlib.sha256(content).hexdigest(),
            row,
            sums,
            squares,
            is_flat,
            0 if is_flat else perceptual_hash(row.sum(axis=2, dtype=np.float64)),
            self.channels == 1 and is_coloured(image),
            image.width,
            image.height,
            found.mode,
            found.turned,
            found.frames,
            found.ground,
            seen(values, image, brightest),
        )


def packer(params: Mapping[str, Any]) -> Packer:
    """The packer that the keys of `prepare:` describe."""
    return Packer(
        size=params["prepare.size"],
        channels=params["prepare.channels"],
        fit=params["prepare.fit"],
        interpolation=params["prepare.interpolation"],
        crop_ratio=float(params["prepare.crop_ratio"]),  # meta.json has it, as 1.0, not as 1
        value_range=params["prepare.value_range"],
    )


def read_new(
    sample: Any,
    description: Mapping[str, Any],
    name: str,
    noticed: Counter[str] | None = None,
) -> np.ndarray:
    """A new image as the packed data set of a model would hold it: uint8 H x W x C. `sample`: the
    path of a file, its bytes, or a Pillow image in any size and mode; `description`: model.json;
    `name`: what an InputError calls an image that cannot be used; `noticed` counts what a person
    should know of."""
    channels, size, _ = description["input_size"]
    try:
        if isinstance(sample, Image.Image):
            upright = Upright.of(sample)
        else:
            content = sample if isinstance(sample, bytes) else read_content(sample)
            upright = decode(content)
        image, _ = eight_bits(upright, description.get("value_range", AUTO))
    except BadSample as error:
        raise InputError(f"{name} cannot be used: {error}") from None
    if noticed is not None and channels == 1 and is_coloured(image):
        noticed[UNSEEN_COLOUR] += 1
    return fit_image(
        image,
        size,
        channels,
        description["fit"],
        description["interpolation"],
        description.get("crop_ratio", 1.0),
    )


def example(description: Mapping[str, Any]) -> bytes:
    """A file with a grey image of the model's size: an example of what a served model takes."""
    _, height, width = description["input_size"]
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), "grey").save(buffer, "PNG")
    return buffer.getvalue()


def _sums(row: np.ndarray) -> tuple[list[int], list[int], int]:
    """Sums per channel of values and of squares, and the highest value, by Pillow's histogram: a
    tenth of numpy's time (measured at 224 px)."""
    squeezed = row[:, :, 0] if row.shape[2] == 1 else row
    counts = np.array(Image.fromarray(squeezed).histogram()).reshape(-1, 256)
    values = np.arange(256)
    brightest = int(np.flatnonzero(counts.any(axis=0))[-1])
    return (counts @ values).tolist(), (counts @ values**2).tolist(), brightest


def _variance(sums: list[int], squares: list[int], pixels: int) -> float:
    """That of the channel that varies most, in grey levels."""
    pairs = zip(sums, squares, strict=True)
    return max(square * pixels - total * total for total, square in pairs) / pixels**2
