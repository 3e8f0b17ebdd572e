from pathlib import Path

import numpy as np
import pytest

from src.images.sources.shapes import CLASS_NAMES, draw_shape
from tests.conftest import packed, set_params


def test_shapes_are_fixed_and_differ() -> None:
    assert len(set(CLASS_NAMES)) == 48
    images = {label: np.asarray(draw_shape(label, 0, 24)) for label in range(48)}
    assert np.array_equal(images[5], np.asarray(draw_shape(5, 0, 24)))
    assert not np.array_equal(images[5], np.asarray(draw_shape(5, 1, 24)))
    assert len({image.tobytes() for image in images.values()}) == 48


@pytest.mark.parametrize(("classes", "images"), [(2, 60), (5, 60), (3, 40)])
def test_synthetic_images(project: Path, classes: int, images: int) -> None:
    set_params(project, synthetic_classes=classes, synthetic_pictures=images)
    splits = packed(project)
    labels = np.concatenate([data.labels for data in splits.values()])
    assert np.bincount(labels).tolist() == [images] * classes
