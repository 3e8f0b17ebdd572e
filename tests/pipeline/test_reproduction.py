"""The same bits again: forced, elsewhere, with what no stage depends on, and wrong values."""

import json
from pathlib import Path

import pytest

from src.plumbing.identity import fingerprint_from_lock
from tests.conftest import set_params
from tests.pipeline.clone import lock, restore, run, runs

pytestmark = pytest.mark.slow


def test_a_second_repro_runs_nothing(clone: Path) -> None:
    printed = run(clone, "dvc", "repro")
    assert "Running stage" not in printed
    assert run(clone, "git", "status", "--porcelain") == ""


def test_the_lock_is_the_same_in_a_forced_run_and_in_another_clone(
    clone: Path, tmp_path: Path
) -> None:
    run(clone, "dvc", "repro", "--force")
    run(clone, "git", "diff", "HEAD", "--exit-code", "--", "dvc.lock")
    other = tmp_path / "elsewhere"
    run(tmp_path, "git", "clone", "--quiet", str(clone), str(other))
    printed = run(other, "dvc", "repro")
    assert printed.count("Running stage") == 5
    run(other, "git", "diff", "HEAD", "--exit-code")
    (metrics,) = runs(other).values()
    assert "test/accuracy" in metrics


def test_the_fingerprint_of_the_lock_is_that_of_the_stage(clone: Path) -> None:
    about = json.loads((clone / "models/model.json").read_text())
    assert fingerprint_from_lock(lock(clone), "train") == about["fingerprint"]
    assert about["fingerprint"] in runs(clone)
    checked = fingerprint_from_lock(lock(clone), "overfit-check")
    assert checked in runs(clone, "overfit-check")


def test_what_cannot_change_a_result_does_not(clone: Path) -> None:
    before = lock(clone)
    set_params(
        clone, workers=2, reading="workers", prepare_workers=2, checkpoint_minutes=0.0001,
        tracking="false", resume="any", progress="auto",
    )  # fmt: skip
    assert "Running stage" not in run(clone, "dvc", "repro")
    run(clone, "dvc", "repro", "--force")
    assert lock(clone) == before
    (clone / ".cache/checkpoints").mkdir(exist_ok=True)
    assert list((clone / ".cache/checkpoints").iterdir()) == []
    restore(clone)


# Stand-ins for what no stage lists as a dep: they show nothing, compare nothing, guard nothing.


STAND_INS = {
    "src/plumbing/terminal.py": """
class Progress:
    def __init__(self, *_): pass
    def __enter__(self): return self
    def __exit__(self, *_): pass
    def advance(self): pass
    def show(self, *_): pass
    def epoch_done(self, row): pass
    def begin(self, name): pass
    def say(self, line): pass

class Counted(Progress): pass
class Checks(Progress): pass
""",
    "src/plumbing/stage.py": """
from pathlib import Path
from src import params, pipeline

class Stage:
    def __init__(self, name):
        self.name, self.params, self.root = name, params.load(), Path.cwd()
        self.entry = pipeline.stage_entry(name, self.params)
        self.deps_md5 = {dep: pipeline.md5_of(dep) for dep in self.entry.deps}
        declared = pipeline.declared_values(self.entry, self.params, pipeline.read_versions())
        self.fingerprint = pipeline.fingerprint(self.entry.cmd, self.deps_md5, declared)

    def changed_inputs(self): return []
    def confirm_inputs(self): pass

def run(name, main): main(Stage(name))
""",
}


def test_what_is_no_dep_changes_nothing(clone: Path) -> None:
    before = lock(clone)
    set_params(clone, tracking="false")
    for name, text in STAND_INS.items():
        (clone / name).write_text(text)
    assert "Running stage" not in run(clone, "dvc", "repro")
    run(clone, "dvc", "repro", "--force")
    assert lock(clone) == before
    restore(clone)


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("lr=abc", "params.yaml: lr must be a number > 0, got 'abc'"),
        ("lr=", "params.yaml: lr must be a number > 0, got nothing"),
        ("epochs=3.5", "params.yaml: epochs must be an integer >= 1, got '3.5'"),
        ("model=no_such_net", "params.yaml: model must be the name of a timm model"),
    ],
)
def test_wrong_values_end_in_one_line(clone: Path, override: str, line: str) -> None:
    before = lock(clone)
    printed = run(clone, "dvc", "exp", "run", "-S", override, code=255)
    assert sum(found.startswith(line) for found in printed.splitlines()) == 1, printed
    assert lock(clone) == before
    restore(clone)


def test_an_unknown_key_is_refused(clone: Path) -> None:
    path = clone / "params.yaml"
    path.write_text(path.read_text() + "nosuch: 1\n")
    printed = run(clone, "dvc", "repro", "--force", code=255)
    assert "params.yaml: unknown key nosuch" in printed
    restore(clone)


def test_train_on_the_subset(clone: Path) -> None:
    run(clone, "dvc", "exp", "run", "-S", "train_on=subset")
    fingerprint = fingerprint_from_lock(lock(clone), "train")
    assert "test/accuracy" in runs(clone)[str(fingerprint)]
    assert "data/subset" in lock(clone).partition("  train:")[2].partition("outs:")[0]
    restore(clone)


def test_a_comment_in_code_trains_and_evaluates_again(clone: Path) -> None:
    """Same bits, new identity: evaluate runs too, and the new run has its metrics."""
    path = clone / "src/train.py"
    path.write_text(path.read_text() + "# a comment\n")
    before = set(runs(clone))
    printed = run(clone, "dvc", "repro")
    assert "Running stage 'evaluate'" in printed
    (new,) = set(runs(clone)) - before
    assert "test/accuracy" in runs(clone)[new]
    restore(clone)


def test_a_failed_check_stops_before_train(clone: Path) -> None:
    printed = run(clone, "dvc", "exp", "run", "-S", "optimizer=sgd", "-S", "lr=50", code=255)
    assert "Running stage 'train'" not in printed
    assert "train does not start" in printed
    assert "lr_too_high" in printed
    restore(clone)
