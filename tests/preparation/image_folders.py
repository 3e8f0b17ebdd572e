"""Folders of images to test with."""

from pathlib import Path

import numpy as np
from PIL import Image

from src.data.packed import PackedSplit
from tests.conftest import packed, set_params


def write_images(root: Path, counts: dict[str, int], size: tuple[int, int] = (20, 14)) -> None:
    """`counts[class]` different PNG images per class folder."""
    rng = np.random.default_rng(0)
    for name, count in counts.items():
        (root / name).mkdir(parents=True)
        for number in range(count):
            pixels = rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / name / f"{number:03d}.png")


def prepare_folder(project: Path, images: Path, **values: object) -> dict[str, PackedSplit]:
    set_params(project, source="folder", path=images, **values)
    return packed(project)


def by_path(splits: dict[str, PackedSplit]) -> dict[str, str]:
    return {path: split for split, data in splits.items() for path in data.paths}
