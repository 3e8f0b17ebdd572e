"""A project with own parts in src/yours and params.yaml alone, from prepare to a served model."""

import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from src.base.imports import ROOT
from tests.conftest import set_params
from tests.pipeline.clone import commit, environment, lock, new_clone, restore, run, runs

OWN = Path(__file__).parent / "own"
PARTS = ("params", "net", "loss", "augment", "metrics", "source")
KEYS = """yours:                    # what we vary of our own
  width: 16               # integer 4..256: channels of own_net
  confidence_cost: 0.1    # number in [0, 1]: what own_loss charges for certainty
  turn: 10                # number >= 0, degrees: how far own_augment turns an image
  colours: 3              # integer 2..3: classes of own_source
"""
CHOSEN = {"model": "own", "loss": "own", "augment_own": "true", "best_by": "val/top_2"}
# Tests that look at src/yours, params.yaml, dvc.yaml or the docs of the project they stand in.
TESTS = ["yours", "test_layers.py", "plumbing/test_deps.py", "plumbing/test_recipe.py"]
TESTS += ["plumbing/test_params.py", "plumbing/test_guards.py", "model/test_saved.py"]
# A program that knows the served model alone.
SERVED = """
import base64, json, sys
import mlflow, pandas
model = mlflow.pyfunc.load_model(sys.argv[1])
image = base64.b64encode(open(sys.argv[2], "rb").read()).decode()
print(model.predict(pandas.DataFrame({"image": [image]})).to_json(orient="records"))
"""

pytestmark = pytest.mark.slow(seconds=250)


def make_own(folder: Path) -> None:
    for part in PARTS:
        shutil.copy(OWN / f"{part}.py", folder / "src/yours")
    path = folder / "params.yaml"
    path.write_text(path.read_text().partition("yours:")[0] + KEYS)
    set_params(folder, **{"prepare.source": "own"}, **CHOSEN)


def test_own_parts_work_like_built_in_ones(tmp_path: Path) -> None:
    folder = new_clone(tmp_path / "project")
    make_own(folder)
    assert run(folder, "python", "-m", "src.deps").startswith("dvc.yaml: written\n")
    run(folder, "dvc", "repro")
    commit(folder, "own parts")
    for split in ("val", "test"):
        found = json.loads((folder / "results/evaluate/metrics.json").read_text())[split]
        assert found["top_2_low"] <= found["top_2"] <= found["top_2_high"]
        assert "balanced_high" in found
        assert "balanced_accuracy" not in found
    _, history = csv_of(folder / "results/train/history.csv")
    assert all(0 <= float(row["val_top_2"]) <= 1 for row in history)
    [logged] = runs(folder).values()
    assert {"val/top_2", "val/balanced"} < set(logged)
    assert json.loads((folder / "models/model.json").read_text())["own_params"]["yours.width"] == 16

    answers_agree(folder, tmp_path / "photo.png")
    a_value_of_an_own_key_runs_what_reads_it(folder)
    all_tests_pass(folder)


def answers_agree(folder: Path, photo: Path) -> None:
    """`src.predict`, and the model that MLflow keeps, loaded far from here."""
    draws = np.random.default_rng(7).integers(0, 255, (30, 40, 3), dtype=np.uint8)
    Image.fromarray(draws).save(photo)
    line = run(folder, "python", "-m", "src.predict", "--json", str(photo))
    predicted = json.loads(line)["probabilities"]
    [address] = (folder / "mlartifacts").glob("**/MLmodel")
    served = subprocess.run(
        [sys.executable, "-c", SERVED, str(address.parent), str(photo)],
        cwd=photo.parent, env=environment(), capture_output=True, text=True, check=True,
    )  # fmt: skip
    [answer] = json.loads(served.stdout)
    assert answer["probabilities"] == pytest.approx(predicted, abs=1e-6)


def a_value_of_an_own_key_runs_what_reads_it(folder: Path) -> None:
    before = lock(folder)
    told = run(folder, "dvc", "exp", "run", "-S", "yours.width=24", "-S", "epochs=1")
    assert "'prepare' didn't change" in told
    assert "Running stage 'train'" in told
    assert lock(folder) != before
    assert json.loads((folder / "models/model.json").read_text())["own_params"]["yours.width"] == 24
    restore(folder)


def all_tests_pass(folder: Path) -> None:
    """The template's tests, whatever stands in src/yours."""
    shutil.copytree(ROOT / "tests", folder / "tests", ignore=shutil.ignore_patterns("__pycache__"))
    wanted = [f"tests/{name}" for name in TESTS]
    run(folder, sys.executable, "-m", "pytest", "-q", "-n", "0", *wanted)


def csv_of(path: Path) -> tuple[list[str], list[dict[str, str]]]:
    with open(path, encoding="utf-8", newline="") as file:
        rows = csv.DictReader(file)
        return list(rows.fieldnames or []), list(rows)
