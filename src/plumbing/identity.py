"""What a result is: the fingerprint of its stage, and what differs between two sets of inputs."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import yaml

from src.base.keys import INTEGER, NUMBER, Value
from src.plumbing import dvc_files, identity, params
from src.plumbing.dvc_files import STAGES, VERSIONS_FILE, StageEntry
from src.plumbing.errors import InputError
from src.plumbing.params import FILE as PARAMS_FILE


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


METRICS = "results/evaluate/metrics.json"


def changed_inputs(lock: str) -> list[str]:
    """The params and code files of the workspace that differ from those in dvc.lock, whose text is
    `lock`; one line of trouble if they cannot be read."""
    try:
        values, versions = params.load(), dvc_files.read_versions()
        stages = dvc_files.stages()
        changed: dict[str, None] = {}  # a set that keeps its order
        for name in STAGES:
            if name not in stages:  # a project may be cut down to fewer
                continue
            entry, locked = dvc_files.stage_entry(name, values), identity.locked_stage(lock, name)
            if locked is None:
                changed[f"{name} has not run"] = None
                continue
            for key, value in identity.declared_values(entry, values, versions).items():
                if identity.canonical(value) != identity.canonical(locked["params"].get(key)):
                    changed[f"{key}={value}"] = None
            for dep in entry.deps:  # data takes long to hash: `dvc status` tells of it
                if dvc_files.is_code(dep) and dvc_files.md5_of(dep) != locked["deps"].get(dep):
                    changed[dep] = None
        return list(changed)
    except (InputError, OSError) as error:
        return [str(error)]
    except (yaml.YAMLError, AttributeError, KeyError, TypeError) as error:
        return [f"dvc.yaml or dvc.lock cannot be read ({' '.join(str(error).split())})"]


def metrics_belong(metrics: str, train: dict[str, Any], evaluate: dict[str, Any] | None) -> bool:
    """Whether the text of METRICS is that of the network in dvc.lock, whose entries are given:
    evaluate may not have run on it."""
    md5_of_metrics = hashlib.md5(metrics.encode()).hexdigest()
    if evaluate is None or evaluate["outs"].get(METRICS) != md5_of_metrics:
        return False
    return all(evaluate["deps"].get(out, md5) == md5 for out, md5 in train["outs"].items())
