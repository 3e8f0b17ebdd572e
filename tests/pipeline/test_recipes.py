"""Each recipe gives the same bits again."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import timm
from PIL import Image

from src import recipe
from src.base.imports import ROOT
from src.model.nets.weights_file import write_weights
from tests.conftest import SMALL, copy_project, set_params
from tests.pipeline.stages import run_stage
from tests.sharing import once_for_all

pytestmark = pytest.mark.slow(seconds=20)

RECIPES = sorted(
    path.stem for path in (ROOT / "recipes").glob("*.yaml") if path.stem.startswith("digits")
)
HALF = "digits_half"  # tests/checks/test_stage.py has the check in 16 bits, which takes minutes
# What runs on a CPU, too, and belongs to no recipe.
BESIDE = {
    "digits_compiled": {"interpolation": "nearest", "refresh_batchnorm": "test"},
    "digits_frozen": {"weights": "data/weights/start.safetensors"},
    # The smaller net compiles faster.
    HALF: {"interpolation": "lanczos", "fit": "pad", "model": "own"},
}
SETTINGS = {
    **SMALL, "source": "digits", "channels": 1, "size": 32, "train_on": "subset",
    "train_per_class": 8, "val_per_class": 4, "on_fail": "report",
}  # fmt: skip


@pytest.fixture
def digits(tmp_path_factory: pytest.TempPathFactory, tmp_path: Path) -> Path:
    """A project whose data are ready."""
    with once_for_all("digits", tmp_path_factory) as shared:
        folder = shared / "project"
        if not (folder / "data/subset/meta.json").exists():
            set_params(copy_project(folder), **SETTINGS)
            net = timm.create_model(str(SMALL["model"]), num_classes=7)  # as weights: another head
            about = {"architecture": SMALL["model"], "interpolation": "bilinear"}
            write_weights(folder / "data/weights/start.safetensors", net.state_dict(), about)
            for name in ("prepare", "subset"):
                assert run_stage(folder, name).code == 0
    return Path(shutil.copytree(folder, tmp_path / "project"))


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_gives_the_same_bytes_again(digits: Path, name: str) -> None:
    """Together the recipes use every switch that runs on the CPU."""
    values = {key.rpartition(".")[2]: value for key, value in recipe.read(name).items()}
    values = {**values, **BESIDE.get(name, {})}
    set_params(digits, **values)
    data = ["prepare", "subset"] if {"interpolation", "fit"} & set(values) else []
    found = []
    if name == HALF:
        verdict = digits / "results/overfit_check/verdict.json"
        verdict.parent.mkdir(parents=True)
        verdict.write_text('{"proceed": true}')
    for again in (False, True):
        # The check costs most, and learns by the functions of train.
        is_checked = again or name == HALF
        for stage in [*data, *["overfit-check"] * (not is_checked), "train", "evaluate"]:
            ended = run_stage(digits, stage)
            assert ended.code == 0, ended.printed
        found.append({path: path.read_bytes() for path in outputs(digits)})
    assert found[0] == found[1]


CIFAR = "cifar10_fast"
# For a CPU a tenth of its 2,900 steps, with small batches and a rate that fits them.
ON_A_CPU = {
    "source": "folder", "path": "pictures", "size": 32, "val_share": 0.2, "precision": "fp32",
    "batch_size": 16, "lr": 0.02, "epochs": 13,
}  # fmt: skip


def write_stripes(root: Path) -> None:
    """Ten classes of 60 images of 32 px: level or upright stripes of five widths, in any colour and
    place. Mirror images are of the same class."""
    draws = np.random.default_rng(0)
    for label in range(10):
        folder = root / f"{'level' if label % 2 else 'upright'}_{label // 2}"
        folder.mkdir(parents=True)
        along = np.mgrid[:32, :32][0 if label % 2 else 1] * 0.4 * 1.35 ** (label // 2)
        for number in range(60):
            waves = np.sin(along + draws.uniform(0, 6.3))
            image = 127 + 80 * waves[:, :, None] * draws.choice([-1, 1], 3) * draws.uniform(0.5, 1)
            image += draws.normal(0, 10, (32, 32, 3))
            Image.fromarray(image.clip(0, 255).astype(np.uint8)).save(folder / f"{number}.png")


@pytest.mark.slow(seconds=90)
def test_cifar10_fast_learns_from_class_folders(tmp_path: Path) -> None:
    project = copy_project(tmp_path / "project")
    write_stripes(project / "pictures")
    values = {key.rpartition(".")[2]: value for key, value in recipe.read(CIFAR).items()}
    set_params(project, tracking="false", progress="off", **values | ON_A_CPU)
    for stage in ("prepare", "subset", "overfit-check", "train", "evaluate"):
        ended = run_stage(project, stage)
        assert ended.code == 0, ended.printed
    with open(project / "results/train/history.csv", newline="") as file:
        history = list(csv.DictReader(file))
    losses = [float(row["train_loss"]) for row in history]
    assert losses[-1] < 0.75 * losses[0]
    found = json.loads((project / "results/evaluate/metrics.json").read_text())["test"]
    assert found["accuracy"] > 0.4  # of ten classes


def outputs(project: Path) -> list[Path]:
    """All that the stages write."""
    folders = ("data/prepared", "data/subset", "models", "results")
    return [path for folder in folders for path in (project / folder).rglob("*") if path.is_file()]
