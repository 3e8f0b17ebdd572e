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

from src.experiments import stored
from src.plumbing import dvc_files, git, hashes, identity, params
from src.plumbing.errors import GateError, InputError

LENGTH = 8  # hexadecimal digits of a name: 50 % for one clash among 77,000 (birthday bound)


class Configuration:
    """The workspace with the values `changed` (of -S) in place of some of params.yaml; `varied`:
    the keys that differ between the experiments and do not count. `inputs`: by stage of dvc.yaml
    its params and the md5 of deps that no other stage makes. A stage that only reads a result does
    not decide it, and is left out. InputError if one is missing."""

    def __init__(self, changed: Mapping[str, str], varied: Collection[str]):
        self.changed, self.varied = changed, varied
        self.params = params.load(overrides=changed)
        versions = dvc_files.read_versions()
        entries = [dvc_files.stage_entry(x, self.params) for x in dvc_files.declared_stages()]
        deciding = dvc_files.deciding(entries)
        entries = [entry for entry in entries if entry.name in deciding]
        made = {out for entry in entries for out in entry.outs}
        self.inputs: Mapping[str, identity.Entry] = {
            entry.name: {
                "params": self._fixed(identity.declared_values(entry, self.params, versions)),
                "deps": {dep: _md5(dep) for dep in entry.deps if dep not in made},
            }
            for entry in entries
        }

    def _fixed(self, values: Mapping[str, Any]) -> dict[str, Any]:
        return {key: identity.canonical(x) for key, x in values.items() if key not in self.varied}

    def name(self, extra: Any = None) -> str:
        """A short hash of the inputs; `extra`: what else distinguishes this from others."""
        text = json.dumps({"stages": self.inputs, "extra": extra}, sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()[:LENGTH]

    def results(self) -> dict[int, stored.Result]:
        """The finished results with these inputs, by seed."""
        hashes = [md5 for stage in self.inputs.values() for md5 in stage["deps"].values()]

        def accepts(lock: str) -> bool:
            # To parse one takes milliseconds, and there may be hundreds: look at the text first.
            return all(md5 in lock for md5 in hashes) and self._is_in(lock)

        return stored.by_seed(accepts)

    def _is_in(self, lock: str) -> bool:
        """Whether a dvc.lock has these inputs, and each stage ran on what earlier ones made."""
        entries = {name: identity.locked_stage(lock, name) for name in self.inputs}
        made = {
            out: md5 for entry in entries.values() if entry for out, md5 in entry["outs"].items()
        }
        for name, wanted in self.inputs.items():
            if (entry := entries[name]) is None:
                return False
            deps = {dep: entry["deps"].get(dep, "") for dep in wanted["deps"]}
            if {"params": self._fixed(entry["params"]), "deps": deps} != wanted:
                return False
            if any(made.get(dep, md5) != md5 for dep, md5 in entry["deps"].items()):
                return False
        return True

    def require_in_git(self) -> None:
        """InputError if git does not know some code of the inputs: the queue's clone lacks it."""
        deps = {dep for stage in self.inputs.values() for dep in stage["deps"]}
        code = sorted(filter(dvc_files.is_code, deps))
        listed = git.printed("ls-files", "--others", "-z", "--", *code)
        for name in filter(None, listed.split("\0")):
            if not any(map(hashes.LEFT_OUT.fullmatch, Path(name).parts)):
                raise InputError(
                    f"{name} is not in git, and the queue does not see it: git add it, or move it"
                )

    def require_unchanged(self) -> None:
        """GateError, with the name of what changed, if the workspace is no longer what it was."""
        now = Configuration(self.changed, self.varied).inputs
        if now == self.inputs:
            return
        changed = [
            item.key
            for name, before in self.inputs.items()
            for item in identity.differences(name, before, now.get(name, before))
        ]
        raise GateError(
            f"{(changed or ['dvc.yaml'])[0]} changed while trials were queued: put it back, and "
            "give the command again"
        )


def _md5(dep: str) -> str:
    """The md5 of an input; that of a large one which DVC tracks is written beside it."""
    tracked = Path(f"{dep}.dvc")
    if tracked.is_file():
        outs = (yaml.safe_load(tracked.read_text(encoding="utf-8")) or {}).get("outs") or [{}]
        return str(outs[0].get("md5", ""))
    if not Path(dep).exists():
        raise InputError(f"{dep} does not exist: name another one in params.yaml")
    return hashes.md5_of(dep)
