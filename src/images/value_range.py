"""The values of an image as 8 bits: which value becomes white, and what that does to a data set.

`prepare.value_range` is that value. With `auto` the type of the values decides, which is right for
what uses its type to the full; `Ranges` tells of what does not.
"""

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from PIL import Image

from src.base.words import counted
from src.images.decode import Upright
from src.images.model import AUTO
from src.preparation.sources.base import BadSample

KEY = "prepare.value_range"
BANDS = ("L", "RGB")
BYTES, WORDS = "8 bits", "16 bits"
HALF = 127  # of 255: a data set that is no brighter uses at most half of the grey levels


@dataclass(frozen=True)
class Values:
    """What the values of an image were: their `kind` (8 bits, 16 bits, 32 bits, floats), the `low`
    and `high`est, and which became `white`; None where each image has its own black and white."""

    kind: str
    low: float
    high: float
    white: float | None


def eight_bits(found: Upright, value_range: float | str) -> tuple[Image.Image, Values]:
    """`found.image` in mode L or RGB with 0..255, and what its values were. BadSample where they
    are no numbers, or lost what `value_range` asks for."""
    image = found.image
    if image.mode in BANDS:
        return _of_bytes(found, value_range)
    values = np.asarray(image)
    is_words = values.dtype.itemsize == 2 and values.dtype.kind == "u"
    kind = WORDS if is_words else "floats" if values.dtype.kind == "f" else "32 bits"
    if not np.isfinite(values).all():
        raise BadSample("some of its pixels are no numbers", "save it with numbers alone")
    low, high = float(values.min()), float(values.max())
    if value_range != AUTO:
        return Image.fromarray(_scaled(values, 0.0, float(value_range))), Values(
            kind, low, high, float(value_range)
        )
    if is_words:
        scaled = ((values.astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8)
        return Image.fromarray(scaled), Values(kind, low, high, 65535.0)
    tops = (1.0, 255.0, 65535.0) if kind == "floats" else (255.0, 65535.0)
    white = next((top for top in tops if low >= 0 and high <= top), None)
    ends = (low, high) if white is None else (0.0, white)
    return Image.fromarray(_scaled(values, *ends)), Values(kind, low, high, white)


def _scaled(values: np.ndarray, black: float, white: float) -> np.ndarray:
    """`values` as uint8, `black` as 0 and `white` as 255; what lies beyond is cut off."""
    shares = (values.astype(np.float64) - black) / (white - black or 1.0)
    return np.floor(shares.clip(0, 1) * 255 + 0.5).astype(np.uint8)


def _of_bytes(found: Upright, value_range: float | str) -> tuple[Image.Image, Values]:
    """An image of 8 bits, whose white is at most 255: so 4095 is for the others in a data set."""
    image, kind = found.image, f"16 bits, as {BYTES}" if found.narrowed else BYTES
    white = 255.0 if value_range == AUTO else min(255.0, float(value_range))
    if found.narrowed and value_range != AUTO:
        if float(value_range) < 65535:
            reason = "its colours have 16 bits, of which 8 are read"
            raise BadSample(reason, f"save it with 8 bits a channel, or set {KEY}={AUTO}")
    elif white < 255:
        table = _scaled(np.arange(256), 0.0, white).tolist()
        low, high = _extremes(image)
        return image.point(table * len(image.getbands())), Values(kind, low, high, white)
    return image, Values(kind, 0.0, 255.0, white)


def _extremes(image: Image.Image) -> tuple[float, float]:
    """The lowest and the highest value of all channels."""
    values = np.array(image.getextrema())
    return float(values.min()), float(values.max())


def seen(values: Values, image: Image.Image, brightest: int) -> Values:
    """`values` of an image that is packed no brighter than `brightest`: of bytes, which are mostly
    bright, the highest is looked for only where it matters."""
    if not values.kind.endswith(BYTES) or values.white != 255 or brightest > HALF:
        return values
    return replace(values, high=_extremes(image)[1])


@dataclass
class _Group:
    """Images of one kind and white: how many, their lowest and highest value, and how many hold
    values beyond 0 and white."""

    count: int = 0
    low: float = math.inf
    high: float = -math.inf
    cut: int = 0


class Ranges:
    """What the values of a data set's images were, and what a person should know of that."""

    def __init__(self, value_range: float | str) -> None:
        self.value_range = value_range
        self._groups: dict[tuple[str, float | None], _Group] = {}

    def add(self, values: Values) -> None:
        """Count an image."""
        group = self._groups.setdefault((values.kind, values.white), _Group())
        group.count += 1
        group.low, group.high = min(group.low, values.low), max(group.high, values.high)
        group.cut += values.white is not None and (values.low < 0 or values.high > values.white)

    def _sorted(self) -> list[tuple[str, float | None, _Group]]:
        order = sorted(self._groups.items(), key=lambda item: (item[0][0], item[0][1] or 0))
        return [(kind, white, group) for (kind, white), group in order]

    def table(self) -> list[dict[str, Any]]:
        """For quality.json: an entry for each kind and white."""
        return [
            {
                "values": kind,
                "white": white,
                "pictures": g.count,
                "lowest": g.low,
                "highest": g.high,
            }
            for kind, white, g in self._sorted()
        ]

    def remarks(self) -> list[str]:
        """A line for each thing that makes images dark, flat or not comparable."""
        found = [
            line
            for kind, white, group in self._sorted()
            if (line := _remark(kind, white, group, self.value_range))
        ]
        whites: dict[float | None, list[str]] = {}
        for kind, white, g in self._sorted():
            whites.setdefault(white, []).append(f"{g.count} of {kind}")
        if self.value_range == AUTO and len(whites) > 1:
            parts = [f"{' and '.join(kinds)} ({_named(white)})" for white, kinds in whites.items()]
            found.append(
                f"the values of images have different ranges: {', '.join(parts)}: unless each kind "
                f"uses its own to the full, set {KEY} to the value that is white in those of more "
                "than 8 bits"
            )
        return found


def _named(white: float | None) -> str:
    return f"white: {'their own highest' if white is None else f'{white:g}'}"


def _remark(kind: str, white: float | None, group: _Group, value_range: float | str) -> str:
    """What is wrong with the range of these images; empty if nothing is."""
    images = counted(group.count, "image")
    if white is None:
        return (
            f"{images} of {kind} with values from {group.low:g} to {group.high:g}: each becomes 8 "
            f"bits by its own lowest and highest, so brightness says nothing from one to the next: "
            f"set {KEY} to the value that is white, where black is 0"
        )
    if group.cut:
        return (
            f"{counted(group.cut, 'image')} of {kind} with values beyond 0 and {white:g}, {KEY}: "
            f"they are cut off there (lowest {group.low:g}, highest {group.high:g})"
        )
    # What the user set is for images of more bits than these.
    is_set_for_others = value_range != AUTO and white != float(value_range)
    if group.high > white / 2 or not group.high or is_set_for_others:
        return ""
    brightest = math.floor(255 * group.high / white + 0.5)
    fact = (
        f"{images} of {kind} with no value above {group.high:g}, so that the brightest becomes "
        f"{brightest} of 255"
    )
    if kind.startswith(WORDS) and kind != WORDS:
        return f"{fact}: Pillow reads the upper 8 of 16 bits of colours: save them with 8 bits"
    return f"{fact}: if that is their full range, set {KEY}={_full_range(group.high, kind)}"


def _full_range(high: float, kind: str) -> str:
    """What a person would set for values up to `high`: all bits of whole numbers, else about it."""
    if kind != "floats":
        return str(2 ** math.ceil(math.log2(high + 1)) - 1)
    step = 10.0 ** (math.floor(math.log10(high)) - 1)
    return f"{math.ceil(high / step) * step:.6g}"
