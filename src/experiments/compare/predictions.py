"""The stored predictions of a result, from DVC's cache by their md5, without a checkout."""

import csv
from pathlib import Path

import numpy as np

from src.experiments import stored
from src.experiments.stored import Result
from src.plumbing.errors import InputError

FILE = "results/evaluate/predictions.csv"


def correct(result: Result, split: str, name: str, root: Path) -> tuple[list[str], np.ndarray]:
    """The labels of the images of a split, and whether each was classified correctly (bool N), in
    the order of the data set. InputError if the predictions are not here."""
    with open(_find(result, name, root), encoding="utf-8", newline="") as file:
        rows = csv.reader(file)
        if next(rows, [])[:4] != ["split", "index", "label", "prediction"]:
            raise InputError(f"{name}: {FILE} has other columns than this code writes")
        pairs = [(row[2], row[3]) for row in rows if row[0] == split]
    if not pairs:
        raise InputError(f"{name}: {FILE} has no predictions on {split}")
    hits = np.array([label == prediction for label, prediction in pairs])
    return [label for label, _ in pairs], hits


def _find(result: Result, name: str, root: Path) -> Path:
    md5 = result.stages["evaluate"]["outs"].get(FILE)
    if not md5:
        raise InputError(f"{name} has no predictions: its dvc.lock names no {FILE}")
    if path := stored.in_cache(md5, root):
        return path
    here = "`dvc exp apply` (of a commit: `git checkout`) and " if result.rev else ""
    raise InputError(
        f"{name} has no predictions here: {FILE} is not in DVC's cache; `dvc fetch --all-commits` "
        f"brings it from the remote, {here}`dvc repro` makes it again"
    )
