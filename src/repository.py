"""What the folder, its dvc.lock and git tell of the workspace and of DVC's experiments."""

import hashlib
import shlex
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from src import params, pipeline
from src.errors import InputError

METRICS = "results/evaluate/metrics.json"
STAGES = ("prepare", "subset", "overfit-check", "train", "evaluate")  # those the metrics rest on
PROJECT_FILES = ("params.yaml", "dvc.yaml")


@dataclass(frozen=True)
class Experiment:
    """A finished experiment of DVC: commit `rev`, made on the commit `baseline`."""

    name: str
    rev: str
    baseline: str


def require_project() -> None:
    """InputError in a subfolder of a project: the paths of the project would not be found there,
    and what is made would be made in the wrong place."""
    here = Path.cwd()
    if any((here / name).exists() for name in PROJECT_FILES):
        return
    for folder in here.parents:
        if all((folder / name).is_file() for name in PROJECT_FILES):
            raise InputError(
                f"run this in the folder of the project: `cd {shlex.quote(str(folder))}` first"
            )


def changed_inputs(lock: str) -> list[str]:
    """The params and code files of the workspace that differ from those in dvc.lock, whose text is
    `lock`; one line of trouble if they cannot be read."""
    try:
        values, versions = params.load(), pipeline.read_versions()
        stages = pipeline.stages()
        changed: dict[str, None] = {}  # a set that keeps its order
        for name in STAGES:
            if name not in stages:  # a project may be cut down to fewer
                continue
            entry, locked = pipeline.stage_entry(name, values), pipeline.locked_stage(lock, name)
            if locked is None:
                changed[f"{name} has not run"] = None
                continue
            for key, value in pipeline.declared_values(entry, values, versions).items():
                if pipeline.canonical(value) != pipeline.canonical(locked["params"].get(key)):
                    changed[f"{key}={value}"] = None
            for dep in entry.deps:  # data takes long to hash: `dvc status` tells of it
                if pipeline.is_code(dep) and pipeline.md5_of(dep) != locked["deps"].get(dep):
                    changed[dep] = None
        return list(changed)
    except (InputError, OSError) as error:
        return [str(error)]
    except (yaml.YAMLError, AttributeError, KeyError, TypeError) as error:
        return [f"dvc.yaml or dvc.lock cannot be read ({' '.join(str(error).split())})"]


def git(*arguments: str) -> str | None:
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
    names = git(*at, "diff", *options, since, *([until] if until else []), "--", dep) or ""
    if not until:
        names += git(*at, "ls-files", "--others", "--exclude-standard", "-z", "--", dep) or ""
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
    found = (git(*at, *log) or "").strip()
    listed = git(*at, "ls-tree", "-r", "-z", "--name-only", found, "--", dep) if found else None
    files = {}
    for name in (listed or "").split("\0")[:-1]:
        text = git(*at, "show", f"{found}:./{name}") or ""
        files[name.removeprefix(f"{dep}/")] = hashlib.md5(text.encode()).hexdigest()
    return found if pipeline.md5_of_folder(files) == md5 else ""


def read_here(path: str) -> str | None:
    """The text of a file of the workspace; None if it is not there. InputError if it is no text."""
    file = Path(path)
    try:
        return file.read_text(encoding="utf-8") if file.is_file() else None
    except UnicodeDecodeError:
        raise InputError(f"{path} is no UTF-8 text: `git checkout {path}` brings it back") from None


def read_at(files: Sequence[tuple[str, str]]) -> list[str | None]:
    """The texts of files of commits, given as (rev, path from this folder); None for one that is
    not there. One process reads all, so 200 commits take about as long as one."""
    prefix = (git("rev-parse", "--show-prefix") or "").strip()
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


def metrics_belong(metrics: str, train: dict[str, Any], evaluate: dict[str, Any] | None) -> bool:
    """Whether the text of METRICS is that of the network in dvc.lock, whose entries are given:
    evaluate may not have run on it."""
    md5_of_metrics = hashlib.md5(metrics.encode()).hexdigest()
    if evaluate is None or evaluate["outs"].get(METRICS) != md5_of_metrics:
        return False
    return all(evaluate["deps"].get(out, md5) == md5 for out, md5 in train["outs"].items())


def head() -> str:
    """The commit that is checked out; empty if there is none."""
    return (git("rev-parse", "--verify", "--quiet", "HEAD") or "").strip()


def experiments() -> list[Experiment]:
    """The finished experiments in this repository, on whatever commit they were made."""
    found = []
    for line in (
        git("for-each-ref", "--format=%(objectname) %(refname)", "refs/exps") or ""
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
        log = git("log", "--walk-reflogs", "--format=%gs", f"refs/exps/celery/{stash}", "--") or ""
        if any(name in entry.split(":")[4:5] for entry in log.splitlines()):
            return state
    return None
