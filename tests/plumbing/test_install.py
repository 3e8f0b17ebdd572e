"""What requirements/install.sh says and refuses before it downloads anything."""

import os
import subprocess
from pathlib import Path

import pytest

from src.base.imports import ROOT


@pytest.fixture
def unpacked(tmp_path: Path) -> Path:
    """The files as in a ZIP of the project: without .git."""
    folder = tmp_path / "project"
    (folder / "requirements").mkdir(parents=True)
    (folder / "requirements/install.sh").write_bytes(
        (ROOT / "requirements/install.sh").read_bytes()
    )
    return folder


def install(folder: Path, **variables: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        ["bash", "requirements/install.sh", "runtime"],
        cwd=folder,
        # No interpreter will do, so that nothing is installed.
        env={**os.environ, "PYTHON": "no-such-python", **variables},
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_without_git_it_says_so_before_anything_is_installed(unpacked: Path) -> None:
    ended = install(unpacked)
    assert ended.returncode == 2
    assert ended.stderr.startswith("setup: this folder is not a git repository, which DVC needs: ")
    assert len(ended.stderr.splitlines()) == 1


def test_what_git_refuses_is_told_in_its_words(unpacked: Path) -> None:
    """Not "git init" for a folder that belongs to another user."""
    subprocess.run(["git", "init", "--quiet"], cwd=unpacked, check=True)
    ended = install(unpacked, GIT_TEST_ASSUME_DIFFERENT_OWNER="1", LANGUAGE="de")
    assert ended.returncode == 2
    assert "detected dubious ownership" in ended.stderr
    assert "git config --global --add safe.directory" in ended.stderr
    assert "git init" not in ended.stderr
    assert len(ended.stderr.splitlines()) == 1


@pytest.mark.parametrize("whose", ["another program", "this one"])
def test_a_lock_whose_number_another_process_has_by_now_is_none(unpacked: Path, whose: str) -> None:
    """In a container numbers begin anew each time: it would wait for ever, for itself even."""
    subprocess.run(["git", "init", "--quiet"], cwd=unpacked, check=True)
    lock = unpacked / ".cache/setup.lock"
    lock.parent.mkdir()
    if whose == "this one":
        script = unpacked / "requirements/install.sh"
        text = script.read_text().replace("set -euo", "ln -s $$ .cache/setup.lock\nset -euo", 1)
        script.write_text(text)
    else:
        lock.symlink_to(str(os.getpid()))
    ended = install(unpacked)
    assert "waiting for process" not in ended.stdout
    assert "Python 3.11 or newer is needed" in ended.stderr
