from pathlib import Path
from types import ModuleType

import pytest

from src import clean, compare, lr_find, recipe, search, seeds, table, verify, weights, where
from tests.experiments.conftest import Call

# Each with the arguments that it cannot do without.
ARGUMENTS: dict[ModuleType, list[str]] = {
    clean: [],
    compare: ["HEAD", "other"],
    lr_find: [],
    search: [],
    seeds: ["3"],
    table: [],
    verify: [],
    weights: ["resnet10t"],
    where: [],
}


@pytest.mark.parametrize("tool", ARGUMENTS, ids=lambda tool: tool.__name__)
def test_in_a_subfolder_it_names_the_folder(
    tool: ModuleType, call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is made there would be in the wrong place."""
    (tmp_path / "src").mkdir()
    for name in ("dvc.yaml", "params.yaml"):
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path / "src")
    line = f"run this in the folder of the project: `cd {tmp_path}` first\n"
    assert call(tool.main, *ARGUMENTS[tool]) == (2, "", line)
    assert not list(Path.cwd().iterdir())


@pytest.mark.parametrize("tool", [*ARGUMENTS, recipe], ids=lambda tool: tool.__name__)
def test_help_says_what_it_is_for(tool: ModuleType, call: Call) -> None:
    code, out, err = call(tool.main, "--help")
    assert (code, err) == (0, "")
    assert out.startswith(f"usage: python -m {tool.__name__} ")
    assert len(out.split("\n\n")[1]) > 20
