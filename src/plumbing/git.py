"""The only caller of `git`: what it knows about the project's folder and DVC's experiments."""

import hashlib
import os
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from src.plumbing import hashes
from src.plumbing.errors import InputError

# What git prints must not depend on a user's settings. Those of what it does, such as hooks and
# signatures of commits, stay as they are.
PLAIN = {
    "color.ui": "false",
    "core.quotePath": "false",
    "i18n.logOutputEncoding": "UTF-8",
    "log.showSignature": "false",
}
# Inside a hook, git tells by these which repository it works on, whatever the folder.
LOCAL = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_PREFIX", "GIT_OBJECT_DIRECTORY")
NO_REPOSITORY = "not a git repository (or any"


@dataclass(frozen=True)
class Experiment:
    """A finished experiment of DVC: commit `rev`, made on the commit `baseline`."""

    name: str
    rev: str
    baseline: str


def run(
    *arguments: str,
    folder: Path | str = ".",
    given: bytes = b"",
    environment: Mapping[str, str] | None = None,
    seconds: float | None = None,
) -> subprocess.CompletedProcess[bytes]:
    """Run `git` in `folder` to its end. `given`: its standard input; `environment`: more variables;
    `seconds`: subprocess.TimeoutExpired after that time. InputError if git is not installed."""
    given_to_git = {**variables(), "GIT_TERMINAL_PROMPT": "0", **(environment or {})}
    settings = [word for key, value in PLAIN.items() for word in ("-c", f"{key}={value}")]
    try:
        return subprocess.run(
            ["git", "-C", str(folder), *settings, *arguments],
            input=given,
            capture_output=True,
            env=given_to_git,
            timeout=seconds,
            check=False,
        )
    except FileNotFoundError:
        raise InputError("git is not installed, or not on PATH") from None


def variables() -> dict[str, str]:
    """The environment, without what would lead git to another repository than a folder's."""
    return {key: value for key, value in os.environ.items() if key not in LOCAL}


def output(*arguments: str, folder: Path | str = ".") -> str | None:
    """What `git` prints in `folder`; None if it fails, as for what is not there. InputError, with
    git's reason, if it refuses to read the repository, and if it is not installed."""
    done = run(*arguments, folder=folder)
    if done.returncode == 0:
        return done.stdout.decode("utf-8", "replace")
    if why := refusal(folder):
        raise InputError(f"git does not read this repository: {why}")
    return None


def printed(*arguments: str, folder: Path | str = ".") -> str:
    """What `git` prints in `folder`. InputError, with its reason, if it fails."""
    done = run(*arguments, folder=folder)
    if done.returncode:
        said = " ".join(done.stderr.decode("utf-8", "replace").split())
        raise InputError(f"`git {arguments[0]}` failed: {said.removeprefix('fatal: ')}")
    return done.stdout.decode("utf-8", "replace")


def refusal(folder: Path | str = ".") -> str:
    """Why git reads nothing at all in a repository, in its words and one line, such as that another
    user owns it; empty if it does, and where there is none."""
    done = run("rev-parse", "--git-dir", folder=folder, environment={"LC_ALL": "C"})
    said = " ".join(done.stderr.decode("utf-8", "replace").split())
    return "" if done.returncode == 0 or NO_REPOSITORY in said else said.removeprefix("fatal: ")


def files_between(dep: str, since: str, until: str = "", folder: Path | str = ".") -> list[str]:
    """The files below the code folder `dep` that differ between two commits or, without `until`,
    between the commit `since` and the files in `folder`. Empty if git cannot say."""

    def listed(*arguments: str) -> str:
        return output("--no-optional-locks", *arguments, "-z", "--", dep, folder=folder) or ""

    commits = [since, until] if until else [since]
    names = listed("diff", "--name-only", "--no-renames", "--relative", *commits)
    if not until:
        names += listed("ls-files", "--others", "--exclude-standard")
    return sorted(name for name in names.split("\0") if name)


def files_changed(dep: str, md5: str, folder: Path | str = ".") -> list[str]:
    """The files of the code folder `dep` that differ from those with the hash `md5` in dvc.lock.
    `dep` itself if it is a file, if `md5` is empty (it was not there), or if git cannot say."""
    if dep.endswith(".py") or not md5:
        return [dep]
    since = commit_of(dep, md5, folder=folder)
    return (files_between(dep, since, folder=folder) if since else []) or [dep]


def commit_of(dep: str, md5: str, rev: str = "HEAD", folder: Path | str = ".") -> str:
    """A commit up to `rev` in which the code folder `dep` has the hash `md5`, the one in dvc.lock
    of `rev`. Empty if there is none."""
    # As a rule the one that brought the hash into dvc.lock; but code may have been edited there.
    log = ("log", "-1", f"-S{md5}", "--format=%H", rev, "--", "dvc.lock")
    if not (found := (output(*log, folder=folder) or "").strip()):
        return ""
    listed = output("ls-tree", "-r", "-z", "--name-only", found, "--", dep, folder=folder) or ""
    files = {}
    for name in listed.split("\0")[:-1]:
        text = output("cat-file", "blob", f"{found}:./{name}", folder=folder) or ""
        files[name.removeprefix(f"{dep}/")] = hashlib.md5(text.encode()).hexdigest()
    return found if hashes.md5_of_folder(files) == md5 else ""


def read_at(files: Sequence[tuple[str, str]]) -> Iterator[str | None]:
    """The texts of files of commits, given as (rev, path from this folder); None for a missing one.
    One process reads all, so 200 commits take about as long as one, and one text after the other,
    so they take as much memory as one."""
    prefix = (output("rev-parse", "--show-prefix") or "").strip()
    with tempfile.TemporaryFile() as wanted:
        wanted.write("".join(f"{rev}:{prefix}{path}\n" for rev, path in files).encode())
        wanted.seek(0)
        command = ["git", "cat-file", "--batch"]
        with subprocess.Popen(
            command,
            stdin=wanted,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=variables(),
        ) as process:
            assert process.stdout is not None
            # Each is "<id> blob <size>\n<content>\n", or "<the line given> missing\n".
            for _ in files:
                last = (process.stdout.readline().split() or [b""])[-1]
                if last.isdigit():
                    yield process.stdout.read(int(last) + 1)[:-1].decode("utf-8", "replace")
                else:
                    yield None


def head() -> str:
    """The commit that is checked out; empty if there is none."""
    return (output("rev-parse", "--verify", "--quiet", "HEAD") or "").strip()


def experiments() -> list[Experiment]:
    """The finished experiments in this repository, on whatever commit they were made."""
    refs = output("for-each-ref", "--format=%(objectname) %(refname)", "refs/exps") or ""
    found = []
    for line in refs.splitlines():
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
        log = output("log", "--walk-reflogs", "--format=%gs", f"refs/exps/celery/{stash}", "--")
        if any(name in entry.split(":")[4:5] for entry in (log or "").splitlines()):
            return state
    return None
