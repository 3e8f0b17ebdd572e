"""What the folder, its dvc.lock and git tell of the workspace and of DVC's experiments."""

import hashlib
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from src.plumbing import dvc_files
from src.plumbing.errors import InputError


@dataclass(frozen=True)
class Experiment:
    """A finished experiment of DVC: commit `rev`, made on the commit `baseline`."""

    name: str
    rev: str
    baseline: str


def output(*arguments: str) -> str | None:
    """What `git` prints, None if it fails. InputError if there is no git."""
    try:
        done = subprocess.run(
            ["git", *arguments],
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            check=False,
        )
    except FileNotFoundError:
        raise InputError("git is not installed, or not on PATH") from None
    return done.stdout if done.returncode == 0 else None


def files_between(dep: str, since: str, until: str = "", folder: Path | str = ".") -> list[str]:
    """The files of the code `dep` that differ between two commits, without `until` between `since`
    and what lies in `folder`; none if git does not tell."""
    at = ("-C", str(folder), "--no-optional-locks")
    options = ("--name-only", "--no-renames", "--relative", "-z")
    names = output(*at, "diff", *options, since, *([until] if until else []), "--", dep) or ""
    if not until:
        names += output(*at, "ls-files", "--others", "--exclude-standard", "-z", "--", dep) or ""
    return sorted(name for name in names.split("\0") if name)


def files_changed(dep: str, md5: str, folder: Path | str = ".") -> list[str]:
    """The files in `folder` of the code `dep`, a folder, that are not those for which dvc.lock has
    `md5`: DVC knows one hash, git knows the files. `dep` itself if git does not tell, it is a file,
    or it was not there (`md5` is empty)."""
    if dep.endswith(".py") or not md5:
        return [dep]
    since = commit_of(dep, md5, folder=folder)
    return (files_between(dep, since, folder=folder) if since else []) or [dep]


def commit_of(dep: str, md5: str, rev: str = "HEAD", folder: Path | str = ".") -> str:
    """A commit up to `rev` in which the folder `dep` of code has the hash `md5`, which dvc.lock of
    `rev` has for it; empty if there is none."""
    at = ("-C", str(folder))
    # As a rule the one that brought the hash into dvc.lock; but code may have been edited there.
    log = ("log", "-1", f"-S{md5}", "--format=%H", rev, "--", "dvc.lock")
    found = (output(*at, *log) or "").strip()
    listed = output(*at, "ls-tree", "-r", "-z", "--name-only", found, "--", dep) if found else None
    files = {}
    for name in (listed or "").split("\0")[:-1]:
        text = output(*at, "show", f"{found}:./{name}") or ""
        files[name.removeprefix(f"{dep}/")] = hashlib.md5(text.encode()).hexdigest()
    return found if dvc_files.md5_of_folder(files) == md5 else ""


def read_at(files: Sequence[tuple[str, str]]) -> list[str | None]:
    """The texts of files of commits, given as (rev, path from this folder); None for one that is
    not there. One process reads all, so 200 commits take about as long as one."""
    prefix = (output("rev-parse", "--show-prefix") or "").strip()
    asked = "".join(f"{rev}:{prefix}{path}\n" for rev, path in files).encode()
    command = ["git", "cat-file", "--batch"]
    answer = subprocess.run(command, input=asked, capture_output=True, check=False).stdout
    texts: list[str | None] = []
    position = 0
    # Each is "<id> blob <size>\n<content>\n", or "<what was asked> missing\n".
    while position < len(answer):
        end = answer.index(b"\n", position)
        parts = answer[position:end].split()
        position = end + 1
        if parts[-1].isdigit():
            size = int(parts[-1])
            texts.append(answer[position : position + size].decode("utf-8", "replace"))
            position += size + 1
        else:
            texts.append(None)
    return texts if len(texts) == len(files) else [None] * len(files)


def head() -> str:
    """The commit that is checked out; empty if there is none."""
    return (output("rev-parse", "--verify", "--quiet", "HEAD") or "").strip()


def experiments() -> list[Experiment]:
    """The finished experiments in this repository, on whatever commit they were made."""
    found = []
    for line in (
        output("for-each-ref", "--format=%(objectname) %(refname)", "refs/exps") or ""
    ).splitlines():
        rev, _, ref = line.partition(" ")
        # refs/exps/<2 digits>/<38 digits>/<name>; the other refs below refs/exps are DVC's own.
        parts = ref.split("/")
        if len(parts) == 5 and len(parts[2] + parts[3]) == len(rev):
            found.append(Experiment(parts[4], rev, parts[2] + parts[3]))
    return found


def queue_state(name: str) -> str | None:
    """What became of a queued experiment that has no result; None if no such name was queued."""
    for stash, state in (
        ("failed", f"failed: `dvc queue logs {name}` says why"),
        ("stash", "is queued or running: `dvc queue status` shows it"),
    ):
        # Entries read "commit: dvc-exp:<rev>:<baseline>:<name>", with ":<branch>" at times.
        log = (
            output("log", "--walk-reflogs", "--format=%gs", f"refs/exps/celery/{stash}", "--") or ""
        )
        if any(name in entry.split(":")[4:5] for entry in log.splitlines()):
            return state
    return None
