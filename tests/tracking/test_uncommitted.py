"""The difference to HEAD that goes with a run."""

import subprocess
from pathlib import Path

from src.stage import Stage
from src.tracking import run as tracking
from src.tracking import uncommitted
from tests.tracked_project import edit, git, runs, train


def test_the_run_has_what_is_not_committed_and_git_takes_it(project: Path) -> None:
    edit("params.yaml", "lr: 0.001", "lr: 0.002")
    Path("src/new.py").write_text("new = 1\nlast = 2")
    Path("src/.env").write_text("PASSWORD=hidden-word\n")
    Path("src/secret_key.py").write_text("hidden-word = 1\n")
    Path("notes.txt").write_text("mine\n")
    train()
    [stored] = runs(project)
    path = project / f"mlartifacts/{stored.info.run_id}/artifacts/provenance/uncommitted.diff"
    text = path.read_text()
    assert "+lr: 0.002" in text
    assert "+new = 1" in text
    assert "hidden-word" not in text
    assert "mine" not in text
    new, params = Path("src/new.py").read_text(), Path("params.yaml").read_text()
    git("checkout", "--", ".")
    Path("src/new.py").unlink()
    subprocess.run(["git", "apply", str(path)], check=True)
    assert (Path("src/new.py").read_text(), Path("params.yaml").read_text()) == (new, params)


def test_a_committed_state_has_none(project: Path) -> None:
    assert uncommitted.difference() == b""
    with tracking.start(Stage("train")):
        pass
    [stored] = runs(project)
    assert not (project / f"mlartifacts/{stored.info.run_id}/artifacts/provenance").exists()
