"""The difference to HEAD that goes with a run."""

import shutil
import subprocess
from pathlib import Path

import pytest

from src.stage import Stage
from src.tracking import run as tracking
from src.tracking import uncommitted
from tests.tracked_project import commit, edit, git, make_project, runs, train


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


def test_a_project_in_a_folder_of_a_repository(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "repository/project"
    make_project(folder, monkeypatch)
    shutil.rmtree(folder / ".git")
    monkeypatch.chdir(folder.parent)
    git("init", "--quiet")
    commit()
    monkeypatch.chdir(folder)
    edit("params.yaml", "lr: 0.001", "lr: 0.002")
    edited = Path("params.yaml").read_text()
    Path("src/new.py").write_text("new = 1\n")
    (tmp_path / "patch").write_bytes(uncommitted.difference())
    git("checkout", "--", ".")
    Path("src/new.py").unlink()
    subprocess.run(["git", "apply", str(tmp_path / "patch")], check=True)
    assert Path("params.yaml").read_text() == edited
    assert Path("src/new.py").read_text() == "new = 1\n"


def test_a_committed_state_has_none(project: Path) -> None:
    assert uncommitted.difference() == b""
    with tracking.start(Stage("train")):
        pass
    [stored] = runs(project)
    assert not (project / f"mlartifacts/{stored.info.run_id}/artifacts/provenance").exists()
