"""What a person should look at: the mean of each column, by class."""

from pathlib import Path
from typing import Any

import numpy as np

from src.base.files import write_json
from src.preparation.report import Report

from .packing import Packed, Packer


class Quality:
    def __init__(self, classes: list[str], packer: Packer):
        self.classes = classes
        self.train: list[np.ndarray] = []
        self.by_class: dict[str, list[np.ndarray]] = {name: [] for name in classes}

    def add(self, split: str, label: int, packed: Packed) -> None:
        self.by_class[self.classes[label]].append(packed.row)
        if split == "train":
            self.train.append(packed.row)

    def meta(self) -> dict[str, Any]:
        rows = np.stack(self.train).astype(np.float64)
        return {"mean": rows.mean(axis=0).tolist(), "std": rows.std(axis=0).tolist()}

    def notes(self) -> dict[str, Any]:
        return {"columns": len(self.train[0])}

    def remarks(self) -> list[str]:
        return []

    def write(self, folder: Path, report: Report) -> None:
        means = {
            name: np.stack(rows).mean(axis=0, dtype=np.float64).tolist()
            for name, rows in self.by_class.items()
        }
        write_json(folder / "quality.json", {"rejects": report.left_out(), "means": means})
