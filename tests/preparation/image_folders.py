import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from src.data.packed import PackedSplit
from tests.conftest import packed, set_params


def write_images(root: Path, counts: dict[str, int], size: tuple[int, int] = (20, 14)) -> Path:
    """`counts[class]` different PNG images per class folder of `root`, which is returned."""
    rng = np.random.default_rng(0)
    for name, count in counts.items():
        (root / name).mkdir(parents=True)
        for number in range(count):
            pixels = rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / name / f"{number:03d}.png")
    return root


def write_splits(root: Path, splits: Sequence[str], count: int) -> Path:
    """`count` images of a cat and of a dog in each split folder of `root`, all different."""
    for number, split in enumerate(splits):
        write_images(root / split, {"cat": count, "dog": count}, size=(10, 10 + number))
    return root


def prepare_folder(project: Path, images: Path, **values: object) -> dict[str, PackedSplit]:
    set_params(project, source="folder", path=images, **values)
    return packed(project)


def report(project: Path) -> dict[str, Any]:
    return dict(json.loads((project / "data/prepared/report.json").read_text()))


def read_csv(path: Path) -> list[dict[str, str]]:
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def by_path(splits: dict[str, PackedSplit]) -> dict[str, str]:
    return {path: split for split, data in splits.items() for path in data.paths}
