"""A kind of sample is a package beside src/images and a line in a table, nothing else."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from src.base.imports import ROOT
from tests.conftest import set_params
from tests.pipeline.clone import commit, new_clone, run

pytestmark = pytest.mark.slow(seconds=70)

COLUMNS, ROWS, CLASSES = 6, 360, 3


def write_table(path: Path) -> np.ndarray:
    """Three clouds of points that a net of two layers tells apart; returns their centres."""
    draws = np.random.default_rng(0)
    centres = draws.normal(0, 3, (CLASSES, COLUMNS))
    lines = [",".join([*(f"x{i}" for i in range(COLUMNS)), "label"])]
    for number in range(ROWS):
        row = centres[number % CLASSES] + draws.normal(0, 1, COLUMNS)
        lines.append(",".join([*(f"{value:.4f}" for value in row), f"cloud {number % CLASSES}"]))
    path.parent.mkdir(parents=True)
    path.write_text("\n".join(lines) + "\n")
    return centres


def test_rows_of_numbers_go_through_all_five_stages(tmp_path: Path) -> None:
    folder = new_clone(tmp_path / "project")
    shutil.copytree(
        ROOT / "tests/kinds/numbers",
        folder / "src/numbers",
        ignore=shutil.ignore_patterns("__pycache__"),
    )
    table = folder / "src/base/kinds.py"
    line = "KINDS = {\n"
    assert line in table.read_text()
    table.write_text(table.read_text().replace(line, line + '    "numbers": ("number_table",),\n'))
    run(folder, "python", "-m", "src.deps")
    centres = write_table(folder / "data/raw/numbers.csv")
    set_params(
        folder,
        source="number_table",
        path="data/raw",
        model="two_layers",
        augment_crop=0,
        epochs=12,
        lr=0.01,
    )
    commit(folder, "numbers")
    printed = run(folder, "dvc", "repro")
    assert printed.count("Running stage") == 5
    assert "prepare: 3 classes" in printed
    meta = json.loads((folder / "data/prepared/meta.json").read_text())
    assert (meta["kind"], meta["shape"], meta["dtype"]) == ("numbers", [COLUMNS], "float32")
    metrics = json.loads((folder / "results/evaluate/metrics.json").read_text())
    assert metrics["test"]["accuracy"] > 0.9
    for name in ("train/batch.png", "evaluate/worst_mistakes.png"):
        assert (folder / "results" / name).read_bytes().startswith(b"\x89PNG")
    sample = folder / "data/new.row"
    sample.write_text(",".join(f"{value:.4f}" for value in centres[1]))
    predicted = json.loads(run(folder, "python", "-m", "src.predict", "--json", str(sample)))
    assert predicted["class"] == "cloud 1"
    # An edit in the kind's package runs the stages that use it, and no others.
    baseline = folder / "src/numbers/baseline.py"
    baseline.write_text(baseline.read_text() + "# a comment\n")
    printed = run(folder, "dvc", "repro")
    assert "Running stage 'evaluate'" in printed
    assert printed.count("Running stage") == 1
