"""What this project was made from: the note in pyproject.toml, and its files as they are here.

`make new` turns the files of upstream into those of a project. `project_tree` does the same to any
version of upstream, so that two versions differ in what changed there and in nothing else.
"""

import io
import os
import re
import subprocess
import sys
import tarfile
import tempfile
import tomllib
from dataclasses import dataclass
from pathlib import Path

from src.plumbing import git
from src.plumbing.errors import InputError

FILE = "pyproject.toml"


@dataclass(frozen=True)
class Note:
    """What pyproject.toml notes: the project's name, and the version of upstream that it has."""

    name: str
    version: str
    commit: str  # whose files these were
    origin: str  # where newer versions are; empty if nobody knows


def read_note(text: str) -> Note | None:
    """The note in the text of pyproject.toml; None if this is no project yet. InputError if it
    cannot be read."""
    try:
        found = tomllib.loads(text)
        if (note := found.get("tool", {}).get("upstream")) is None:
            return None
        return Note(found["project"]["name"], note["version"], note["commit"], note["origin"])
    except (tomllib.TOMLDecodeError, KeyError, AttributeError) as error:
        reason = " ".join(str(error).split())
        raise InputError(
            f"{FILE}: its [project] or [tool.upstream] cannot be read: {reason}"
        ) from None


def public(address: str) -> str:
    """An address without user and password: it is noted in a file that others see."""
    return re.sub(r"^(https?://)[^/@]*@", r"\1", address)


def require_clean() -> None:
    """InputError unless this is the folder of a repository with all changes committed. Files that
    git does not know do not count."""
    top = git.output("rev-parse", "--show-toplevel")
    if top is None or not git.head():
        raise InputError(
            "this folder is not a git repository with a commit: run "
            "`git init && git add -A && git commit -m Start`"
        )
    if Path(top.strip()).resolve() != Path.cwd().resolve():
        raise InputError(f"run this in the folder of the repository: `cd {top.strip()}` first")
    printed = git.printed("status", "--porcelain", "--untracked-files=no")
    if changed := [line[3:] for line in printed.splitlines()]:
        more = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
        raise InputError(
            f"{changed[0]}{more} changed since the last commit: commit that first, or put it aside "
            "with `git stash`"
        )


def project_tree(commit: str, name: str, origin: str) -> str:
    """The files of a commit of upstream in the form that they have in the project `name`, as a tree
    in git's store (its id). The code of that very commit does it. InputError if it cannot."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary, "files").resolve()
        packed = git.run("archive", "--format=tar", commit)
        if packed.returncode:
            raise InputError(f"git cannot read the files of {commit}: {_last(packed.stderr)}")
        with tarfile.open(fileobj=io.BytesIO(packed.stdout)) as archive:
            if hasattr(tarfile, "data_filter"):  # not in Debian 12's Python 3.11.2
                archive.extraction_filter = tarfile.data_filter
            archive.extractall(folder)
        command = [sys.executable, "-B", "-m", "new.files", name, commit, origin]
        made = subprocess.run(command, cwd=folder, capture_output=True, check=False)
        if made.returncode:
            raise InputError(f"{commit[:9]} cannot be made a project: {_last(made.stderr)}")
        place = {
            "GIT_DIR": (git.output("rev-parse", "--absolute-git-dir") or "").strip(),
            "GIT_WORK_TREE": str(folder),
            "GIT_INDEX_FILE": os.path.join(temporary, "index"),
        }
        added = git.run("add", "--all", "--force", ".", folder=folder, environment=place)
        tree = git.run("write-tree", folder=folder, environment=place)
        if added.returncode or tree.returncode:
            raise InputError(f"git cannot store files: {_last(added.stderr + tree.stderr)}")
        return tree.stdout.decode().strip()


def _last(printed: bytes) -> str:
    lines = printed.decode("utf-8", "replace").strip().splitlines()
    return lines[-1] if lines else "it says nothing"
