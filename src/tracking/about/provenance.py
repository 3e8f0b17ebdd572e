"""What an MLflow run says about where its numbers come from: its name, params and tags.

The name carries the change: a list of runs shows names before anything else.
"""

import hashlib
import os
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from src.plumbing.dvc_files import STAGES, VERSIONS_FILE, is_code
from src.plumbing.git import files_changed
from src.plumbing.identity import canonical, fingerprint_from_lock, locked_stage
from src.plumbing.stage import Stage
from src.tracking.about import machine

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
    """Where the run comes from. What cannot be known (no git, no GPU) is left out. Never the
    environment or the address of the tracking server: both may hold passwords."""
    git = _git_tags()
    found = {
        "stage": stage.name,
        "fingerprint": stage.fingerprint,
        **_dvc_tags(),
        **git,
        "code.sha256": code_sha256(),
        "data.md5": data_md5(stage.deps_md5),
        "versions.match": "false" if stage.different_versions else "true",
        "changed": " ".join(changes(stage.name, _entry(stage)) or ()),
        **machine.tags(),
        # MLflow's own names: its pages show these two as the source of a run.
        # The pages show what stands behind the last slash: without the paths, the module.
        "mlflow.source.name": " ".join(stage.entry.cmd.split()[:3]),
        "mlflow.source.git.commit": git.get("git.commit", ""),
    }
    return _known(found)


def tool_tags(tool: str, data: Mapping[str, str]) -> dict[str, str]:
    """The same for a tool that looks at the workspace and makes no result; `data`: the md5 of what
    it read, by path."""
    git = _git_tags()
    found = {
        "stage": tool,
        **git,
        "code.sha256": code_sha256(),
        "data.md5": data_md5(data),
        **machine.tags(),
        "mlflow.source.name": f"python -m src.{tool}",
        "mlflow.source.git.commit": git.get("git.commit", ""),
    }
    return _known(found)


def settings(stage: Stage) -> str:
    """What decides, beside the model, which numbers `evaluate` gets: its data and its params."""
    return " ".join(f"{key}={value}" for key, value in _settings(stage).items())[:TAG_LENGTH]


def name_beside(stage: Stage, other: str) -> str:
    """`evaluate evaluate.flip=true`: what differs from the `settings` of another evaluation of the
    same model."""
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


def train_entry(stage: Stage, fingerprint: str) -> dict[str, Any] | None:
    """The training with this fingerprint in the form of `locked_stage`: `stage` itself, or the one
    in the workspace's dvc.lock; None if it is neither."""
    return _entry(stage) if stage.fingerprint == fingerprint else _locked_train(fingerprint)


def _locked_train(fingerprint: str) -> dict[str, Any] | None:
    lock = _read("dvc.lock")
    return (
        locked_stage(lock, "train") if fingerprint_from_lock(lock, "train") == fingerprint else None
    )


def changes(name: str, entry: Mapping[str, Any]) -> list[str] | None:
    """What differs between `entry`, in the form of `locked_stage`, and the stage of this name in
    HEAD's dvc.lock: `lr=0.003`, `code:training/loop.py`, `data:pictures`, `torch=2.15.1`, and
    `-...` for what is gone; None if HEAD has no such stage. Data that a stage made are told by what
    differs in it: `prepare.size=64`."""
    old = locked_stage(git("show", "HEAD:./dvc.lock") or "", name)
    if old is None:
        return None
    params, before = _canonical(entry["params"]), _canonical(old["params"])
    moved = {key for key in params | before if params.get(key) != before.get(key)}
    deps = {path for path in entry["deps"] if old["deps"].get(path) != entry["deps"][path]}
    gone = set(old["deps"]) - set(entry["deps"])
    # Another path that a param gives (`data/${train_on}`) is told by the param.
    given = tuple(f"/{found[key]}" for found in (params, before) for key in moved if key in found)
    deps = {path for path in deps if path in old["deps"] or not f"/{path}".endswith(given)}
    gone = {path for path in gone if not f"/{path}".endswith(given)}
    code = {path for path in deps if is_code(path)}
    files = {file for path in code for file in files_changed(path, old["deps"].get(path, ""))}
    gone |= {file for file in files if not Path(file).exists()}
    words = set(shlex.split(entry["cmd"])) ^ set(shlex.split(old["cmd"]))
    found = [
        *(f"{key}={params[key]}" for key in params if key in moved and ":" not in key),
        *(_short(path) for path in sorted(files - gone)),
        *_of_inputs({path: entry["deps"][path] for path in sorted(deps - code)}),
        *(f"{_package(key)}={params[key]}" for key in params if key in moved and ":" in key),
        *(f"-{_package(key)}" for key in before if key not in params),
        *(f"-{_short(path)}" for path in sorted(gone)),
        *(["cmd"] if any(not f"/{word}".endswith(given) for word in words) else []),
    ]
    return list(dict.fromkeys(found))


def _of_inputs(changed: Mapping[str, str]) -> list[str]:
    """What tells why inputs (path to md5) changed: of data that a stage of the workspace's dvc.lock
    made, its own changes; else their names."""
    lock, found = _read("dvc.lock"), []
    makers = [(name, made) for name in STAGES if (made := locked_stage(lock, name))]
    for path, md5 in changed.items():
        made_by = [(name, made) for name, made in makers if made["outs"].get(path) == md5]
        why = changes(*made_by[0]) if made_by and path.startswith("data/") else None
        found += why or [_short(path)]
    return found


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


def _package(key: str) -> str:
    """`torch` of `requirements/versions.yaml:torch`; a key of params.yaml as it is."""
    return key.rpartition(":")[2]


def _entry(stage: Stage) -> dict[str, Any]:
    """What a stage is, in the form of `locked_stage`."""
    return {"cmd": stage.entry.cmd, "deps": stage.deps_md5, "params": stage.declared}


def _canonical(params: Mapping[str, Any]) -> dict[str, str]:
    """One spelling per value: MLflow refuses to log a param again as another text (0.0010)."""
    return {key: str(canonical(value)) for key, value in params.items()}


def _only_keys(params: Mapping[str, Any]) -> dict[str, str]:
    """The keys of params.yaml among the params of an entry, without the package versions."""
    return {key: value for key, value in _canonical(params).items() if ":" not in key}


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


def _git_tags() -> dict[str, str]:
    found = {"git.commit": (git("rev-parse", "--verify", "--quiet", "HEAD") or "").strip()}
    # While a stage runs, params.yaml and the results always differ from HEAD.
    changed = git("--no-optional-locks", "status", "--porcelain", "--", *SOURCES)
    if changed is not None:
        found["git.dirty"] = "true" if changed.strip() else "false"
    return found


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except OSError:
        return ""


def git(*arguments: str) -> str | None:
    """What `git` prints; None if it fails or there is none."""
    return machine.output("git", *arguments)
