"""Sources that need no files: scikit-learn's digits, and drawn shapes."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from src.images.decode import Picture
from src.preparation.sources.base import Item, Pixels, Source
from src.preparation.sources.shapes import CLASS_NAMES, draw_shape


def digits(params: Mapping[str, Any]) -> Source:
    """scikit-learn's handwritten digits: 1,797 pictures of 8 x 8 pixels, grey levels 0..16."""
    from sklearn.datasets import load_digits

    found = load_digits()
    pictures = (found.images * (255 / 16)).round().astype("uint8")
    items = (
        Item(f"digits/{index:04d}", int(label), Pixels(pictures[index]))
        for index, label in enumerate(found.target)
    )
    return Source([str(digit) for digit in range(10)], items, len(pictures), in_memory=True)


@dataclass(frozen=True)
class Shape:
    """A shape that is drawn when it is read."""

    label: int
    number: int
    size: int

    def __call__(self) -> tuple[bytes, Picture]:
        picture = draw_shape(self.label, self.number, self.size)
        return picture.tobytes(), Picture.of(picture)


def synthetic(params: Mapping[str, Any]) -> Source:
    """Coloured shapes, drawn from their class and number alone."""
    count, size = params["prepare.synthetic_classes"], params["prepare.size"]
    per_class = params["prepare.synthetic_pictures"]
    items = (
        Item(f"{CLASS_NAMES[label]}/{number:05d}", label, Shape(label, number, size))
        for label in range(count)
        for number in range(per_class)
    )
    return Source(list(CLASS_NAMES[:count]), items, count * per_class)
