"""What a stage is made of: its entry in dvc.yaml, its fingerprint, and the main repository.

`fingerprint` = sha256 of {cmd, deps: {path: md5 as DVC writes it}, params}. A stage computes it
from the files it is about to read; `fingerprint_from_lock` gets the same value from a dvc.lock,
so a result leads to the run that made it without a checkout.
"""

import hashlib
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from src.errors import InputError
from src.params import FILE as PARAMS_FILE
from src.schema import INTEGER, NUMBER, Value

VERSIONS_FILE = "requirements/versions.yaml"
TEMPORARY_WORKSPACES = ".dvc/tmp/exps"  # where DVC runs --temp and queued experiments


@dataclass(frozen=True)
class StageEntry:
    """A stage as dvc.yaml declares it, `${...}` filled in: what it runs, reads and writes."""

    name: str
    cmd: str
    deps: tuple[str, ...]
    params: tuple[str, ...]
    versions: tuple[str, ...]
    outs: tuple[str, ...] = ()
    uncached: tuple[str, ...] = ()  # those of `outs` that DVC leaves to git


def main_repository(cwd: Path | None = None) -> Path:
    """The repository that the user cloned, also when `cwd` (default: the working directory) is a
    temporary workspace of DVC inside it. `.cache` and the MLflow store live there."""
    here = (cwd or Path.cwd()).resolve()
    workspace = next((path for path in (here, *here.parents) if (path / ".dvc").is_dir()), here)
    given = os.environ.get("DVC_ROOT")
    if given:
        root = Path(given).resolve()
        # DVC's own points to this workspace or to the repository that the workspace belongs to;
        # one that the user exported for another project, or for one around this, does not.
        if root == workspace or (root / TEMPORARY_WORKSPACES).resolve() in workspace.parents:
            return root
    before, found, _ = workspace.as_posix().rpartition(f"/{TEMPORARY_WORKSPACES}/")
    return Path(before) if found else workspace


def stages(folder: Path | str = ".") -> dict[str, Any]:
    """The stages of `folder`/dvc.yaml as they stand there. OSError, YAMLError, KeyError or
    TypeError if it cannot be read."""
    text = (Path(folder) / "dvc.yaml").read_text(encoding="utf-8")
    # libyaml, where PyYAML comes with it, is ten times as fast.
    found: dict[str, Any] = yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))["stages"]
    return found


def declared_stages(names: Sequence[str], folder: Path | str = ".") -> list[str]:
    """Those of `names` that `folder`/dvc.yaml has: a project may be cut down to fewer stages.
    InputError if it cannot be read."""
    try:
        found = stages(folder)
        return [name for name in names if name in found]
    except (OSError, yaml.YAMLError, KeyError, TypeError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"dvc.yaml: no readable stages ({reason})") from None


def stage_entry(name: str, params: Mapping[str, Value], folder: Path | str = ".") -> StageEntry:
    """The entry of stage `name` in `folder`/dvc.yaml; InputError if there is none."""
    try:
        return _entry(name, stages(folder)[name], params)
    except (OSError, yaml.YAMLError, AttributeError, KeyError, TypeError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"dvc.yaml: no readable stage {name} ({reason})") from None


def _entry(name: str, raw: Mapping[str, Any], params: Mapping[str, Value]) -> StageEntry:
    def value(match: re.Match[str]) -> str:
        if (key := match[1].strip()) not in params:
            raise InputError(f"dvc.yaml: stage {name} uses ${{{key}}}, which is no key of params")
        return str(params[key])

    def fill(text: str) -> str:
        return re.sub(r"\$\{([^}]+)\}", value, text)

    declared: dict[str, list[str]] = {PARAMS_FILE: [], VERSIONS_FILE: []}
    for item in raw.get("params", []):
        for file, keys in ({PARAMS_FILE: [item]} if isinstance(item, str) else item).items():
            if file not in declared or not isinstance(keys, list):
                raise InputError(
                    f"dvc.yaml: stage {name} takes params of {file}: only keys of {PARAMS_FILE} "
                    f"and of {VERSIONS_FILE}, in a list, are known here"
                )
            declared[file] += keys
    outs: dict[str, bool] = {}  # path to whether DVC leaves it to git
    for out in (out for kind in ("outs", "metrics", "plots") for out in raw.get(kind, [])):
        path, options = next(iter(out.items())) if isinstance(out, dict) else (out, {})
        outs[fill(path)] = (options or {}).get("cache") is False
    return StageEntry(
        name=name,
        cmd=fill(raw["cmd"]),
        deps=tuple(fill(dep) for dep in raw.get("deps", [])),
        params=tuple(declared[PARAMS_FILE]),
        versions=tuple(declared[VERSIONS_FILE]),
        outs=tuple(outs),
        uncached=tuple(path for path, is_uncached in outs.items() if is_uncached),
    )


def read_versions(folder: Path | str = ".") -> dict[str, str]:
    """The package versions that the lock file pins, by name; InputError if they cannot be read."""
    try:
        text = (Path(folder) / VERSIONS_FILE).read_text(encoding="utf-8")
        versions = yaml.load(text, Loader=yaml.BaseLoader)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        versions = " ".join(str(error).split())
    if isinstance(versions, dict) and all(isinstance(item, str) for item in versions.values()):
        return versions
    raise InputError(
        f"{VERSIONS_FILE} holds no package versions ({versions or 'it is empty'}): bring it back "
        f"with `git checkout {VERSIONS_FILE}`, or make it anew with `make lock`"
    )


def md5_of(path: Path | str) -> str:
    """The md5 that DVC writes for a file, or for a folder (`<md5 of its listing>.dir`)."""
    path = Path(path)
    if not path.is_dir():
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "md5").hexdigest()
    below = files_below(path)
    return md5_of_folder({item.relative_to(path).as_posix(): md5_of(item) for item in below})


def md5_of_folder(files: Mapping[str, str]) -> str:
    """That of a folder whose files, by their path in it, have these md5."""
    # Sorted as DVC sorts it before it hashes the listing.
    listing = [{"md5": files[name], "relpath": name} for name in sorted(files)]
    return hashlib.md5(json.dumps(listing, sort_keys=True).encode("utf-8")).hexdigest() + ".dir"


# Nobody's data and nobody's code: what .dvcignore leaves out of any folder.
LEFT_OUT = re.compile(r"__pycache__|\.ipynb_checkpoints|.*\.pyc|\..*\.sw.|.*~|\.DS_Store")


def is_code(dep: str) -> bool:
    """Whether a dependency is code: a Python file, or a folder of them."""
    return dep.endswith(".py") or dep.startswith("src/")


def files_below(folder: Path) -> list[Path]:
    """The files that DVC counts as part of a folder, in no particular order: all but what
    .dvcignore leaves out."""
    return [
        item
        for item in folder.rglob("*")
        if item.is_file() and not any(map(LEFT_OUT.fullmatch, item.relative_to(folder).parts))
    ]


def canonical(value: Any) -> Any:
    """`value` such that every spelling that means the same is equal: 1 = 1.0 = '1' = '010' - 9.

    params.yaml, dvc.lock and versions.yaml are written by different hands (DVC writes `-S lr=1e-5`
    as 1e-05 and `-S epochs=010` as a quoted string); a fingerprint must not depend on that.
    """
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return [canonical(item) for item in value]
    text = str(value)
    if INTEGER.fullmatch(text):
        return int(text)
    if NUMBER.fullmatch(text):
        number = float(text)
        return int(number) if number.is_integer() and abs(number) < 2**53 else number
    return text


def fingerprint(cmd: str, deps: Mapping[str, str], params: Mapping[str, Any]) -> str:
    """sha256 (hex) of what a stage is; see the head of this file. `params` holds the values by key
    and the versions as `<file>:<package>`."""
    identity = {
        "cmd": cmd,
        "deps": dict(deps),
        "params": {key: canonical(value) for key, value in params.items()},
    }
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode("utf-8")).hexdigest()


def declared_values(
    entry: StageEntry, params: Mapping[str, Value], versions: Mapping[str, str]
) -> dict[str, Any]:
    """What the stage declares as params: its keys of params.yaml and its package versions."""
    values: dict[str, Any] = {key: params[key] for key in entry.params}
    for package in entry.versions:
        values[f"{VERSIONS_FILE}:{package}"] = versions.get(package, "")
    return values


def locked_stage(lock_text: str, name: str) -> dict[str, Any] | None:
    """What a dvc.lock says of stage `name`: {"cmd", "deps": {path: md5}, "params", "outs"}, every
    value as text; None when the stage is not in it."""
    # BaseLoader keeps the text of each value, so nothing depends on a YAML version's guesses.
    lock = yaml.load(lock_text, Loader=getattr(yaml, "CBaseLoader", yaml.BaseLoader)) or {}
    stage = (lock.get("stages") or {}).get(name)
    if stage is None:
        return None
    params: dict[str, Any] = {}
    for file, values in (stage.get("params") or {}).items():
        prefix = "" if file == PARAMS_FILE else f"{file}:"
        params.update({prefix + key: value for key, value in values.items()})
    return {
        "cmd": stage["cmd"],
        "deps": {dep["path"]: dep.get("md5", "") for dep in stage.get("deps") or []},
        "params": params,
        "outs": {out["path"]: out.get("md5", "") for out in stage.get("outs") or []},
    }


def fingerprint_from_lock(lock_text: str, name: str) -> str | None:
    """The fingerprint of stage `name` in a dvc.lock; None when the stage is not in it."""
    stage = locked_stage(lock_text, name)
    if stage is None:
        return None
    return fingerprint(stage["cmd"], stage["deps"], stage["params"])
