"""What `verify` refuses: a commit whose files are not those of its dvc.lock."""

import shutil
from pathlib import Path

import pytest
import yaml

from src.experiments.verify import committed
from src.plumbing import dvc_files, identity, params
from src.plumbing.errors import InputError
from tests.conftest import working_in
from tests.experiments.stored_results import lock_of_stages


@pytest.fixture
def locked(copied: Path) -> tuple[Path, str]:
    """A project whose stages have run, and its dvc.lock."""
    with working_in(copied):
        return copied, lock_of_stages()


def test_sources_that_are_not_those_of_the_lock_are_named(locked: tuple[Path, str]) -> None:
    folder, lock = locked
    assert committed.changed_sources(lock, folder) == []
    (folder / "data/prepared/meta.json").write_text("{}")  # made by a stage: no source
    assert committed.changed_sources(lock, folder) == []
    path = folder / "src/train.py"
    path.write_text(path.read_text() + "# a comment\n")
    assert committed.changed_sources(lock, folder) == ["train: src/train.py has changed"]


def test_a_commit_with_other_keys_is_compared_too(locked: tuple[Path, str]) -> None:
    """Params by their text: what this code's schema says of them does not matter."""
    folder, lock = locked
    path = folder / "params.yaml"
    path.write_text(path.read_text() + "a_key_of_other_code: 1\n")
    assert committed.changed_sources(lock, folder) == []
    text = path.read_text()
    path.write_text(text.replace("\nlr: 0.001 ", "\nlr: 1e-3 "))  # the same number
    assert path.read_text() != text
    assert committed.changed_sources(lock, folder) == []
    path.write_text(text.replace("\nlr: 0.001 ", "\nlr: 0.002 "))
    assert "train: lr is 0.002, was 0.001" in committed.changed_sources(lock, folder)
    path.write_text(text.replace("\nlr: 0.001 ", "\nrate: 0.001 "))
    assert "train: lr is missing" in committed.changed_sources(lock, folder)


def test_a_project_cut_down_to_fewer_stages_is_compared_too(locked: tuple[Path, str]) -> None:
    folder, lock = locked
    for name in ("dvc.yaml", "dvc.lock"):
        text = lock if name == "dvc.lock" else (folder / name).read_text()
        content = yaml.safe_load(text)
        del content["stages"]["subset"]
        (folder / name).write_text(yaml.safe_dump(content))
    fewer = (folder / "dvc.lock").read_text()
    assert committed.changed_sources(fewer, folder) == []
    assert committed.changed_sources(lock, folder) == []  # DVC may keep an entry that is gone
    (folder / "dvc.yaml").write_text("stages: [")
    with pytest.raises(InputError, match=r"dvc\.yaml: no readable stages"):
        committed.changed_sources(fewer, folder)


@pytest.fixture
def checkout(copied: Path) -> tuple[Path, str]:
    """As a fresh clone: outputs in git, one a folder, none from the cache; and its dvc.lock."""
    (copied / "results/evaluate/tables").mkdir()
    (copied / "results/evaluate/tables/a.csv").write_text("a\n")
    content = yaml.safe_load((copied / "dvc.yaml").read_text())
    tables = {"results/evaluate/tables": {"cache": False}}
    content["stages"]["evaluate"]["outs"].append(tables)
    (copied / "dvc.yaml").write_text(yaml.safe_dump(content))
    with working_in(copied):
        lock = lock_of_stages()
        for name in dvc_files.STAGES:
            entry = dvc_files.stage_entry(name, params.load())
            for path in map(Path, set(entry.outs) - set(entry.uncached)):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
    return copied, lock


@pytest.mark.parametrize(
    ("path", "stage"),
    [
        (identity.METRICS, "evaluate"),
        ("results/evaluate/per_class.csv", "evaluate"),
        ("results/evaluate/tables/a.csv", "evaluate"),
        ("results/train/history.csv", "train"),
        ("results/overfit_check/verdict.json", "overfit-check"),
    ],
)
def test_outputs_in_git_are_those_of_the_lock(
    checkout: tuple[Path, str], path: str, stage: str
) -> None:
    folder, lock = checkout
    assert committed.changed_outputs(lock, folder) == []
    named = path.removesuffix("/a.csv")
    (folder / path).write_text("edited\n")
    assert committed.changed_outputs(lock, folder) == [f"{named} is not what {stage} wrote"]
    shutil.rmtree(folder / named) if named != path else (folder / path).unlink()
    assert committed.changed_outputs(lock, folder) == [f"{named} is not in git"]
