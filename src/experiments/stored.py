"""The results that this repository holds: those of DVC's experiments and of commits, as their
dvc.lock and metrics say without a checkout. Two git processes read all of them."""

import hashlib
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import yaml

from src.plumbing import dvc_errors, git, identity, params
from src.plumbing.errors import InputError
from src.plumbing.identity import METRICS
from src.plumbing.yaml_loaders import BaseLoader

SEED = "seed"
HISTORY = "results/train/history.csv"
MODELS = "models/"  # what train made: it follows from the rest
SHORT = 7  # digits of a commit that people read
# A stage's entry as DVC writes it: its name in the second column, the rest further in.
ENTRY = re.compile(r"(?m)^  ([\w-]+):\n(?:   .*\n?)+")
PART = re.compile(r"(?m)^    \w.*\n?(?:    [ -].*\n?)*")  # of an entry: cmd, deps, params, outs

REMEMBERED = 64  # texts of dvc.lock, of which a thousand would take 100 MB (choice)

Stages = Mapping[str, identity.Entry]  # the entries of a dvc.lock, by stage


@dataclass(frozen=True)
class Result:
    """A finished training with its evaluation. `rev`: its commit, None for the workspace;
    `metrics`: the groups val and test."""

    name: str
    rev: str | None
    stages: Stages
    metrics: dict[str, dict[str, float]]

    @property
    def seed(self) -> int:
        return int(self.stages["train"]["params"][SEED])

    @property
    def data(self) -> str:
        """The md5 of the data set that it was evaluated on."""
        return str(self.stages["evaluate"]["deps"].get("data/prepared", ""))


def names_by_rev() -> dict[str, str]:
    """Commits that may hold a result with their names: those of experiments, then those that
    changed one, the newest first."""
    found = {item.rev: item.name for item in git.experiments()}
    where = ("HEAD", "--branches", "--tags", "--remotes")  # not what lies in the stash
    log = git.output("log", *where, "--format=%H", "--", "dvc.lock", METRICS) or ""
    for rev in log.split():
        found.setdefault(rev, rev[:SHORT])
    return found


def locks() -> Iterator[tuple[str, str, str]]:
    """(rev, name, text of dvc.lock) of all commits that may hold a result."""
    named = names_by_rev()
    texts = git.read_at([(rev, "dvc.lock") for rev in named])
    for (rev, name), text in zip(named.items(), texts, strict=True):
        if text is not None:
            yield rev, name, text


def by_seed(accepts: Callable[[str], bool]) -> dict[int, Result]:
    """The finished results whose text of dvc.lock is accepted, by seed, in the order of the seeds.
    Of several with the same seed an experiment goes first, then the newest commit."""
    found: dict[int, Result] = {}
    for result in _finished(item for item in locks() if accepts(item[2])):
        found.setdefault(result.seed, result)
    return dict(sorted(found.items()))


def with_any_seed(stages: Stages) -> dict[int, Result]:
    """The finished results that differ from these entries in the seed at most, by seed."""
    wanted = _short(configuration(stages))
    return by_seed(lambda lock: _configured(lock) == wanted)


def _configured(lock: str) -> bytes:
    """The configuration in the text of a dvc.lock. Each group that is compared asks for all of
    them: remembered are hashes, as the texts would take gigabytes."""
    key = _short(lock)
    if key not in _configurations:
        _configurations[key] = _short(configuration(stages_of(lock)))
    return _configurations[key]


_configurations: dict[bytes, bytes] = {}


def _short(text: str) -> bytes:
    return hashlib.md5(text.encode()).digest()


def results_at(revs: Mapping[str, str]) -> dict[str, Result]:
    """The finished results of commits, given by name."""
    texts = git.read_at([(rev, "dvc.lock") for rev in revs.values()])
    given = zip(revs.values(), revs, (text or "" for text in texts), strict=True)
    return {result.name: result for result in _finished(given)}


def _finished(given: Iterable[tuple[str, str, str]]) -> list[Result]:
    """The finished results among commits, given as (rev, name, text of dvc.lock)."""
    trained = [(rev, name, stages) for rev, name, lock in given if (stages := stages_of(lock))]
    metrics = git.read_at([(rev, METRICS) for rev, _, _ in trained])
    return [
        result
        for (rev, name, stages), text in zip(trained, metrics, strict=True)
        if (result := finished(name, rev, stages, text))
    ]


def finished(name: str, rev: str | None, stages: Stages, metrics: str | None) -> Result | None:
    """The result of dvc.lock's entries and a metrics text; None if that is not of this training."""
    train, evaluate = stages["train"], stages.get("evaluate")
    if metrics is None or not identity.metrics_belong(metrics, train, evaluate):
        return None
    return Result(name, rev, stages, json.loads(metrics))


@lru_cache(REMEMBERED)
def stages_of(lock: str) -> Stages:
    """The entries of the text of a dvc.lock; empty if it has no training with a seed."""
    # Each part of an entry alone and, as commits share most of them, once: YAML of 200 whole files
    # takes seconds.
    try:
        entries = {match[1]: _entry(match[0]) for match in ENTRY.finditer(lock)}
        return entries if SEED in entries["train"]["params"] else {}
    except (InputError, KeyError, TypeError, yaml.YAMLError):
        return {}


@lru_cache(REMEMBERED)
def _entry(text: str) -> dict[str, Any]:
    stage: dict[str, Any] = {}
    for part in PART.findall(text):
        stage |= _part(part)
    return identity.entry_of(stage)


@lru_cache(8 * REMEMBERED)
def _part(text: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.load(text, BaseLoader)
    return found


def in_cache(md5: str, root: Path) -> Path | None:
    """The file with this md5 in DVC's cache; None if it is not there. `root`: the main
    repository."""
    part = Path("files/md5") / md5[:2] / md5[2:]
    path = root / ".dvc/cache" / part
    if not path.is_file() and (root / ".dvc/config").is_file():
        path = _cache(root) / part
    return path if path.is_file() else None


@cache
def _cache(root: Path) -> Path:
    """Where DVC is configured to keep it; to ask takes a second."""
    command = [sys.executable, "-P", "-m", "dvc", "cache", "dir"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    if done.returncode:
        raise InputError(f"`dvc cache dir` failed: {dvc_errors.reason(done.stderr)}")
    return root / done.stdout.strip()


def inputs_of(stages: Stages, name: str) -> identity.Entry:
    """The `params` (package versions, too) and `deps` of a stage without the seed and without the
    network that train made; empty if the stage has no entry."""
    entry = stages.get(name) or {"params": {}, "deps": {}}
    return {
        "params": {key: value for key, value in entry["params"].items() if key != SEED},
        "deps": {path: md5 for path, md5 in entry["deps"].items() if not path.startswith(MODELS)},
    }


def configuration(stages: Stages) -> str:
    """What decides a result but for its seed: the inputs of train and evaluate, as text."""
    inputs = {name: inputs_of(stages, name) for name in ("train", "evaluate") if name in stages}
    parts = {name: [identity.canonical(x["params"]), x["deps"]] for name, x in inputs.items()}
    return json.dumps(parts, sort_keys=True)


def overrides(result: Result) -> dict[str, str]:
    """What `-S` must say, so that the workspace trains and evaluates as this result was."""
    now = params.load()
    train, evaluate = (inputs_of(result.stages, name) for name in ("train", "evaluate"))
    wanted = {**train["params"], **evaluate["params"]}
    return {
        key: str(value)
        for key, value in wanted.items()
        if key in now and identity.canonical(value) != identity.canonical(now[key])
    }
