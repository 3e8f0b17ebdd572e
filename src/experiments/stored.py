"""The results that this repository holds: those of DVC's experiments and of commits, as their
dvc.lock and metrics tell without a checkout. All are read by two git processes."""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import yaml

from src.plumbing import git, identity, params
from src.plumbing.identity import METRICS

SEED = "seed"
MODELS = "models/"  # what train made: it follows from the rest
SHORT = 7  # digits of a commit that people read
# A stage's entry as DVC writes it: its name in the second column, the rest further in.
ENTRY = re.compile(r"(?m)^  ([\w-]+):\n(?:   .*\n?)+")

Stages = Mapping[str, dict[str, Any]]  # the entries of dvc.lock that matter here, by stage


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
        """The md5 of the pictures that it was evaluated on."""
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


def of_configuration(wanted: str) -> list[Result]:
    """The finished results with this `configuration`, one for each seed."""
    found = []
    for rev, name, text in locks():
        stages = stages_of(text)
        if stages is not None and configuration(stages) == wanted:
            found.append((rev, name, stages))
    metrics = git.read_at([(rev, METRICS) for rev, _, _ in found])
    by_seed: dict[int, Result] = {}
    for (rev, name, stages), measured in zip(found, metrics, strict=True):
        if result := finished(name, rev, stages, measured):
            by_seed.setdefault(result.seed, result)
    return list(by_seed.values())


def results_at(revs: Mapping[str, str]) -> dict[str, Result]:
    """The finished results of commits, given by name."""
    locks = git.read_at([(rev, "dvc.lock") for rev in revs.values()])
    texts = git.read_at([(rev, METRICS) for rev in revs.values()])
    found = {}
    for (name, rev), lock, text in zip(revs.items(), locks, texts, strict=True):
        stages = stages_of(lock) if lock is not None else None
        if stages and (result := finished(name, rev, stages, text)):
            found[name] = result
    return found


def finished(name: str, rev: str | None, stages: Stages, metrics: str | None) -> Result | None:
    """The result of entries of dvc.lock and the text of the metrics; None if those are not of this
    training, or there are none."""
    train, evaluate = stages["train"], stages.get("evaluate")
    if metrics is None or not identity.metrics_belong(metrics, train, evaluate):
        return None
    return Result(name, rev, stages, json.loads(metrics))


@cache
def stages_of(lock: str) -> Stages | None:
    """The entries of the text of a dvc.lock; None if it has no training with a seed."""
    # Each entry alone, and once: an entry that many commits share is read once, and the YAML of
    # 200 whole files would take seconds.
    try:
        entries = {match[1]: _entry(match[1], match[0]) for match in ENTRY.finditer(lock)}
        return entries if SEED in entries["train"]["params"] else None
    except (yaml.YAMLError, AttributeError, KeyError, TypeError):
        return None


@cache
def _entry(name: str, text: str) -> dict[str, Any]:
    entry = identity.locked_stage("stages:\n" + text, name)
    assert entry is not None
    return entry


def fingerprint(entry: Mapping[str, Any]) -> str:
    """That of an entry of dvc.lock, by which its MLflow run is found."""
    return identity.fingerprint(entry["cmd"], entry["deps"], entry["params"])


def configuration(stages: Stages) -> str:
    """What decides a result but for its seed, as a text to compare: params and inputs of train and
    evaluate."""
    parts = [
        (
            name,
            {key: identity.canonical(value) for key, value in params_of(stages, name).items()},
            inputs_of(stages, name),
        )
        for name in ("train", "evaluate")
        if name in stages
    ]
    return json.dumps(parts, sort_keys=True)


def params_of(stages: Stages, name: str) -> dict[str, Any]:
    """Params and package versions of a stage, without the seed."""
    entry = stages.get(name) or {"params": {}}
    return {key: value for key, value in entry["params"].items() if key != SEED}


def overrides(result: Result) -> dict[str, str]:
    """What `-S` must say, so that the workspace trains and evaluates as this result was."""
    now = params.load()
    wanted = {**params_of(result.stages, "train"), **params_of(result.stages, "evaluate")}
    return {
        key: str(value)
        for key, value in wanted.items()
        if key in now and identity.canonical(value) != identity.canonical(now[key])
    }


def inputs_of(stages: Stages, name: str) -> dict[str, str]:
    """Path to md5 of what a stage reads, without the network that train made."""
    entry = stages.get(name) or {"deps": {}}
    return {path: md5 for path, md5 in entry["deps"].items() if not path.startswith(MODELS)}
