"""What a stage is made of: its entry in dvc.yaml, its fingerprint, and the main repository.

`fingerprint` = sha256 of {cmd, deps: {path: md5 as DVC writes it}, params}. A stage computes it
from the files it is about to read; `fingerprint_from_lock` gets the same value from a dvc.lock,
so a result leads to the run that made it without a checkout.
"""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from src.base.keys import Value
from src.plumbing.errors import InputError
from src.plumbing.params import FILE as PARAMS_FILE

VERSIONS_FILE = "requirements/versions.yaml"


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


STAGES = ("prepare", "subset", "overfit-check", "train", "evaluate")  # those the metrics rest on
