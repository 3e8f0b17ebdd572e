"""What DVC reads: the stages of dvc.yaml, and the versions of packages."""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import yaml

from src.plumbing.errors import InputError
from src.plumbing.keys import Value
from src.plumbing.params import FILE as PARAMS_FILE
from src.plumbing.yaml_loaders import BaseLoader, SafeLoader

# Those whose results the tools read, in the order they run; dvc.yaml may have more, or fewer.
STAGES = ("prepare", "subset", "overfit-check", "train", "evaluate")
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


def declared_stages(folder: Path | str = ".") -> list[str]:
    """The stages of `folder`/dvc.yaml whose inputs are known, in its order: STAGES, as far as they
    are there, and all that run a module of src. InputError if the file cannot be read."""
    own = modules(folder)
    with readable("stages"):
        return [name for name in _stages(folder) if name in STAGES or name in own]


def modules(folder: Path | str = ".") -> dict[str, str]:
    """The stages of `folder`/dvc.yaml that run a module of src, in its order, and that module.
    InputError if the file cannot be read."""
    with readable("stages"):
        found = {name: module_of(raw.get("cmd")) for name, raw in _stages(folder).items()}
        return {name: module for name, module in found.items() if module}


def module_of(cmd: Any) -> str:
    """`src.train` of the command `python -m src.train ...`; empty for another kind of command."""
    words = cmd.split() if isinstance(cmd, str) else []
    is_module = words[:2] == ["python", "-m"] and "".join(words[2:3]).startswith("src.")
    return words[2] if is_module else ""


def deciding(entries: Sequence[StageEntry]) -> set[str]:
    """The names of STAGES and of the stages whose outputs lead to them: what others make, such as a
    report of the result, does not decide it."""
    maker = {out: entry for entry in entries for out in entry.outs}
    found, todo = set(), [entry for entry in entries if entry.name in STAGES]
    while todo:
        entry = todo.pop()
        found.add(entry.name)
        todo += [maker[dep] for dep in entry.deps if dep in maker and maker[dep].name not in found]
    return found


def stage_entry(name: str, params: Mapping[str, Value], folder: Path | str = ".") -> StageEntry:
    """The entry of stage `name` in `folder`/dvc.yaml; InputError if there is none."""
    with readable(f"stage {name}"):
        return _entry(name, _stages(folder)[name], params)


@contextmanager
def readable(what: str) -> Iterator[None]:
    """InputError, in one line, for a dvc.yaml in which `what` cannot be read."""
    try:
        yield
    except (OSError, yaml.YAMLError, AttributeError, KeyError, TypeError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"dvc.yaml: no readable {what} ({reason})") from None


def _stages(folder: Path | str) -> Any:
    text = (Path(folder) / "dvc.yaml").read_text(encoding="utf-8")
    return yaml.load(text, SafeLoader)["stages"]


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
        versions = yaml.load(text, BaseLoader)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        versions = " ".join(str(error).split())
    if isinstance(versions, dict) and all(isinstance(item, str) for item in versions.values()):
        return versions
    raise InputError(
        f"{VERSIONS_FILE} holds no package versions ({versions or 'it is empty'}): bring it back "
        f"with `git checkout {VERSIONS_FILE}`, or make it anew with `make lock`"
    )


def different_versions(locked: Mapping[str, str]) -> dict[str, tuple[str | None, str]]:
    """The packages whose installed version is not the one in `locked`: (installed, locked). None
    for one that is not installed."""
    different = {}
    for package, version in locked.items():
        try:
            installed = metadata.version(package)
        except metadata.PackageNotFoundError:
            installed = None
        if installed != version:
            different[package] = (installed, version)
    return different


def is_code(dep: str) -> bool:
    """Whether a dependency is code: a Python file, or a folder of them."""
    return dep.endswith(".py") or dep.startswith("src/")
