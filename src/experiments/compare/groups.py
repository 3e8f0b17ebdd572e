"""What the names given to `compare` stand for: a result, and the group of seeds around it."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from src.experiments import origin, stored
from src.experiments.stored import Result
from src.experiments.target import Target, find_target
from src.plumbing import dvc_files, git, identity, overrides, params
from src.plumbing.errors import InputError
from src.plumbing.identity import METRICS

WORKSPACE = "workspace"


@dataclass(frozen=True)
class Group:
    """A name of the command line. `named`: the result that it means; `by_seed`: that one and all
    that differ from it in the seed alone, in the order of the seeds."""

    name: str
    named: Result
    by_seed: dict[int, Result]

    def scores(self, split: str, metric: str) -> dict[int, float]:
        """A metric of metrics.json on val or test by seed. InputError where it is missing."""
        for result in self.by_seed.values():
            found = result.metrics[split]
            if metric not in found:
                known = [name for name in found if not name.endswith(("_low", "_high"))]
                raise InputError(
                    f"{self.name}: no metric {metric} in {METRICS} of seed {result.seed}"
                    f"{params.did_you_mean(metric, known)}; it has {', '.join(known)}"
                )
        return {seed: result.metrics[split][metric] for seed, result in self.by_seed.items()}


def find(names: Sequence[str], root: Path) -> list[Group]:
    """The groups that names mean. InputError for a name that means nothing, for a training that has
    not finished, and for names that mean the same configuration."""
    groups: dict[str, Group] = {}
    for name in names:
        group = _of_params(name) if "=" in name else _of_name(name, root)
        for result in group.by_seed.values():
            if line := origin.remark(result.stages["train"], root):
                raise InputError(f"{result.name} was {line}")
        key = stored.configuration(group.named.stages)
        if key in groups:
            raise InputError(
                f"{groups[key].name} and {name} are the same configuration but for the seed: "
                "their difference is the noise that other differences are measured by"
            )
        groups[key] = group
    return list(groups.values())


def _of_name(name: str, root: Path) -> Group:
    is_here = name == WORKSPACE and git.output("rev-parse", "--verify", "-q", name) is None
    named = _result(find_target(None if is_here else name, root), name)
    by_seed = {**stored.with_any_seed(named.stages), named.seed: named}
    return Group(name, named, dict(sorted(by_seed.items())))


def _result(target: Target, name: str) -> Result:
    """The finished result of a target."""
    lock = target.read("dvc.lock") or ""
    if not (stages := stored.stages_of(lock)):
        raise InputError(f"{target.title} has no finished training: `dvc repro` makes it")
    if target.rev is None and (changed := identity.changed_inputs(lock)):
        raise InputError(f"the workspace has changed ({changed[0]}): `dvc repro` first")
    result = stored.finished(name, target.rev, stages, target.read(METRICS))
    if result is None:
        raise InputError(f"{target.title} is not finished: no {METRICS} of its network")
    return result


def _of_params(text: str) -> Group:
    """The group that `lr=0.003,model=resnet18` means: HEAD's configuration with these values."""
    pairs = [_pair(item) for item in re.split(r",(?![^\[]*\])", text)]
    wanted = dict(pairs)
    if len(wanted) < len(pairs):
        raise InputError(f"{text} gives a param twice: name each group of its own")
    [head] = git.read_at([("HEAD", "dvc.lock")])
    if not (stages := stored.stages_of(head or "")):
        raise InputError("HEAD has no dvc.lock with a training, to which params could be applied")
    declared = _params(stages)
    if unknown := [key for key in wanted if not any(key in part for part in declared.values())]:
        raise InputError(f"{unknown[0]} is no param of train or evaluate")
    expected = _params(stages, wanted)
    candidates: dict[str, stored.Stages] = {}
    for _, _, lock in stored.locks():
        other = stored.stages_of(lock)
        if _params(other) == expected:
            candidates[stored.configuration(other)] = other
    groups = []
    for candidate in candidates.values():
        if by_seed := stored.with_any_seed(candidate):
            groups.append(Group(text, next(iter(by_seed.values())), by_seed))
    if not groups:
        options = " ".join(f"-S {key}={value}" for key, value in wanted.items())
        raise InputError(f"no finished experiment has {text}: `dvc exp run {options}` makes one")
    here = _code_and_data(stages)
    alike = [group for group in groups if _code_and_data(group.named.stages) == here] or groups
    if len(alike) > 1:
        names = ", ".join(group.named.name for group in alike)
        raise InputError(f"{text} means results of different code or data: name one of {names}")
    return alike[0]


def _params(stages: stored.Stages, wanted: Mapping[str, str] | None = None) -> dict[str, Any]:
    """The params of train and evaluate, by stage and canonical, with those of `wanted` instead."""
    parts = {name: stored.inputs_of(stages, name)["params"] for name in ("train", "evaluate")}
    for part in parts.values():
        part.update({key: value for key, value in (wanted or {}).items() if key in part})
    return {name: identity.canonical(part) for name, part in parts.items()}


def _code_and_data(stages: stored.Stages) -> dict[str, str]:
    """Path to md5 of what no param of the group names: the code, and the data of evaluate."""
    train, evaluate = (stored.inputs_of(stages, name)["deps"] for name in ("train", "evaluate"))
    return {path: md5 for path, md5 in train.items() if dvc_files.is_code(path)} | evaluate


def _pair(item: str) -> tuple[str, str]:
    key, _, value = (part.strip() for part in item.partition("="))
    overrides.require_key(key, "compare")
    if key == stored.SEED:
        raise InputError("a group holds all its seeds: leave seed= out")
    params.parse_override(key, value)
    return key, value
