"""Sources that need no files: scikit-learn's digits, and drawn shapes."""

import importlib.util
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from src.images.decode import Upright
from src.images.packing import Pixels
from src.images.sources.shapes import CLASS_NAMES, draw_shape
from src.preparation.sources.base import Item, Source


def digits(params: Mapping[str, Any]) -> Source:
    """scikit-learn's handwritten digits: 1,797 images of 8 x 8 pixels, grey levels 0..16."""
    # The file itself, as load_digits reads it: to import scikit-learn takes 1.6 s of CPU.
    spec = importlib.util.find_spec("sklearn")
    assert spec is not None
    assert spec.origin is not None
    table = np.loadtxt(Path(spec.origin).parent / "datasets/data/digits.csv.gz", delimiter=",")
    images = (table[:, :64].reshape(-1, 8, 8) * (255 / 16)).round().astype("uint8")
    items = (
        Item(f"digits/{index:04d}", int(row[64]), Pixels(images[index]))
        for index, row in enumerate(table)
    )
    return Source([str(digit) for digit in range(10)], items, len(images), in_memory=True)


def synthetic(params: Mapping[str, Any]) -> Source:
    """Coloured shapes, drawn from their class and number alone when they are read."""
    count, size = params["prepare.synthetic_classes"], params["prepare.size"]
    per_class = params["prepare.synthetic_pictures"]
    items = (
        Item(f"{CLASS_NAMES[label]}/{number:05d}", label, partial(_shape, label, number, size))
        for label in range(count)
        for number in range(per_class)
    )
    return Source(list(CLASS_NAMES[:count]), items, count * per_class)


def _shape(label: int, number: int, size: int) -> tuple[bytes, Upright]:
    image = draw_shape(label, number, size)
    return image.tobytes(), Upright.of(image)
