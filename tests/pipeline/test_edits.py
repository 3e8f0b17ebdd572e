"""What happens to a pipeline while it runs: edits, and the end of its `dvc`."""

import json
import subprocess
from pathlib import Path

import pytest

from src.plumbing.identity import fingerprint_from_lock
from tests.conftest import set_params
from tests.pipeline.clone import lock, restore, run, watched_repro

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(("edited", "seed"), [("params.yaml", 5), ("src/training/loop.py", 6)])
def test_an_edit_during_training_is_not_certified(clone: Path, edited: str, seed: int) -> None:
    set_params(clone, epochs=80, seed=seed, progress="auto")  # a line per epoch
    at_start = (clone / edited).read_text()
    before = fingerprint_from_lock(lock(clone), "train")

    old, new = {
        "params.yaml": ("lr: 0.001", "lr: 0.002"),
        "src/training/loop.py": ("LOG_EVERY = 50", "LOG_EVERY = 51"),
    }[edited]
    assert old in at_start

    def edit(line: str, _: object) -> None:
        if line.split()[:2] == ["epoch", "1/80"]:
            (clone / edited).write_text(at_start.replace(old, new))

    printed = watched_repro(clone, edit)
    named = "params.yaml: lr" if edited == "params.yaml" else edited
    (line,) = [line for line in printed.splitlines() if "changed while the stage ran" in line]
    assert named in line
    assert fingerprint_from_lock(lock(clone), "train") == before

    # The edit kept: trained anew. The edit put back: the finished training is only written.
    assert "train: goes on" not in run(clone, "dvc", "repro")
    about = json.loads((clone / "models/model.json").read_text())
    assert about["fingerprint"] == fingerprint_from_lock(lock(clone), "train")
    (clone / edited).write_text(at_start)
    assert "train: goes on after epoch 80" in run(clone, "dvc", "repro")
    about = json.loads((clone / "models/model.json").read_text())
    assert about["fingerprint"] == fingerprint_from_lock(lock(clone), "train")
    restore(clone)


def test_an_edit_ahead_of_the_stage_that_it_is_for_is_not_certified(clone: Path) -> None:
    """DVC took `data/${train_on}` as train's input when it started; then params.yaml changed."""
    set_params(clone, seed=8)
    before = lock(clone).partition("  train:")[2]

    def edit(line: str, _: object) -> None:
        if line.startswith("Running stage 'overfit-check'"):
            set_params(clone, train_on="subset")

    printed = watched_repro(clone, edit)
    assert "train: params.yaml changed while an earlier stage ran" in printed
    assert lock(clone).partition("  train:")[2] == before
    run(clone, "dvc", "repro")
    about = json.loads((clone / "models/model.json").read_text())
    assert about["fingerprint"] == fingerprint_from_lock(lock(clone), "train")
    restore(clone)


def test_a_killed_dvc_takes_its_stage_with_it(clone: Path) -> None:
    """Then the training goes on from where it was, into the bits of an undisturbed run."""
    set_params(clone, epochs=200, seed=9, progress="auto")

    def kill(line: str, dvc: subprocess.Popen[str]) -> None:
        if line.startswith("epoch ") and dvc.poll() is None:
            dvc.kill()
            dvc.wait(10)

    printed = watched_repro(clone, kill)
    assert "so the stage ends too" in printed
    assert "train: stopped after epoch" in printed
    assert "epoch 200/200" not in printed
    assert "train: goes on after epoch" in run(clone, "dvc", "repro")
    resumed = lock(clone)
    run(clone, "dvc", "repro", "--force", "--single-item", "train")
    assert lock(clone) == resumed
    restore(clone)
