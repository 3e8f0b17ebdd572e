"""What every tool of this room does alike."""

from pathlib import Path
from types import ModuleType

import pytest

from src import clean, compare, lr_find, recipe, search, seeds, table, verify, weights, where
from tests.conftest import run_main

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
    tool: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """What is made there would be in the wrong place."""
    (tmp_path / "src").mkdir()
    for name in ("dvc.yaml", "params.yaml"):
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path / "src")
    line = f"run this in the folder of the project: `cd {tmp_path}` first\n"
    assert run_main(tool.main, ARGUMENTS[tool], monkeypatch, capsys) == (2, "", line)
    assert not list(Path.cwd().iterdir())


@pytest.mark.parametrize("tool", [*ARGUMENTS, recipe], ids=lambda tool: tool.__name__)
def test_help_says_what_it_is_for(
    tool: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = run_main(tool.main, ["--help"], monkeypatch, capsys)
    assert (code, err) == (0, "")
    assert out.startswith(f"usage: python -m {tool.__name__} ")
    assert len(out.split("\n\n")[1]) > 20
