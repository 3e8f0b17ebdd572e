import os
import shlex
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from src.plumbing import params
from src.plumbing.git import head
from src.plumbing.stage import Stage
from src.tracking import run as tracking
from src.tracking.about.description import (
    UNKNOWN,
    Origin,
    Patch,
    changed_line,
    find_origin,
    how_to_bring_back,
    with_result,
)
from src.tracking.journal.outbox import Outbox
from src.tracking.log import DESCRIPTION
from tests.tracking.tracked_project import (
    OTHER,
    commit,
    edit,
    evaluate,
    git,
    inputs,
    runs,
    store_at,
    train,
)

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def description(project: Path) -> str:
    return str(runs(project)[0].data.tags["mlflow.note.content"])


def commands_in(text: str) -> list[str]:
    """What a description tells its reader to run."""
    return text.split("```console\n")[1].split("\n```")[0].splitlines()


def test_what_changed() -> None:
    assert changed_line(["lr=0.003", "code:a.py"], COMMIT) == (
        "**Changed** against commit `0123456789ab`: `lr=0.003`, `code:a.py`"
    )
    assert "baseline" in changed_line([], COMMIT)
    assert "First training" in changed_line(None, COMMIT)
    many = changed_line([f"k{index}=1" for index in range(23)], COMMIT)
    assert many.endswith("`k19=1` and 3 more")


def test_a_result_is_put_between_what_changed_and_the_commands() -> None:
    changed = changed_line(["lr=0.003"], COMMIT)
    for origin in (Origin(COMMIT), Origin("")):
        back = how_to_bring_back(origin)
        whole = f"{changed}\n\n| table |\n\n{back}\n\n## Compared"
        before = f"{changed}\n\n{back}\n\n## Compared"
        assert with_result(before, "| table |\n") == whole
        assert with_result(whole, "") == before
        assert with_result(back, "| table |") == f"| table |\n\n{back}"
    assert with_result("| other |", "| table |") == "| table |"


@pytest.mark.parametrize(
    ("origin", "commands"),
    [
        (Origin(COMMIT), ["git checkout 0123456789ab", "dvc repro"]),
        (
            Origin(COMMIT, overrides=("lr=0.003", "class_weights=[1, 2]")),
            [
                "git checkout 0123456789ab",
                "dvc exp run -S lr=0.003 -S 'class_weights=[1,2]'",
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
    assert commands_in(text) == commands
    assert "Not committed" not in text


def test_dvc_takes_the_values_in_the_commands_as_they_are(project: Path) -> None:
    from dvc.utils.hydra import apply_overrides

    values = {
        "overfit_check.waive": "slopes: known; leakage: ok",
        "prepare.csv_label_column": "my label, x",
        "prepare.path": "data/my \\ pictures",
    }
    origin = Origin(COMMIT, overrides=tuple(f"{key}={value}" for key, value in values.items()))
    [line] = [line for line in how_to_bring_back(origin).splitlines() if "dvc exp run" in line]
    apply_overrides("params.yaml", shlex.split(line)[4::2])
    found = params.load()
    assert {key: found[key] for key in values} == values


def test_what_was_not_committed_is_said() -> None:
    text = how_to_bring_back(Origin(COMMIT, uncommitted=("src/a.py",)))
    assert "git checkout 0123456789ab" in text
    assert "**Not committed** when it was made: `src/a.py`." in text
    assert "no commit" in how_to_bring_back(Origin(""))


def test_a_patch_that_lacks_something_says_so() -> None:
    origin = Origin(COMMIT, overrides=("lr=0.003",), uncommitted=("src/a.py",))
    text = how_to_bring_back(origin, Patch(UNKNOWN, ("src/.env (its name)",)))
    assert "git apply" in text
    assert "dvc repro" in text  # the params are in the patch
    assert "-S" not in text
    assert "The patch lacks `src/.env (its name)`. `RUN_ID` stands for the id of this run." in text
    applied = how_to_bring_back(replace(origin, experiment="lusty-bird"), Patch("id"))
    assert "git apply" not in applied


def test_the_origin_of_the_working_directory(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert find_origin() == Origin(head())
    edit("params.yaml", "lr: 0.001", "lr: 0.003")
    edit("params.yaml", "\n  size: 32", "\n  size: 64")
    edit("params.yaml", "workers: 0", "workers: 2")  # cannot change a result
    assert find_origin() == Origin(head(), "", ("lr=0.003", "prepare.size=64"))
    Path("src/new file.py").write_text("new = 1\n")
    edit("dvc.yaml", "stages:", "# stages\nstages:")
    Path("data/raw.dvc").write_text("outs: []\n")
    git("mv", "src/training/loop.py", "src/training/moved.py")
    monkeypatch.setenv("DVC_EXP_NAME", "lusty-bird")
    origin = find_origin()
    assert origin.experiment == "lusty-bird"
    moved = ("src/training/loop.py", "src/training/moved.py")
    assert origin.uncommitted == ("data/raw.dvc", "dvc.yaml", "src/new file.py", *moved)
    commit()
    assert find_origin() == Origin(head(), "lusty-bird")


def test_params_of_another_schema_count_as_not_committed(project: Path) -> None:
    content = Path("params.yaml").read_text()
    Path("params.yaml").write_text(content + "gone: 1\n")
    commit()
    Path("params.yaml").write_text(content)
    assert find_origin() == Origin(head(), "", (), ("params.yaml",))


def test_a_training_is_described_from_its_start_and_with_its_result(project: Path) -> None:
    edit("params.yaml", "lr: 0.001", "lr: 0.003")
    with tracking.start(Stage("train")):
        assert description(project).startswith("**Changed** against commit `")
        assert "`lr=0.003`" in description(project)
        changed, *back = description(project).split("\n\n")
        assert "dvc exp run -S lr=0.003" in back[1]
    evaluate(table="| first |")
    evaluate(table="| table |")
    assert description(project).split("\n\n") == [changed, "| table |", *back]


def test_evaluate_says_what_changed_in_a_training_without_a_run(project: Path) -> None:
    evaluate(table="| table |")
    first, table, *_ = description(project).split("\n\n")
    assert first == f"**Nothing changed** against commit `{head()[:12]}`: this is the baseline."
    assert table == "| table |"
    assert f"git checkout {head()[:12]}\ndvc repro" in description(project)


def test_a_child_run_is_described_by_its_result_alone(project: Path) -> None:
    train()
    fingerprint = Stage("train").fingerprint
    evaluate()
    edit("params.yaml", "flip: false", "flip: true")
    edit("params.yaml", "batch_size: 32", "batch_size: 64")
    evaluate(table="| table |", of=fingerprint)
    assert description(project) == "| table |"


@pytest.mark.slow
def test_one_line_brings_back_what_was_not_committed(project: Path) -> None:
    edit("params.yaml", "lr: 0.001", "lr: 0.003")
    Path("src/new.py").write_text("new = 1\n")
    Path("src/tracking/__init__.py").touch()
    git("mv", "src/training/loop.py", "src/training/moved.py")
    edit("dvc.yaml", "src/training/loop.py", "src/training/moved.py")
    dirty = inputs(project)
    train()
    [stored] = runs(project)
    text = description(project)
    assert f"--run-id {stored.info.run_id} " in text
    assert "`src/new.py`" in text
    evaluate(table="| table |")
    assert "| table |" in description(project)
    assert description(project).endswith(text[text.index("Bring this result back") :])
    git("reset", "--quiet", "--hard")
    git("clean", "--quiet", "--force", "-d", "src")
    assert inputs(project) != dirty
    command, run = commands_in(description(project))
    assert run == "dvc repro"
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    subprocess.run(["bash", "-c", command], check=True, env={**os.environ, "PATH": path})
    assert inputs(project) == dirty


def test_another_workspace_than_that_of_the_training_is_not_said_to_be_in_the_run(
    project: Path,
) -> None:
    Path("src/tracking/new.py").write_text("new = 1\n")
    train()
    assert "git apply" in description(project)
    Path("src/tracking/later.py").write_text("new = 2\n")
    evaluate(table="| table |")
    assert "git apply" in description(project)
    assert "`src/tracking/new.py`." in description(project)
    shutil.rmtree(".cache")
    with store_at(OTHER):
        evaluate(table="| table |")  # of a model that was trained elsewhere
        assert "git apply" not in description(project)
        assert "The commit alone gives another result" in description(project)


def test_a_repetition_is_described_with_its_own_id(project: Path) -> None:
    Path("src/new.py").write_text("new = 1\n")
    train()
    train()
    for stored in runs(project):
        assert f"--run-id {stored.info.run_id} " in stored.data.tags["mlflow.note.content"]


def test_the_id_of_the_run_is_not_known_without_a_store(project: Path) -> None:
    Path("src/new.py").write_text("new = 1\n")
    with store_at(f"sqlite:///{project}/src"):  # a folder
        train()
        evaluate(table="| table |")
    text = Outbox(project, Stage("train").fingerprint).tags()[DESCRIPTION]
    assert "--run-id RUN_ID " in text
    assert "| table |" in text
