"""What decides a result, but for the params that are varied: one short name for it.

Two experiments with the same name differ in nothing but those params: not in code, data, versions
or other params. So a group of seeds, or the trials of a search, are found without a store.
"""

import hashlib
import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import yaml

from src.base.keys import Value
from src.plumbing import dvc_files, git, identity
from src.plumbing.dvc_files import STAGES
from src.plumbing.errors import GateError, InputError

LENGTH = 8  # hexadecimal digits of a name: 50 % for one clash among 77,000 (birthday bound)


def digest(found: Mapping[str, Any], extra: Any = None) -> str:
    """The name of a configuration whose `inputs` are `found`; `extra`: what else shall tell it from
    others."""
    identity = {"stages": found, "extra": extra}
    text = json.dumps(identity, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:LENGTH]


def inputs(params: Mapping[str, Value], varied: Collection[str] = ()) -> dict[str, Any]:
    """By stage: the params that it declares without `varied`, and the md5 of the inputs that no
    other stage makes. InputError if one is missing. A stage that dvc.yaml lacks is left out."""
    versions = dvc_files.read_versions()
    entries = [dvc_files.stage_entry(name, params) for name in dvc_files.declared_stages(STAGES)]
    made = {out for entry in entries for out in entry.outs}
    return {
        entry.name: {
            "params": {
                key: identity.canonical(value)
                for key, value in identity.declared_values(entry, params, versions).items()
                if key not in varied
            },
            "deps": {dep: _md5(dep) for dep in entry.deps if dep not in made},
        }
        for entry in entries
    }


def require_in_git(found: Mapping[str, Any]) -> None:
    """InputError if the code in `inputs` has a file that git does not know: the queue works in a
    clone without it, so its results would be those of another configuration."""
    deps = {dep for stage in found.values() for dep in stage["deps"] if dvc_files.is_code(dep)}
    listed = git.output("ls-files", "--others", "-z", "--", *sorted(deps)) or ""
    for name in filter(None, listed.split("\0")):
        if not any(map(dvc_files.LEFT_OUT.fullmatch, Path(name).parts)):
            raise InputError(
                f"{name} is not in git, and the queue does not see it: git add it, or move it"
            )


def require_unchanged(
    before: Mapping[str, Any], params: Mapping[str, Value], varied: Collection[str]
) -> None:
    """GateError, with the name of what changed, if `inputs` are no longer what they were."""
    now = inputs(params, varied)
    if now == before:
        return
    named = [
        {(part, key): value for item in found.values() for part in item
         for key, value in item[part].items()}
        for found in (before, now)
    ]  # fmt: skip
    changed = [key for part, key in {**named[0], **named[1]}
               if named[0].get((part, key)) != named[1].get((part, key))]  # fmt: skip
    raise GateError(
        f"{(changed or ['dvc.yaml'])[0]} changed while trials were queued: put it back, and give "
        "the command again"
    )


def locked_inputs(lock: str, like: Mapping[str, Any], varied: Collection[str]) -> dict[str, Any]:
    """The same of a dvc.lock; `like`: what `inputs` gave, for the stages and inputs to look at.
    Empty if a stage is missing, or ran on something else than what an earlier one made."""
    found, made = {}, dict[str, str]()
    for name, wanted in like.items():
        locked = identity.locked_stage(lock, name)
        if locked is None or any(made.get(dep, md5) != md5 for dep, md5 in locked["deps"].items()):
            return {}
        made |= locked["outs"]
        found[name] = {
            "params": {
                key: identity.canonical(value)
                for key, value in locked["params"].items()
                if key not in varied
            },
            "deps": {dep: locked["deps"].get(dep, "") for dep in wanted["deps"]},
        }
    return found


def _md5(dep: str) -> str:
    """The md5 of an input; that of a large one which DVC tracks is written beside it."""
    tracked = Path(f"{dep}.dvc")
    if tracked.is_file():
        outs = (yaml.safe_load(tracked.read_text(encoding="utf-8")) or {}).get("outs") or [{}]
        return str(outs[0].get("md5", ""))
    if not Path(dep).exists():
        raise InputError(f"{dep} does not exist: name another one in params.yaml")
    return dvc_files.md5_of(dep)
