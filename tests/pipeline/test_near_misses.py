"""What people give to DVC that is nearly right: each ends in words that say what is wrong."""

from pathlib import Path

import pytest

from src.base.imports import ROOT
from tests.conftest import python
from tests.pipeline.clone import new_clone, run

pytestmark = pytest.mark.slow(seconds=30)

PAGE = ROOT / "docs/how-to/run-experiments.md"


@pytest.fixture
def fresh(tmp_path: Path) -> Path:
    """A repository in which no stage has run."""
    return new_clone(tmp_path / "project", tracking="false")


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ("+unknown=1", "params.yaml: unknown key unknown"),
        ("+prepare.unknown=1", "params.yaml: unknown key prepare.unknown"),
        ("+epoch=5", "params.yaml: unknown key epoch, did you mean epochs?"),
    ],
)
def test_a_key_that_was_added_is_one_line_of_the_stage_that_runs(
    fresh: Path, given: str, line: str
) -> None:
    """The example, and relatives: in a section, and a key that is nearly another."""
    printed = run(fresh, "dvc", "exp", "run", "-S", given, code=255).splitlines()
    assert [text.startswith(line) for text in printed].count(True) == 1
    assert any("exited with 2" in text for text in printed)
    ended = python(fresh, "-m", "src.prepare")
    assert (ended.returncode, ended.stdout, ended.stderr.count("\n")) == (2, "", 1)
    assert ended.stderr.startswith(line)
    assert "`-S +key=1` adds a key to params.yaml that no stage reads" in PAGE.read_text()


def test_a_stage_is_frozen_as_the_page_says(fresh: Path) -> None:
    """DVC itself does not write into a stage with a param in its paths."""
    words = "cannot dump a parametrized stage"
    assert words in PAGE.read_text()
    assert words in run(fresh, "dvc", "freeze", "prepare", code=1)
    dry = ("dvc", "repro", "--dry", "--single-item", "prepare")
    assert "Running stage 'prepare'" in run(fresh, *dry)
    pipeline = fresh / "dvc.yaml"
    text = pipeline.read_text().replace("  prepare:\n", "  prepare:\n    frozen: true\n")
    pipeline.write_text(text)
    assert "Running stage 'prepare'" not in run(fresh, *dry)


def test_two_experiments_that_wait_under_one_name_are_told(fresh: Path) -> None:
    for lr in ("0.002", "0.003"):
        run(fresh, "dvc", "exp", "run", "--queue", "--name", "same", "-S", f"lr={lr}")
    printed = python(fresh, "-m", "src.table").stdout
    assert "same: 2 are called so, and DVC keeps the first result alone" in printed
    assert "DVC keeps the result of" in PAGE.read_text()
