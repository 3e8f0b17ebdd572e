"""Each recipe gives the same bits again."""

import sys
from pathlib import Path

import pytest
import timm

from src.base.imports import ROOT
from src.model.nets.weights_file import write_weights
from tests.conftest import SMALL, set_params
from tests.pipeline.clone import commit, lock, new_clone, restore, run

pytestmark = pytest.mark.slow


RECIPES = sorted(
    path.stem for path in (ROOT / "recipes").glob("*.yaml") if path.stem.startswith("digits")
)
# What runs on a CPU, too, and belongs to no recipe.
BESIDE = {
    "digits_compiled": ["prepare.interpolation=nearest", "evaluate.refresh_batchnorm=test"],
    "digits_frozen": ["weights=data/weights/start.safetensors"],
    "digits_half": ["prepare.interpolation=lanczos", "prepare.fit=pad"],
}


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone as it was committed, but for the size of the net and of the data to train on."""
    folder = new_clone(
        tmp_path_factory.mktemp("recipes") / "project",
        **{key: "digits" if key == "source" else value for key, value in SMALL.items()},
    )
    set_params(folder, channels=1, train_on="subset", size=32, on_fail="report", tracking="false")
    commit(folder, "digits")
    net = timm.create_model(str(SMALL["model"]), num_classes=7)  # another head, as weights have it
    about = {"architecture": SMALL["model"], "interpolation": "bilinear"}
    write_weights(folder / "data/weights/start.safetensors", net.state_dict(), about)
    return folder


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_gives_the_same_lock_again(digits: Path, recipe: str) -> None:
    """Together the recipes use every switch that runs on the CPU."""
    beside = BESIDE.get(recipe, [])
    words = run(digits, sys.executable, "-m", "src.recipe", recipe, *beside).split()
    run(digits, "dvc", "exp", "run", *words)
    before = lock(digits)
    run(digits, "dvc", "repro", "--force")
    assert lock(digits) == before
    restore(digits)
