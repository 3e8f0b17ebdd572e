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

NO_DATA = "data/builtin/README.md"  # what prepare.path names for these sources


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
    classes = [str(digit) for digit in range(10)]
    return Source(classes, items, len(images), in_memory=True, remarks=_remark(params))


def synthetic(params: Mapping[str, Any]) -> Source:
    """Coloured shapes, drawn from their class and number alone when they are read."""
    count, size = params["prepare.synthetic_classes"], params["prepare.size"]
    per_class = params["prepare.synthetic_pictures"]
    items = (
        Item(f"{CLASS_NAMES[label]}/{number:05d}", label, partial(_shape, label, number, size))
        for label in range(count)
        for number in range(per_class)
    )
    return Source(list(CLASS_NAMES[:count]), items, count * per_class, remarks=_remark(params))


def _remark(params: Mapping[str, Any]) -> list[str]:
    """A line if prepare.path names data of the user's, which nobody reads."""
    path, source = params["prepare.path"], params["prepare.source"]
    if path.endswith(NO_DATA):
        return []
    return [
        f"prepare.source {source} reads nothing in prepare.path ({path}): for what lies there set "
        "prepare.source"
    ]


def _shape(label: int, number: int, size: int) -> tuple[bytes, Upright]:
    image = draw_shape(label, number, size)
    return image.tobytes(), Upright.of(image)
