"""What the names on the command line stand for: a result, and the group of seeds around it."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from src import where
from src.experiments import stored
from src.experiments.stored import Result
from src.plumbing import dvc_files, git, identity, params, schema
from src.plumbing.errors import InputError
from src.plumbing.identity import METRICS
from src.tracking import lookup
from src.tracking.journal.journal import warn
from src.tracking.store import store
from src.tracking.store.address import reason

WORKSPACE = "workspace"


@dataclass(frozen=True)
class Group:
    """A name of the command line. `named`: the result that it means; `by_seed`: that one and all
    that differ from it in the seed alone."""

    name: str
    named: Result
    by_seed: dict[int, Result]

    def scores(self, split: str) -> dict[int, float]:
        """Accuracy (0..1) on val or test by seed."""
        return {seed: result.metrics[split]["accuracy"] for seed, result in self.by_seed.items()}


def find(names: Sequence[str], root: Path) -> list[Group]:
    """The groups that names mean. InputError for a name that means nothing, for a training that has
    not finished, and for names that mean the same configuration."""
    groups: dict[str, Group] = {}
    for name in names:
        group = _group(name, root)
        key = stored.configuration(group.named.stages)
        if key in groups:
            raise InputError(
                f"{groups[key].name} and {name} are the same configuration but for the seed: "
                "their difference is the noise that others are measured by"
            )
        groups[key] = group
    return list(groups.values())


def _group(name: str, root: Path) -> Group:
    if "=" in name:
        return _by_params(name)
    is_here = name == WORKSPACE and git.output("rev-parse", "--verify", "-q", name) is None
    target = where.find_target(None if is_here else name, root)
    named = _result(target, name)
    alike = stored.of_configuration(stored.configuration(named.stages))
    by_seed = {result.seed: result for result in [*alike, named]}  # the named one goes first
    return Group(name, named, dict(sorted(by_seed.items())))


def run_of(root: Path, train: Mapping[str, Any]) -> str | None:
    """The id of the run with the inputs and the model of an entry of train; None if there is none,
    or the store does not answer."""
    fingerprint = stored.fingerprint(train)
    run_id = lookup.known_run(root, fingerprint)
    if run_id is None:
        return None
    try:
        if where.gave(lookup.tags_of(root, run_id), train):
            return run_id
        client, experiment_id = store.open_store(root)
        wanted = {"fingerprint": fingerprint, where.MODEL_TAG: train["outs"].get(where.MODEL, "")}
        run = store.newest_run(client, experiment_id, wanted)
    except Exception as error:  # whatever MLflow raises
        warn(reason(error))
        return None
    return run.info.run_id if run else None


def _result(target: where.Target, name: str) -> Result:
    """The finished result of a target."""
    lock = target.read("dvc.lock")
    stages = stored.stages_of(lock) if lock is not None else None
    if lock is None or stages is None:
        raise InputError(f"{target.title} has no finished training: `dvc repro` makes it")
    if target.rev is None and (changed := identity.changed_inputs(lock)):
        raise InputError(f"the workspace has changed ({changed[0]}): `dvc repro` first")
    result = stored.finished(name, target.rev, stages, target.read(METRICS))
    if result is None:
        raise InputError(f"{target.title} is not finished: no {METRICS} of its network")
    return result


def _by_params(text: str) -> Group:
    """The group that `lr=0.003,model=resnet18` means: HEAD's configuration with these values."""
    pairs = [_pair(item) for item in re.split(r",(?![^\[]*\])", text)]
    wanted = dict(pairs)
    if len(wanted) < len(pairs):
        raise InputError(f"{text} gives a param twice: name each group of its own")
    head = git.read_at([("HEAD", "dvc.lock")])[0]
    stages = stored.stages_of(head) if head is not None else None
    if stages is None:
        raise InputError("HEAD has no dvc.lock with a training, to which params could be applied")
    declared = {**stored.params_of(stages, "train"), **stored.params_of(stages, "evaluate")}
    if unknown := [key for key in wanted if key not in declared]:
        raise InputError(f"{unknown[0]} is no param of train or evaluate")
    candidates: dict[str, stored.Stages] = {}
    for _, _, lock in stored.locks():
        other = stored.stages_of(lock)
        if other is not None and _has_params(other, stages, wanted):
            candidates[stored.configuration(other)] = other
    groups = [found for key in candidates if (found := stored.of_configuration(key))]
    if not groups:
        options = " ".join(f"-S {key}={value}" for key, value in wanted.items())
        raise InputError(f"no finished experiment has {text}: `dvc exp run {options}` makes one")
    here = _rest(stages)
    chosen = [found for found in groups if _rest(found[0].stages) == here] or groups
    if len(chosen) > 1:
        names = ", ".join(found[0].name for found in chosen)
        raise InputError(f"{text} means results of different code or data: name one of {names}")
    by_seed = {result.seed: result for result in sorted(chosen[0], key=lambda item: item.seed)}
    return Group(text, next(iter(by_seed.values())), by_seed)


def _has_params(other: stored.Stages, stages: stored.Stages, wanted: dict[str, str]) -> bool:
    """Whether `other` has the params of `stages` with the values of `wanted` in their place."""
    for name in ("train", "evaluate"):
        expected = {
            key: identity.canonical(wanted.get(key, value))
            for key, value in stored.params_of(stages, name).items()
        }
        found = stored.params_of(other, name)
        if {key: identity.canonical(value) for key, value in found.items()} != expected:
            return False
    return True


def _rest(stages: stored.Stages) -> dict[str, str]:
    """Path to md5 of what no param of the group names: the code, and the pictures of evaluate."""
    train, evaluate = stored.inputs_of(stages, "train"), stored.inputs_of(stages, "evaluate")
    code = {path: md5 for path, md5 in train.items() if dvc_files.is_code(path)}
    return code | evaluate


def _pair(item: str) -> tuple[str, str]:
    key, _, value = (part.strip() for part in item.partition("="))
    if key not in schema.SCHEMA:
        raise InputError(f"unknown param {key}{params.did_you_mean(key, schema.SCHEMA)}")
    if key == stored.SEED:
        raise InputError("a group holds all its seeds: leave seed= out")
    params.parse_override(key, value)
    return key, value
