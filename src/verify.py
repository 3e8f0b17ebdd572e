"""Prove a result: `python -m src.verify [REV|EXPERIMENT|RUN ID]`, default: HEAD.

Runs the whole pipeline of that commit again, in a temporary clone with nothing but the source data,
and compares. Three tiers: *bit*: every output is equal, which holds on the same kind of machine;
*numeric*: another instruction set, device or number of threads, so the first losses and the final
accuracy, macro F1 and log loss have to agree within bounds, two standard errors of a difference for
the last three; *statistical*: val accuracy lies where that of other seeds lies. Exit code 0 when a
tier that applies holds, then the MLflow run gets the tag `verified`; 1 when none does, and a run
that had the tag gets `verified=no`; 1 too, before anything runs, when the files of the commit are
not those of its dvc.lock.
"""

import argparse
import sys
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from src import noise, where
from src.experiments.compare.groups import run_of
from src.experiments.verify import difference, rerun
from src.plumbing import command, identity, workspace
from src.plumbing.errors import GateError, InputError
from src.tracking import lookup

HISTORY = "results/train/history.csv"
LEAST_SEEDS = 3  # that say what noise is
TAG, NO = "verified", "no"  # a run's tag, and its value when a tier that held holds no more


@dataclass
class Verdict:
    """`tier`: the one that holds, empty if none does; `lines`: why, and what differs."""

    tier: str = ""
    lines: list[str] = field(default_factory=list)


def judge(target: where.Target, folder: Path, same_kind: bool | None) -> Verdict:
    """Compare the files of the target with those that the pipeline made in `folder`. `same_kind`:
    whether the machines are of one kind; None if that is not known."""
    before, after = where.locked(target)[0], (folder / "dvc.lock").read_text()
    found = difference.of_outputs(before, after)
    verdict = Verdict(lines=[f"{name}: output {path} differs" for name, path in found])
    if not found:
        return Verdict("bit", ["every output is equal"])
    history = _text(target.read(HISTORY)), (folder / HISTORY).read_text()
    metrics = _text(target.read(identity.METRICS)), (folder / identity.METRICS).read_text()
    if parted := difference.parting(*history):
        verdict.lines.append(parted)
    if same_kind:
        verdict.lines.append("the machine is of the same kind, so every bit should be equal")
        return verdict
    verdict.lines.append("another kind of machine, or not known: close numbers are enough")
    trouble = difference.numeric_trouble(history, metrics)
    verdict.lines += trouble
    if not trouble:
        verdict.tier = "numeric"
        return verdict
    seeds = list(noise.seeds_like(before).values())
    if len(seeds) < LEAST_SEEDS:
        verdict.lines.append(f"the noise of seeds is not known: {len(seeds)} seeds were tried")
    elif outside := difference.statistical_trouble(metrics, seeds):
        verdict.lines.append(outside)
    else:
        verdict.tier = "statistical"
    return verdict


def _text(content: str | None) -> str:
    if content is None:
        raise InputError("the commit has no results to compare with: `dvc repro`, then commit them")
    return content


def _first(found: list[str]) -> str:
    return found[0] + (f" and {len(found) - 1} more" if len(found) > 1 else "")


def _take_back(root: Path, run_id: str) -> None:
    """A tier that the run was given before holds no more."""
    with suppress(InputError):  # a store that does not answer
        if TAG in lookup.tags_of(root, run_id):
            lookup.set_tag(root, run_id, TAG, NO)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m src.verify", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("name", nargs="?", metavar="REV|EXPERIMENT|RUN ID", default="HEAD")
    arguments = parser.parse_args()
    workspace.require_project()
    root = workspace.main_repository()
    target = where.find_target(arguments.name, root)
    assert target.rev is not None
    lock, entries = where.locked(target)
    trained = run_of(root, entries["train"])
    run_id = target.run_id or trained  # that of another stage may have been asked for
    print(f"verify: runs {target.title} again, from its sources alone", flush=True)
    with rerun.clone_of(root, target.rev) as folder:
        if edited := difference.edited_outputs(lock, folder):
            raise GateError(
                f"verify: the outputs of {target.title} in git are not those of its dvc.lock: "
                f"{_first(edited)}; `dvc repro` makes them again, then commit them with dvc.lock"
            )
        if stale := difference.stale_inputs(lock, folder):
            raise GateError(
                f"verify: the dvc.lock of {target.title} was not made from its own files: "
                f"{_first(stale)}; `dvc repro`, then commit dvc.lock with the code"
            )
        different = rerun.different_versions(folder)
        rerun.run_pipeline(folder)
        kinds = (lookup.kind_of(root, run) for run in (run_id, trained) if run)
        kind = next(filter(None, kinds), "")
        here = lookup.kind_of_newest(folder)
        same = kind == here if kind and here else None
        verdict = judge(target, folder, same)
    lines = [
        f"{package} {installed} is installed, locked is {locked}"
        for package, (installed, locked) in different.items()
    ]
    if same is False:
        lines.append(f"the machine is {here}, was {kind}")
    for line in lines + verdict.lines:
        print(f"  {line}")
    if not verdict.tier:
        if run_id:
            _take_back(root, run_id)
        raise GateError(f"verify: {target.title} is NOT reproduced")
    print(f"verify: {target.title} is reproduced, tier {verdict.tier}")
    if run_id:
        lookup.set_tag(root, run_id, TAG, verdict.tier)


if __name__ == "__main__":
    sys.exit(command.guarded(main))
