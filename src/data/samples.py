"""The first training pictures of each class, as one picture to look at."""

from pathlib import Path

import numpy as np

from src.data.pack import SplitWriter
from src.data.pictures import picture_grid

PER_CLASS = 10
CLASSES_SHOWN = 20


class Samples:
    """Notes where the pictures lie while they are packed; draws them afterwards."""

    def __init__(self, classes: list[str]):
        self.classes = classes[:CLASSES_SHOWN]
        self._indices: list[list[int]] = [[] for _ in self.classes]

    def add(self, split: str, label: int, index: int) -> None:
        """Picture `index` of `split` is of class `label`."""
        if split == "train" and label < len(self.classes) and len(self._indices[label]) < PER_CLASS:
            self._indices[label].append(index)

    def draw(self, folder: Path, train: SplitWriter) -> bytes:
        """PNG bytes of the grid, from the shards in `folder`."""
        white = np.full(train.shape, 255, dtype=np.uint8)
        pictures, captions = [], []
        for name, indices in zip(self.classes, self._indices, strict=True):
            blank = PER_CLASS - len(indices)
            for index in indices:
                shard, place = divmod(index, train.per_shard)
                pictures.append(np.load(folder / train.shards[shard], mmap_mode="r")[place])
            pictures += [white] * blank
            captions += [name] * len(indices) + [""] * blank
        return picture_grid(pictures, captions, PER_CLASS, "prepared: training pictures")
