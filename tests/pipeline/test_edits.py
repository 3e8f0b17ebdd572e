"""What happens to a pipeline while it runs: edits, and the end of its `dvc`."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import set_params
from tests.pipeline.clone import commit, fingerprint_from_lock, lock, run, watched_repro

pytestmark = pytest.mark.slow(seconds=60)


def require_certified(folder: Path) -> None:
    """The lock and the model agree about what was trained."""
    about = json.loads((folder / "models/model.json").read_text())
    assert about["fingerprint"] == fingerprint_from_lock(lock(folder), "train")


def test_an_edit_during_training_is_not_certified(clone: Path) -> None:
    set_params(clone, patience=100, progress="auto", tracking="false")  # a line per epoch
    params, code = clone / "params.yaml", clone / "src/train.py"
    at_start = {path: path.read_text() for path in (params, code)}
    before = fingerprint_from_lock(lock(clone), "train")

    def edit(line: str, _: object) -> None:
        if line.split()[:2] == ["epoch", "1/3"]:
            set_params(clone, best_by="val/loss")
            code.write_text(at_start[code] + "# a comment\n")

    printed = watched_repro(clone, edit)
    (line,) = [line for line in printed.splitlines() if "changed while the stage ran" in line]
    assert "params.yaml: best_by" in line
    assert "src/train.py" in line
    assert fingerprint_from_lock(lock(clone), "train") == before

    # The edits kept: trained anew. Put back: the finished training is only written.
    assert "train: goes on" not in run(clone, "dvc", "repro", "train")
    require_certified(clone)
    for path, text in at_start.items():
        path.write_text(text)
    assert "train: goes on after epoch 3" in run(clone, "dvc", "repro", "train")
    require_certified(clone)


def test_an_edit_ahead_of_the_stage_that_it_is_for_is_not_certified(clone: Path) -> None:
    """DVC took `data/${train_on}` as train's input when it started; then params.yaml changed."""
    set_params(clone, seed=8, tracking="false")
    before = lock(clone).partition("  train:")[2]

    def edit(line: str, _: object) -> None:
        if line.startswith("Running stage 'overfit-check'"):
            set_params(clone, train_on="subset")

    printed = watched_repro(clone, edit)
    assert "train: params.yaml changed while an earlier stage ran" in printed
    assert lock(clone).partition("  train:")[2] == before
    run(clone, "dvc", "repro", "train")
    require_certified(clone)


def test_what_dvc_commit_vouches_for_is_told(clone: Path) -> None:
    """A comment, and a model that nobody trained from it."""
    tool = (sys.executable, "-m")
    line = "not made from these inputs: models/model.json is of others than dvc.lock names"
    before = json.loads(run(clone, *tool, "src.where", "--json"))["runs"]["train"]
    with open(clone / "src/training/loop.py", "a") as code:
        code.write("# a comment\n")
    run(clone, "dvc", "commit", "--force")
    printed = run(clone, *tool, "src.where")
    assert f"{line} (src/training/loop.py), as after `dvc commit`" in printed
    assert before["address"] in printed
    assert "ran elsewhere" not in printed
    image = next((clone / "data/prepared").glob("*.png"))
    printed = run(clone, *tool, "src.predict", str(image))
    assert f"the model in models was {line}" in printed
    assert line in run(clone, *tool, "src.compare", "workspace", "higher", code=2)
    assert "workspace: not made from the inputs" in run(clone, *tool, "src.table")
    commit(clone, "a comment")
    assert line in run(clone, *tool, "src.verify", code=1)
    printed = run(clone, "dvc", "repro", "--force", "evaluate")
    assert "is noted in the run of those" not in printed  # train ran, too: this is its own
    require_certified(clone)
    assert line not in run(clone, *tool, "src.where")


def test_evaluating_a_model_of_other_inputs_says_so(clone: Path) -> None:
    """The relative: a value of params.yaml, and figures that are made anew."""
    set_params(clone, lr="0.002")
    run(clone, "dvc", "commit", "--force", "train")
    set_params(clone, flip="true")
    printed = run(clone, "dvc", "repro", "evaluate")
    assert "models/model.json was not made from the inputs in dvc.lock, but from others" in printed
    assert "(lr=0.002)" in run(clone, sys.executable, "-m", "src.where")


def test_a_killed_dvc_takes_its_stage_with_it(clone: Path) -> None:
    """Then the training goes on from where it was, into the bits of an undisturbed run."""
    set_params(clone, epochs=60, progress="auto", tracking="false")

    def kill(line: str, dvc: subprocess.Popen[str]) -> None:
        if line.startswith("epoch ") and dvc.poll() is None:
            dvc.kill()
            dvc.wait(10)

    printed = watched_repro(clone, kill)
    assert "so the stage ends too" in printed
    assert "train: stopped after epoch" in printed
    assert "epoch 60/60" not in printed
    assert "train: goes on after epoch" in run(clone, "dvc", "repro", "train")
    resumed = lock(clone)
    run(clone, "dvc", "repro", "--force", "--single-item", "train")
    assert lock(clone) == resumed
