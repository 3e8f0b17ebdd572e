"""git's answers: the same whatever a user has set, and a refusal is not taken for "not there"."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from src import table
from src.experiments.queue import tasks
from src.plumbing import git, upstream
from src.plumbing.command import guarded
from src.plumbing.errors import InputError
from src.tracking.about import provenance
from tests.pipeline.clone import IDENTITY

# What people have in ~/.gitconfig, or get from a tool.
SETTINGS = """
[core]
    autocrlf = true
    quotePath = true
    attributesFile = {folder}/attributes
    hooksPath = {folder}/hooks
[color]
    ui = always
[diff]
    noprefix = true
    mnemonicPrefix = true
    external = /bin/false
[diff "shown"]
    textconv = "tr a-z A-Z <"
[log]
    showSignature = true
    follow = true
[status]
    showUntrackedFiles = no
    branch = true
    short = true
[i18n]
    logOutputEncoding = latin1
"""


def run(folder: Path, *command: str) -> str:
    done = subprocess.run(
        command, cwd=folder, env={**os.environ, **IDENTITY}, capture_output=True, check=True
    )
    return done.stdout.decode("utf-8", "replace")


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "repository"
    (folder / "src").mkdir(parents=True)
    (folder / "dvc.lock").write_text("stages: {}\n")
    (folder / "src/é.py").write_text("x = 1\n")
    (folder / ".gitattributes").write_text("* -text\n")
    run(folder, "git", "init", "--quiet")
    run(folder, "git", "add", "--all")
    run(folder, "git", "commit", "--quiet", "--message", "Größe é")
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "attributes").write_text("*.lock diff=shown\n*.py diff=shown\n")
    (tmp_path / "config").write_text(SETTINGS.format(folder=tmp_path))
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "config"))


def answers(folder: Path) -> list[object]:
    return [
        git.output("log", "-1", "--format=%H %s"),
        git.output("cat-file", "blob", "HEAD:./dvc.lock"),
        list(git.read_at([("HEAD", "dvc.lock")])),
        git.files_between("src", git.head()),
        git.printed("status", "--porcelain", "--untracked-files=no"),
        git.printed("diff-tree", "-r", "--root", "--name-status", "HEAD"),
        provenance.tool_tags("where", {})["git.dirty"],
    ]


def test_the_settings_of_a_user_change_no_answer(
    repository: Path, request: pytest.FixtureRequest
) -> None:
    """A file that git does not know, one with an umlaut, and one that a tool of the user shows in
    another form are among the answers."""
    (repository / "src/new.py").write_text("y = 1\n")
    (repository / "src/é.py").write_text("x = 2\n")
    before = answers(repository)
    assert before[3] == ["src/new.py", "src/é.py"]
    assert before[-1] == "true"
    request.getfixturevalue("settings")
    assert answers(repository) == before


def test_a_file_alone_that_git_does_not_know_makes_a_tree_dirty(
    repository: Path, settings: None
) -> None:
    assert provenance.tool_tags("where", {})["git.dirty"] == "false"
    (repository / "src/new.py").write_text("y = 1\n")
    assert provenance.tool_tags("where", {})["git.dirty"] == "true"


def test_a_hook_of_another_repository_does_not_lead_astray(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """git exports these to the hooks that it runs, such as one that calls `make verify`."""
    run(tmp_path, "git", "init", "--quiet", "other")
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "other/.git"))
    monkeypatch.setenv("GIT_INDEX_FILE", str(tmp_path / "other/.git/index"))
    assert git.output("rev-parse", "--verify", "--quiet", "HEAD", folder=repository)
    assert "dvc.lock" in git.printed("ls-files", folder=repository)


def owned_by_another(folder: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    return "detected dubious ownership in repository at .* git config --global --add safe.directory"


def bad_settings(folder: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (folder / ".git/config").write_text("[core\n")
    return "bad config line 1 in file"


def newer_format(folder: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    text = "[core]\nrepositoryformatversion = 1\n[extensions]\nnosuch = true\n"
    (folder / ".git/config").write_text(text)
    return "unknown repository extension"


REFUSALS = [owned_by_another, bad_settings, newer_format]
Refuse = Callable[[Path, pytest.MonkeyPatch], str]


@pytest.mark.parametrize("language", ["C", "de_DE.UTF-8"])
@pytest.mark.parametrize("refuse", REFUSALS, ids=lambda refuse: refuse.__name__)
def test_what_git_refuses_is_told_in_its_words(
    repository: Path, monkeypatch: pytest.MonkeyPatch, refuse: Refuse, language: str
) -> None:
    """A folder of another user, and two refusals that the report does not name."""
    monkeypatch.setenv("LANGUAGE", language)
    words = refuse(repository, monkeypatch)
    for ask in (git.head, git.experiments, upstream.require_clean):
        with pytest.raises(InputError, match=words) as caught:
            ask()
        assert "\n" not in str(caught.value)


def test_what_is_not_there_is_no_refusal(repository: Path, tmp_path: Path) -> None:
    assert git.output("cat-file", "-t", "nosuch") is None
    assert git.output("rev-parse", "--git-dir", folder=tmp_path) is None
    os.chdir(tmp_path)
    with pytest.raises(InputError, match="not a git repository with a commit"):
        upstream.require_clean()


def test_an_index_that_cannot_be_read_is_no_clean_tree(repository: Path) -> None:
    (repository / ".git/index").write_bytes(b"broken")
    with pytest.raises(InputError, match=r"`git status` failed: .*index file"):
        upstream.require_clean()


@pytest.mark.parametrize("refuse", [owned_by_another, bad_settings], ids=lambda one: one.__name__)
def test_a_tool_that_asks_dvc_tells_the_reason(
    repository: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    refuse: Refuse,
) -> None:
    run(repository, "dvc", "init", "--quiet")
    words = refuse(repository, monkeypatch)
    tools: tuple[Callable[[], Any], ...] = (
        lambda: table.collect(every=False),
        lambda: tasks.states(lambda _: True),
    )
    for tool in tools:
        (repository / ".dvc/tmp/exps/celery").mkdir(parents=True, exist_ok=True)
        assert guarded(tool) == 2
        [line] = capsys.readouterr().err.splitlines()
        assert words.split(" in ")[0].split(" .* ")[0] in line
        assert "Having any troubles" not in line
