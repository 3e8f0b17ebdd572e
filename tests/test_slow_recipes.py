"""Each recipe gives the same bits again."""

import sys
from pathlib import Path

import pytest

from tests.closure import ROOT
from tests.conftest import SMALL, set_params
from tests.pipeline_clone import commit, lock, new_clone, restore, run

pytestmark = pytest.mark.slow


RECIPES = sorted(
    path.stem for path in (ROOT / "recipes").glob("*.yaml") if path.stem.startswith("digits")
)


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone as it was committed, but for the size of the net and of the data to train on."""
    folder = new_clone(
        tmp_path_factory.mktemp("recipes") / "project",
        **{key: "digits" if key == "source" else value for key, value in SMALL.items()},
    )
    set_params(folder, channels=1, train_on="subset", size=32, on_fail="report", tracking="false")
    commit(folder, "digits")
    return folder


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_gives_the_same_lock_again(digits: Path, recipe: str) -> None:
    """Together the recipes use every switch that runs on the CPU."""
    words = run(digits, sys.executable, "-m", "src.recipe", recipe).split()
    run(digits, "dvc", "exp", "run", *words)
    before = lock(digits)
    run(digits, "dvc", "repro", "--force")
    assert lock(digits) == before
    restore(digits)
