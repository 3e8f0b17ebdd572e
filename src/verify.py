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

import sys
from contextlib import suppress
from pathlib import Path

from src.experiments import origin
from src.experiments.target import find_target, run_of
from src.experiments.verify import committed, fresh_clone, tiers
from src.plumbing import command, dvc_files, workspace
from src.plumbing.errors import GateError, InputError
from src.tracking import lookup

TAG, NO = "verified", "no"  # a run's tag, and its value when a tier that held holds no more


def _first(found: list[str]) -> str:
    return found[0] + (f" and {len(found) - 1} more" if len(found) > 1 else "")


def _take_back(root: Path, run_id: str) -> None:
    """A tier that the run was given before holds no more."""
    with suppress(InputError):  # a store that does not answer
        if TAG in lookup.tags_of(root, run_id):
            lookup.set_tag(root, run_id, TAG, NO)


def main() -> None:
    """The command line."""
    parser = command.parser("verify", __doc__)
    parser.add_argument("name", nargs="?", metavar="REV|EXPERIMENT|RUN ID", default="HEAD")
    arguments = parser.parse_args()
    workspace.require_project()
    root = workspace.main_repository()
    target = find_target(arguments.name, root)
    assert target.rev is not None
    lock, entries = target.locked()
    if line := origin.remark(entries["train"], root):
        raise GateError(f"verify: {target.title} was {line}")
    trained = run_of(root, entries["train"])
    run_id = target.run_id or trained  # that of another stage may have been named
    print(f"verify: runs {target.title} again, from its sources alone", flush=True)
    with fresh_clone.clone_of(root, target.rev) as folder:
        if changed := committed.changed_outputs(lock, folder):
            raise GateError(
                f"verify: the outputs of {target.title} in git are not those of its dvc.lock: "
                f"{_first(changed)}; `dvc repro` makes them again, then commit them with dvc.lock"
            )
        if changed := committed.changed_sources(lock, folder):
            raise GateError(
                f"verify: the dvc.lock of {target.title} was not made from its own files: "
                f"{_first(changed)}; `dvc repro`, then commit dvc.lock with the code"
            )
        different = dvc_files.different_versions(dvc_files.read_versions(folder))
        fresh_clone.run_pipeline(folder)
        kinds = (lookup.kind_of(root, run) for run in (run_id, trained) if run)
        kind = next(filter(None, kinds), "")
        here = lookup.kind_of_newest(folder)
        same = kind == here if kind and here else None
        tier, lines = tiers.judge(target, folder, same)
    for package, (installed, locked) in different.items():
        print(f"  {package} {installed or 'none'} is installed, locked is {locked}")
    if same is False:
        print(f"  the machine is {here}, was {kind}")
    for line in lines:
        print(f"  {line}")
    if not tier:
        if run_id:
            _take_back(root, run_id)
        raise GateError(f"verify: {target.title} is NOT reproduced")
    print(f"verify: {target.title} is reproduced, tier {tier}")
    if run_id:
        lookup.set_tag(root, run_id, TAG, tier)


if __name__ == "__main__":
    sys.exit(command.guarded(main))
