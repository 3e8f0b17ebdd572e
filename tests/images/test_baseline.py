"""What the baseline gets to see of an image."""

from pathlib import Path

import numpy as np

from src.data.packed import PackedSplit
from src.images.baseline import features


def test_pixels_are_averaged_over_blocks(finished: tuple[Path, object]) -> None:
    data = PackedSplit(finished[0] / "data/prepared", "val")
    rows = data.rows(range(3))
    assert np.allclose(features(rows), rows.reshape(3, -1) / 255)  # 16 px: nothing to do
