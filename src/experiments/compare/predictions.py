"""The stored predictions of a result, from DVC's cache by their md5, without a checkout."""

import csv
from pathlib import Path
from typing import NamedTuple

import numpy as np

from src.data.groups import clusters
from src.data.packed import GROUP
from src.experiments import stored
from src.experiments.stored import Result
from src.plumbing.errors import InputError

FILE = "results/evaluate/predictions.csv"


class Predictions(NamedTuple):
    """On the images of a split, in the order of the data set: their `labels` (names, N), whether
    each was classified correctly (`hits`, bool N), and the `groups` to resample (int N, or None;
    see data/groups.py)."""

    labels: list[str]
    hits: np.ndarray
    groups: np.ndarray | None


def correct(result: Result, split: str, name: str, root: Path) -> Predictions:
    """The predictions of a result on a split. InputError if they are not here."""
    with open(_find(result, name, root), encoding="utf-8", newline="") as file:
        rows = csv.reader(file)
        header = next(rows, [])
        if header[:4] != ["split", "index", "label", "prediction"]:
            raise InputError(f"{name}: {FILE} has other columns than this code writes")
        mine = [row[2:5] for row in rows if row[0] == split]
    if not mine:
        raise InputError(f"{name}: {FILE} has no predictions on {split}")
    hits = np.array([label == prediction for label, prediction, *_ in mine])
    groups = clusters([row[2] for row in mine]) if header[4:5] == [GROUP] else None
    return Predictions([row[0] for row in mine], hits, groups)


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
