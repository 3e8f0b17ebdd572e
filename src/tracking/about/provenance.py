"""What an MLflow run says about where its numbers come from: its params, its tags and its name. The
name carries the change, since a list of runs shows names first."""

import functools
import getpass
import hashlib
import os
import shlex
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from src.plumbing import identity, workspace
from src.plumbing.dvc_files import VERSIONS_FILE, is_code
from src.plumbing.errors import InputError
from src.plumbing.git import files_changed, output
from src.plumbing.identity import Entry
from src.plumbing.stage import Stage
from src.plumbing.workspace import read_here
from src.tracking.about import machine
from src.tracking.journal.journal import warn

NAME_LENGTH = 80
TAG_LENGTH = 5000  # characters; MLflow's own store takes 8000, others less
# What a result depends on, as git takes paths, beside params.yaml and what DVC makes of it.
SOURCES = ("src", "dvc.yaml", VERSIONS_FILE, ":(glob)**/*.dvc")


def run_name(stage: Stage) -> str:
    """`train lr=0.003 code:training/loop.py`: the stage and what differs from HEAD's dvc.lock;
    `train baseline` if nothing does, `train first` if HEAD has no such stage."""
    return _name(stage.name, changes(stage.name, _entry(stage)))


def params(stage: Stage) -> dict[str, str]:
    """Every key of params.yaml that the stage declares, sections dotted."""
    return _only_keys(_entry(stage)["params"])


def tags(stage: Stage) -> dict[str, str]:
    """Where the run of a stage comes from. What cannot be known (no git, no GPU) is left out. Never
    the environment or the address of the tracking server: both may hold passwords."""
    found = {
        **tool_tags(stage.name, stage.deps_md5),
        "fingerprint": stage.fingerprint,
        **_dvc_tags(),
        "versions.match": "false" if stage.different_versions else "true",
        "changed": " ".join(changes(stage.name, _entry(stage)) or ()),
        # The pages show what stands behind the last slash: without the paths, the module.
        "mlflow.source.name": " ".join(stage.entry.cmd.split()[:3]),
    }
    return _known(found)


def tool_tags(tool: str, data: Mapping[str, str]) -> dict[str, str]:
    """The same for a tool that looks at the workspace; `data`: the md5 of what it read, by path."""
    # While a stage runs, params.yaml and the results always differ from HEAD.
    status = ("--no-optional-locks", "status", "--porcelain", "--untracked-files=normal")
    commit, changed = head(), git(*status, "--", *SOURCES)
    found = {
        "stage": tool,
        "mlflow.user": user(),
        "git.commit": commit,
        "mlflow.source.git.commit": commit,  # MLflow's own: its pages show it as the source
        "git.dirty": "" if changed is None else str(bool(changed.strip())).lower(),
        "code.sha256": code_sha256(),
        "data.md5": data_md5(data),
        **machine.tags(),
        "mlflow.source.name": f"python -m src.{tool}",
    }
    return _known(found)


def settings(stage: Stage) -> str:
    """What decides, beside the model, which numbers `evaluate` gets: its data and its params."""
    return " ".join(f"{key}={value}" for key, value in _settings(stage).items())[:TAG_LENGTH]


def name_beside(stage: Stage, other: str) -> str:
    """`evaluate evaluate.flip=true`: what differs from another evaluation (its `settings`)."""
    before = dict(word.partition("=")[::2] for word in other.split())
    changed = {key: value for key, value in _settings(stage).items() if before.get(key) != value}
    data = ["data:prepared"] if changed.pop("data", None) is not None else []
    return _name(stage.name, data + [f"{key}={value}" for key, value in changed.items()])


def _settings(stage: Stage) -> dict[str, str]:
    return {"data": data_md5(stage.deps_md5), **params(stage)}


def restored_train(fingerprint: str) -> tuple[str, dict[str, str], dict[str, str]]:
    """Name, params and tags for the run of a model that was trained elsewhere, as far as the
    workspace's dvc.lock knows them: nothing is said of the code and machine that trained it."""
    found = {"stage": "train", "fingerprint": fingerprint, "restored": "true", **_dvc_tags()}
    name, params = "train restored", {}
    if entry := _locked_train(fingerprint):
        changed = changes("train", entry)
        name, params = _name(name, changed), _only_keys(entry["params"])
        found |= {"data.md5": data_md5(entry["deps"]), "changed": " ".join(changed or ())}
    return name, params, _known(found)


def train_entry(stage: Stage, fingerprint: str) -> Entry | None:
    """The training with this fingerprint in the form of `locked_stage`: `stage` itself, or the one
    in the workspace's dvc.lock; None if it is neither."""
    return _entry(stage) if stage.fingerprint == fingerprint else _locked_train(fingerprint)


def is_foreign_model() -> bool:
    """Whether the workspace's dvc.lock vouches for a model that other inputs made."""
    entry, model = _locked_here("train"), None
    with suppress(InputError, OSError):
        model = read_here(identity.MODEL)
    return bool(entry and model and identity.other_origin(entry, model))


def _locked_train(fingerprint: str) -> Entry | None:
    entry = _locked_here("train")
    return entry if entry and identity.fingerprint_of(entry) == fingerprint else None


def changes(name: str, entry: Entry) -> list[str] | None:
    """What differs between `entry`, in the form of `locked_stage`, and the stage of this name in
    HEAD's dvc.lock: `lr=0.003`, `code:training/loop.py`, `data:subset`, `torch=2.15.1`, and `-...`
    for what is gone; None if HEAD has no such stage. Of data that a stage made it says what differs
    in the making: `prepare.size=64`."""
    old = _locked(git("cat-file", "blob", "HEAD:./dvc.lock"), name)
    if old is None:
        return None
    found = list(identity.differences(name, old, entry))
    params, versions, deps = (
        [item for item in found if item.kind == kind] for kind in ("param", "version", "dep")
    )
    # Another path that a param gives (`data/${train_on}`) is named by the param.
    given = tuple(f"/{value}" for item in params for value in (item.before, item.now))
    deps = [
        item
        for item in deps
        if None not in (item.before, item.now) or not f"/{item.key}".endswith(given)
    ]
    gone = {item.key for item in deps if item.now is None}
    code = {item.key: item.before or "" for item in deps if item.now and is_code(item.key)}
    files = {file for path in code for file in files_changed(path, code[path])}
    gone |= {file for file in files if not Path(file).exists()}
    data = sorted(item.key for item in deps if item.now and item.key not in code)
    words = set(shlex.split(entry["cmd"])) ^ set(shlex.split(old["cmd"]))
    lines = [
        *(f"{item.key}={item.now}" for item in params if item.now is not None),
        *(_short(path) for path in sorted(files - gone)),
        *(line for path in data for line in _of_input(path, entry["deps"][path])),
        *(f"{item.key}={item.now}" for item in versions if item.now is not None),
        *(f"-{item.key}" for item in [*params, *versions] if item.now is None),
        *(f"-{_short(path)}" for path in sorted(gone)),
        *(["cmd"] if any(not f"/{word}".endswith(given) for word in words) else []),
    ]
    return list(dict.fromkeys(lines))


def _of_input(path: str, md5: str) -> list[str]:
    """Why an input changed: what changed in the stage of dvc.lock that made it, else its name."""
    with suppress(InputError, OSError):
        lock = read_here("dvc.lock") or ""
        for name in identity.locked_names(lock) if path.startswith("data/") else ():
            made = _locked(lock, name)
            if made and made["outs"].get(path) == md5:
                return changes(name, made) or [_short(path)]
    return [_short(path)]


def _locked_here(name: str) -> Entry | None:
    """The stage of this name in the workspace's dvc.lock."""
    with suppress(InputError, OSError):
        return _locked(read_here("dvc.lock"), name)
    return None


def _locked(lock: str | None, name: str) -> Entry | None:
    with suppress(InputError):  # one that git has with the marks of a conflict, say
        return identity.locked_stage(lock or "", name)
    return None


def _name(start: str, changed: list[str] | None) -> str:
    """`start` and as many changes as 80 characters hold, then how many more there are."""
    if not changed:
        return f"{start} {'first' if changed is None else 'baseline'}"
    for shown in range(len(changed), 0, -1):
        rest = [f"+{len(changed) - shown}"] if shown < len(changed) else []
        name = " ".join([start, *changed[:shown], *rest])
        if len(name) <= NAME_LENGTH:
            return name
    return f"{start} {' '.join(changed)}"[: NAME_LENGTH - 1] + "…"


def _short(path: str) -> str:
    """`code:training/loop.py`, `code:checks`, `data:prepared`, `input:models/model.json`."""
    if is_code(path):
        return "code:" + path.removeprefix("src/")
    return "data:" + path.removeprefix("data/") if path.startswith("data/") else "input:" + path


def _known(tags: Mapping[str, str]) -> dict[str, str]:
    return {key: value[:TAG_LENGTH] for key, value in tags.items() if value}


def _entry(stage: Stage) -> Entry:
    """What a stage is, in the form of `locked_stage`."""
    return {"cmd": stage.entry.cmd, "deps": stage.deps_md5, "params": stage.declared}


def _only_keys(params: Mapping[str, Any]) -> dict[str, str]:
    """The keys of params.yaml among the params of an entry, without the package versions; one
    spelling per value: MLflow refuses to log a param again as another text (0.0010)."""
    keys = identity.canonical({key: value for key, value in params.items() if ":" not in key})
    return {key: str(value) for key, value in keys.items()}


def data_md5(deps: Mapping[str, str]) -> str:
    """The md5 of the data folder among deps, as DVC writes it; empty if there is none."""
    folders = (md5 for path, md5 in deps.items() if path.startswith("data/"))
    return next((md5 for md5 in folders if md5.endswith(".dir")), "")


def code_sha256() -> str:
    """A hash of all Python files below src/, also of those that no stage lists as a dep."""
    digest = hashlib.sha256()
    for path in sorted(Path("src").rglob("*.py"), key=lambda path: path.as_posix()):
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        digest.update(f"{content}  {path.as_posix()}\n".encode())
    return digest.hexdigest()


def _dvc_tags() -> dict[str, str]:
    return {
        "dvc.exp_name": os.environ.get("DVC_EXP_NAME", ""),
        "dvc.baseline_rev": os.environ.get("DVC_EXP_BASELINE_REV", ""),
    }


def head() -> str:
    """The commit that is checked out; empty without one."""
    return (git("rev-parse", "--verify", "--quiet", "HEAD") or "").strip()


def user() -> str:
    """Who runs this: the author's name that git would write, else the login, which in a container
    is root for everyone. Never an e-mail address."""
    # Not in the workspace: DVC's temporary clones have no configuration of their own.
    configured = git("-C", str(workspace.main_repository()), "config", "user.name")
    name = (os.environ.get("GIT_AUTHOR_NAME") or configured or "").strip()
    if name and "@" not in name:
        return name
    with suppress(OSError, KeyError, ImportError):  # a user id without a name
        return getpass.getuser().partition("@")[0]
    return ""


def git(*arguments: str) -> str | None:
    """What `git` prints; None if it fails or is not installed, and a line says if it refuses."""
    try:
        return output(*arguments)
    except InputError as error:
        _say_once(f"{error}; the run does not name its commit")
        return None


@functools.cache
def _say_once(line: str) -> None:
    warn(line)
