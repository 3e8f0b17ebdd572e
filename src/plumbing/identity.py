"""What a result is: the fingerprint of its stage, and how its inputs differ from other ones.

`fingerprint` = sha256 of {cmd, deps: {path: md5 as DVC writes it}, params}. A stage computes it
from the files that it is about to read; `locked_stage` in a dvc.lock gives the same value, so a
result leads to its run without a checkout.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from src.plumbing import dvc_files, hashes, params
from src.plumbing.dvc_files import VERSIONS_FILE, StageEntry
from src.plumbing.errors import InputError
from src.plumbing.keys import INTEGER, NUMBER, Value
from src.plumbing.params import FILE as PARAMS_FILE
from src.plumbing.yaml_loaders import BaseLoader

METRICS = "results/evaluate/metrics.json"
MODEL = "models/model.json"  # what train writes beside the weights; it holds its fingerprint
Entry = Mapping[str, Any]  # a stage in the form of `locked_stage`; not all of its parts are needed


def canonical(value: Any) -> Any:
    """`value` such that every spelling that means the same is equal: 1 = 1.0 = '1' = '010' - 9. Of
    a list or mapping each item; None, for what is missing, stays.

    params.yaml, dvc.lock and versions.yaml are written by different hands (DVC writes `-S lr=1e-5`
    as 1e-05 and `-S epochs=010` as a quoted string); a fingerprint must not depend on that.
    """
    if value is None:
        return None
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return [canonical(item) for item in value]
    if isinstance(value, Mapping):
        return {key: canonical(item) for key, item in value.items()}
    text = str(value)
    if INTEGER.fullmatch(text):
        return int(text)
    if NUMBER.fullmatch(text):
        number = float(text)
        return int(number) if number.is_integer() and abs(number) < 2**53 else number
    return text


def fingerprint_of(entry: Entry) -> str:
    """sha256 (hex) of what a stage is, in the form of `locked_stage`; see the head of this file."""
    identity = {"cmd": entry["cmd"], "deps": entry["deps"], "params": canonical(entry["params"])}
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode("utf-8")).hexdigest()


def declared_values(
    entry: StageEntry, params: Mapping[str, Any], versions: Mapping[str, str]
) -> dict[str, Any]:
    """What the stage declares as params: its keys of params.yaml and its package versions."""
    values: dict[str, Any] = {key: params[key] for key in entry.params}
    for package in entry.versions:
        values[f"{VERSIONS_FILE}:{package}"] = versions.get(package, "")
    return values


def locked_names(lock_text: str) -> list[str]:
    """The stages of the text of a dvc.lock; InputError if it cannot be read."""
    try:
        return list((yaml.load(lock_text, BaseLoader) or {}).get("stages") or {})
    except (yaml.YAMLError, AttributeError, TypeError) as error:
        raise _unreadable(error) from None


def locked_stage(lock_text: str, name: str) -> dict[str, Any] | None:
    """The entry of stage `name` in the text of a dvc.lock: {"cmd", "deps": {path: md5}, "params",
    "outs": {path: md5}}, every value as text; a package version is a param `<file>:<package>`. None
    if the stage is not in it; InputError if it cannot be read."""
    try:
        lock = yaml.load(lock_text, BaseLoader) or {}
        stage = (lock.get("stages") or {}).get(name)
    except (yaml.YAMLError, AttributeError) as error:
        raise _unreadable(error) from None
    return None if stage is None else entry_of(stage)


def entry_of(stage: Any) -> dict[str, Any]:
    """The entry of a stage, in the form of `locked_stage`, of what dvc.lock has under its name;
    InputError if that is no stage."""
    try:
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
    except (AttributeError, KeyError, TypeError) as error:
        raise _unreadable(error) from None


def _unreadable(error: Exception) -> InputError:
    return InputError(f"dvc.lock cannot be read ({' '.join(str(error).split())})")


def metrics_belong(metrics: str, train: Entry, evaluate: Entry | None) -> bool:
    """Whether the text of METRICS describes the network of a dvc.lock, whose entries are given:
    evaluate may not have run on it."""
    md5_of_metrics = hashlib.md5(metrics.encode()).hexdigest()
    if evaluate is None or evaluate["outs"].get(METRICS) != md5_of_metrics:
        return False
    return all(evaluate["deps"].get(out, md5) == md5 for out, md5 in train["outs"].items())


def other_origin(train: Entry, model: str) -> str:
    """The fingerprint in the text of MODEL, if that file is an output of this entry of train and
    yet was made from other inputs: `dvc commit` vouches for files that it has not seen made. Else
    empty."""
    if train["outs"].get(MODEL) != hashlib.md5(model.encode()).hexdigest():
        return ""
    try:
        named = str(json.loads(model)["fingerprint"])
    except (ValueError, KeyError, TypeError):  # of an older version
        return ""
    return "" if named == fingerprint_of(train) else named


@dataclass(frozen=True)
class Difference:
    """An input of a stage with two values; None where it has none. `kind`: param, version (of a
    package) or dep; `never ran`: the stage has no entry before, and `key` is its name."""

    stage: str
    kind: str
    key: str
    before: Any
    now: Any


def differing(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """The keys whose values differ: (before, now), None where there is no such key."""
    return {
        key: (before.get(key), now.get(key))
        for key in {**before, **now}
        if before.get(key) != now.get(key)
    }


def differences(stage: str, before: Entry, now: Entry) -> Iterator[Difference]:
    """What differs between the params, package versions and deps of two entries of a stage."""
    for key, pair in differing(canonical(before["params"]), canonical(now["params"])).items():
        _, colon, package = key.rpartition(":")
        yield Difference(stage, "version" if colon else "param", package, *pair)
    for path, pair in differing(before["deps"], now["deps"]).items():
        yield Difference(stage, "dep", path, *pair)


def differences_from_lock(
    lock: str,
    values: Mapping[str, Value],
    folder: Path | str = ".",
    hashed: Callable[[str], bool] = dvc_files.is_code,
) -> Iterator[Difference]:
    """How what the stages of `folder`/dvc.yaml declare differs from the text of a dvc.lock, stage
    by stage. `values`: the params; `hashed` says which deps to look at, as data take long to hash.
    What is in the lock and no longer declared does not count."""
    versions = dvc_files.read_versions(folder)
    for name in dvc_files.declared_stages(folder):
        entry = dvc_files.stage_entry(name, values, folder)
        if (locked := locked_stage(lock, name)) is None:
            yield Difference(name, "never ran", name, None, None)
            continue
        given = {**dict.fromkeys(entry.params), **values}  # None for a key that params.yaml lacks
        params = declared_values(entry, given, versions)
        deps = {dep: hashes.md5_of(Path(folder, dep)) for dep in entry.deps if hashed(dep)}
        before = {
            "params": {key: locked["params"].get(key) for key in params},
            "deps": {dep: locked["deps"].get(dep) for dep in deps},
        }
        yield from differences(name, before, {"params": params, "deps": deps})


def changed_inputs(lock: str) -> list[str]:
    """The params and code files of the workspace that differ from the text of a dvc.lock, in words;
    one line of trouble if they cannot be read. `dvc status` looks at the data, too."""
    changed = []
    try:
        for item in differences_from_lock(lock, params.load()):
            if item.kind == "never ran":
                changed.append(f"{item.key} has not run")
            elif item.kind == "dep":
                changed.append(item.key)
            else:
                changed.append(f"{item.key}={item.now}")
    except (InputError, OSError) as error:
        return [str(error)]
    return list(dict.fromkeys(changed))
