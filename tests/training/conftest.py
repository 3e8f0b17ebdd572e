from pathlib import Path

import pytest

from src.data.packed import PackedSplit


@pytest.fixture(scope="module")
def splits(finished: tuple[Path, object]) -> tuple[PackedSplit, PackedSplit]:
    folder = finished[0] / "data/prepared"
    return PackedSplit(folder, "train"), PackedSplit(folder, "val")
