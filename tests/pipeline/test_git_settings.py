"""What people have in ~/.gitconfig changes no hash, no stage and no answer."""

import stat
from pathlib import Path

import pytest

from tests.pipeline.clone import fingerprint_from_lock, lock, lock_of, run

SETTINGS = """
[core]
    autocrlf = true
    quotePath = true
    hooksPath = {folder}/hooks
[status]
    showUntrackedFiles = no
[color]
    ui = always
[diff]
    noprefix = true
    external = /bin/false
[log]
    showSignature = true
[fetch]
    prune = true
[clone]
    defaultRemoteName = far
"""
HOOKS = ("post-checkout", "post-commit", "pre-commit", "commit-msg", "post-index-change")


@pytest.fixture
def hostile(clone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A clone that somebody with these settings made, on the cache of the first one."""
    home = tmp_path / "home"
    (home / "hooks").mkdir(parents=True)
    # DVC reads git's settings by libraries of its own, which know no variable for another file.
    (home / ".gitconfig").write_text(SETTINGS.format(folder=home))
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    folder = tmp_path / "project"
    run(tmp_path, "git", "clone", "--quiet", str(clone), str(folder))
    run(folder, "dvc", "config", "--local", "cache.dir", str(clone / ".dvc/cache"))
    return folder


@pytest.mark.slow(seconds=40)
def test_a_checkout_under_other_settings_of_git_is_the_same(hostile: Path) -> None:
    listed = run(hostile, "git", "ls-files", "-z").split("\0")[:-1]
    texts = [name for name in listed if not name.endswith(".png")]
    assert not [name for name in texts if b"\r\n" in (hostile / name).read_bytes()]
    run(hostile, "bash", "-n", "requirements/install.sh")
    run(hostile, "dvc", "checkout", "--quiet")
    assert "up to date" in run(hostile, "dvc", "status")
    assert "Running stage" not in run(hostile, "dvc", "repro")
    # An experiment in a temporary workspace, which DVC checks out by a library of its own.
    run(hostile, "dvc", "exp", "run", "--temp", "--name", "other", "-S", "evaluate.flip=true")
    changed = lock_of(hostile, "other")
    for stage in ("prepare", "subset", "overfit-check", "train"):
        assert fingerprint_from_lock(changed, stage) == fingerprint_from_lock(lock(hostile), stage)
    for words in (["where"], ["table"], ["compare", "HEAD", "other"]):
        run(hostile, "python", "-m", f"src.{words[0]}", *words[1:])


@pytest.mark.slow(seconds=60)
def test_hooks_and_ends_of_lines_do_not_reach_what_is_verified(
    hostile: Path, tmp_path: Path
) -> None:
    """A hook of the user that fails; and a commit from before .gitattributes was there."""
    (hostile / ".gitattributes").write_text("")
    message = ("--quiet", "--message", "no attributes", "--", ".gitattributes")
    run(hostile, "git", "-c", "core.autocrlf=false", "commit", *message)
    for name in HOOKS:
        hook = tmp_path / "home/hooks" / name
        hook.write_text("#!/bin/sh\nexit 1\n")
        hook.chmod(hook.stat().st_mode | stat.S_IXUSR)
    assert "reproduced" in run(hostile, "python", "-m", "src.verify")
