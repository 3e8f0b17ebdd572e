"""The description of a training's run."""

import subprocess
from pathlib import Path

import pytest

from src.stage import Stage
from src.tracking import notes
from src.tracking import run as tracking
from src.tracking.notes import Origin, changed_line, compose, how_to_bring_back
from tests.tracked_project import commit, edit, evaluate, runs, train

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def head() -> str:
    found = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
    return found.stdout.strip()


def description(project: Path) -> str:
    return str(runs(project)[0].data.tags["mlflow.note.content"])


def test_what_changed() -> None:
    assert changed_line(["lr=0.003", "code:a.py"], COMMIT) == (
        "**Changed** against commit `0123456789ab`: `lr=0.003`, `code:a.py`"
    )
    assert "baseline" in changed_line([], COMMIT)
    assert "First training" in changed_line(None, COMMIT)
    many = changed_line([f"k{index}=1" for index in range(23)], COMMIT)
    assert many.endswith("`k19=1` and 3 more")


def test_parts_that_are_empty_leave_no_gap() -> None:
    assert compose("a", "", "b\n") == "a\n\nb"


@pytest.mark.parametrize(
    ("origin", "commands"),
    [
        (Origin(COMMIT), ["git checkout 0123456789ab", "dvc repro"]),
        (
            Origin(COMMIT, overrides=("lr=0.003", "class_weights=[1, 2]")),
            [
                "git checkout 0123456789ab",
                "dvc exp run -S lr=0.003 -S 'class_weights=[1, 2]'",
            ],
        ),
        (
            Origin(COMMIT, "lusty-bird", ("lr=0.003",), ("src/a.py",)),
            ["dvc exp apply lusty-bird"],
        ),
        (Origin("", "lusty-bird"), ["dvc exp apply lusty-bird"]),
    ],
)
def test_the_commands_that_bring_a_result_back(origin: Origin, commands: list[str]) -> None:
    text = how_to_bring_back(origin)
    assert text.split("```console\n")[1].split("\n```")[0].splitlines() == commands
    assert "Not committed" not in text


def test_what_was_not_committed_is_said() -> None:
    text = how_to_bring_back(Origin(COMMIT, uncommitted=("src/a.py",)))
    assert "git checkout 0123456789ab" in text
    assert "**Not committed** when it was made: `src/a.py`." in text
    assert "no commit" in how_to_bring_back(Origin(""))


def test_the_origin_of_the_working_directory(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert notes.find_origin() == Origin(head())
    edit("params.yaml", "lr: 0.001", "lr: 0.003")
    edit("params.yaml", "\n  size: 32", "\n  size: 64")
    edit("params.yaml", "workers: 0", "workers: 2")  # cannot change a result
    assert notes.find_origin() == Origin(head(), "", ("lr=0.003", "prepare.size=64"))
    Path("src/new file.py").write_text("new = 1\n")
    edit("dvc.yaml", "stages:", "# stages\nstages:")
    Path("data/raw.dvc").write_text("outs: []\n")
    monkeypatch.setenv("DVC_EXP_NAME", "lusty-bird")
    origin = notes.find_origin()
    assert origin.experiment == "lusty-bird"
    assert origin.uncommitted == ("data/raw.dvc", "dvc.yaml", "src/new file.py")
    commit()
    assert notes.find_origin() == Origin(head(), "lusty-bird")


def test_params_of_another_schema_count_as_not_committed(project: Path) -> None:
    content = Path("params.yaml").read_text()
    Path("params.yaml").write_text(content + "gone: 1\n")
    commit()
    Path("params.yaml").write_text(content)
    assert notes.find_origin() == Origin(head(), "", (), ("params.yaml",))


def test_a_training_is_described_from_its_start_and_with_its_result(project: Path) -> None:
    edit("params.yaml", "lr: 0.001", "lr: 0.003")
    stage = Stage("train")
    with tracking.start(stage):
        assert description(project).startswith("**Changed** against commit `")
        assert "`lr=0.003`" in description(project)
        assert "dvc exp run -S lr=0.003" in description(project)
    evaluation = Stage("evaluate")
    with tracking.reopen(evaluation, stage.fingerprint, "0" * 32) as run:
        run.describe("| table |")
    # dvc.lock is not that of the training: nothing is said of what changed.
    assert description(project).startswith("| table |\n\nBring this result back:")


def test_evaluate_tells_what_changed_in_the_training(project: Path) -> None:
    train()
    stage = Stage("evaluate")
    with tracking.reopen(stage, Stage("train").fingerprint, "0" * 32) as run:
        run.describe("| table |")
    first, table, *_ = description(project).split("\n\n")
    assert first == f"**Nothing changed** against commit `{head()[:12]}`: this is the baseline."
    assert table == "| table |"
    assert f"git checkout {head()[:12]}\ndvc repro" in description(project)


def test_a_child_run_is_described_by_its_result_alone(project: Path) -> None:
    train()
    fingerprint = Stage("train").fingerprint
    evaluate(fingerprint)
    edit("params.yaml", "flip: false", "flip: true")
    edit("params.yaml", "batch_size: 32", "batch_size: 64")
    stage = Stage("evaluate")
    with tracking.reopen(stage, fingerprint, "0" * 32) as run:
        run.describe("| table |")
    assert description(project) == "| table |"
