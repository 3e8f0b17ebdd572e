"""The same bits again: elsewhere, with what no stage depends on, and under another identity."""

import ast
import json
import shutil
from pathlib import Path

import pytest

from src.base.imports import EXCLUDED, ROOT, files_of
from src.plumbing import dvc_files
from tests.conftest import set_params
from tests.pipeline.clone import fingerprint_from_lock, lock, run, runs


@pytest.mark.slow(seconds=5)
def test_a_second_repro_runs_nothing_and_fingerprints_are_those_of_the_lock(clone: Path) -> None:
    printed = run(clone, "dvc", "repro")
    assert "Running stage" not in printed
    assert run(clone, "git", "status", "--porcelain") == ""
    about = json.loads((clone / "models/model.json").read_text())
    assert fingerprint_from_lock(lock(clone), "train") == about["fingerprint"]
    assert about["fingerprint"] in runs(clone)
    checked = fingerprint_from_lock(lock(clone), "overfit-check")
    assert checked in runs(clone, "overfit-check")


@pytest.mark.slow(seconds=60)
def test_the_lock_is_the_same_in_another_clone(clone: Path, tmp_path: Path) -> None:
    """With other settings, too, of what changes no result."""
    other = tmp_path / "elsewhere"
    run(tmp_path, "git", "clone", "--quiet", str(clone), str(other))
    for folder in (clone, other):
        set_params(
            folder,
            workers=2,
            reading="workers",
            prepare_workers=2,
            checkpoint_minutes=0.0001,
            resume="any",
            progress="auto",
        )
    assert "Running stage" not in run(clone, "dvc", "repro")
    printed = run(other, "dvc", "repro")
    assert printed.count("Running stage") == 5
    run(other, "git", "diff", "HEAD", "--exit-code", "--", ".", ":!params.yaml")
    (metrics,) = runs(other).values()
    assert "zz_test/accuracy" in metrics
    assert list((other / ".cache/checkpoints").iterdir()) == []


STAND_INS = ROOT / "tests/pipeline/stand_ins"


def used_of_the_wall() -> set[tuple[str, str, str]]:
    """(module, name, file): what the code of the stages takes from src/plumbing and src/tracking.
    Of a module that is imported as a whole each attribute counts."""
    used = set()
    for path in files_of(*dvc_files.modules(ROOT).values()):
        code = ast.parse((ROOT / path).read_text())
        modules = {}
        for node in ast.walk(code):
            if isinstance(node, ast.ImportFrom) and f"{node.module}/".replace(".", "/").startswith(
                EXCLUDED
            ):
                for item in node.names:
                    whole = f"{node.module}.{item.name}"
                    if (ROOT / f"{whole.replace('.', '/')}.py").exists():
                        modules[item.asname or item.name] = whole
                    else:
                        used.add((str(node.module), item.name, path))
        used |= {
            (modules[node.value.id], node.attr, path)
            for node in ast.walk(code)
            if isinstance(node, ast.Attribute)
            and isinstance(node.value, ast.Name)
            and node.value.id in modules
        }
    return used


def test_the_stand_ins_have_all_that_stages_use() -> None:
    lacking = []
    for module, name, path in sorted(used_of_the_wall()):
        stand_in = STAND_INS / f"{module.removeprefix('src.').replace('.', '/')}.py"
        code = ast.walk(ast.parse(stand_in.read_text())) if stand_in.exists() else ()
        # A stage's `main` calls its Stage `stage`, like the module: attributes count as names.
        found = {
            getattr(node, "name", None) or getattr(node, "id", None) or getattr(node, "attr", None)
            for node in code
        }
        if name not in found:
            lacking.append(f"{path} uses {module}.{name}, which {stand_in} lacks")
    assert not lacking, "\n".join(lacking)


@pytest.mark.slow(seconds=50)
def test_what_stands_outside_the_deps_changes_nothing(clone: Path) -> None:
    """With stand-ins that do next to nothing for src/plumbing and src/tracking."""
    before = lock(clone)
    for folder in EXCLUDED:
        shutil.rmtree(clone / folder)
        shutil.copytree(STAND_INS / Path(folder).name, clone / folder)
    assert "Running stage" not in run(clone, "dvc", "repro")
    run(clone, "dvc", "repro", "--force")
    assert lock(clone) == before


@pytest.mark.slow(seconds=5)
def test_a_wrong_value_ends_in_one_line_and_leaves_the_lock(clone: Path) -> None:
    before = lock(clone)
    printed = run(clone, "dvc", "exp", "run", "-S", "lr=", code=255)
    line = "params.yaml: lr must be a number > 0, got nothing"
    assert sum(found.startswith(line) for found in printed.splitlines()) == 1, printed
    assert lock(clone) == before


@pytest.mark.slow(seconds=40)
def test_a_comment_in_code_trains_and_evaluates_again(clone: Path) -> None:
    """Same bits, new identity: evaluate runs too, and the new run has its metrics."""
    path = clone / "src/train.py"
    path.write_text(path.read_text() + "# a comment\n")
    before = set(runs(clone))
    printed = run(clone, "dvc", "repro")
    assert "Running stage 'evaluate'" in printed
    (new,) = set(runs(clone)) - before
    assert "zz_test/accuracy" in runs(clone)[new]
