"""The noise of this project: `python -m src.seeds N [-S KEY=VALUE ...]` trains N seeds.

One configuration over the seeds 0 .. N-1, through DVC's queue; seeds that are there already, as an
experiment or a commit, are not run again. Then mean, standard deviation and interval of the
validation accuracy: a gain smaller than that is none. `compare` and `verify` find the same seeds.
"""

import argparse
import math
import statistics
import sys
from collections.abc import Mapping
from typing import Any

from src.experiments import stored
from src.experiments.queue import configuration, queue
from src.plumbing import command, git, identity, overrides, workspace
from src.plumbing.errors import GateError, InputError

SEED = "seed"
MOST = 1000


def name_of(digest: str, seed: int) -> str:
    """The name of the experiment that trains a seed."""
    return f"seeds-{digest}-{seed:03d}"


def there(wanted: Mapping[str, Any]) -> dict[int, float]:
    """The validation accuracy of each seed of the configuration with the inputs `wanted` that has
    a result; of several the one that `compare` takes."""
    found = {}
    for rev, name, lock in stored.locks():
        # Parsing takes milliseconds for each of hundreds: look at the text first.
        if all(md5 in lock for stage in wanted.values() for md5 in stage["deps"].values()):
            stages = stored.stages_of(lock)
            if stages and configuration.locked_inputs(lock, wanted, (SEED,)) == wanted:
                found[rev] = name, stages
    texts = git.read_at([(rev, identity.METRICS) for rev in found])
    results = [
        stored.finished(name, rev, stages, text)
        for (rev, (name, stages)), text in zip(found.items(), texts, strict=True)
    ]
    values: dict[int, float] = {}
    for item in filter(None, results):
        values.setdefault(item.seed, item.metrics["val"]["accuracy"])
    return values


def summary(values: Mapping[int, float]) -> list[str]:
    """The lines that say what the seeds gave, at least two of them."""
    from scipy.stats import t

    numbers = list(values.values())
    mean, deviation = statistics.fmean(numbers), statistics.stdev(numbers)
    half = float(t.ppf(0.975, len(numbers) - 1)) * deviation / math.sqrt(len(numbers))
    another = float(t.ppf(0.975, len(numbers) - 1)) * deviation * math.sqrt(1 + 1 / len(numbers))
    lines = [f"  seed {seed}: {value:.4f}" for seed, value in sorted(values.items())]
    return [
        *lines,
        f"val accuracy of {len(numbers)} seeds: mean {mean:.4f}, standard deviation "
        f"{deviation:.4f}",
        f"  95 % interval of the mean {max(0, mean - half):.4f} .. {min(1, mean + half):.4f} "
        "(Student's t)",
        f"  another seed falls into {max(0, mean - another):.4f} .. {min(1, mean + another):.4f} "
        "with 95 %: one run outside it is news, one inside is not",
    ]


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m src.seeds", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("count", type=int, metavar="N", help="how many seeds")
    parser.add_argument("--workers", type=int, default=1, metavar="J", help="trainings at a time")
    overrides.take_values(parser)
    given = parser.parse_args()
    if not 2 <= given.count <= MOST:
        raise InputError(f"N must be in 2..{MOST}, got {given.count}: one seed has no deviation")
    queue.check_workers(given.workers)
    workspace.require_project()
    changed = overrides.merge({}, given.values)
    if SEED in changed:
        raise InputError("-S seed=... contradicts seeds: these are 0 .. N-1")
    # Once: code may be edited while the queue runs.
    inputs = configuration.inputs(overrides.check(changed), (SEED,))
    digest = configuration.digest(inputs)
    found = there(inputs)
    missing = [seed for seed in range(given.count) if seed not in found]
    print(f"seeds: {given.count - len(missing)} of {given.count} are there", flush=True)
    wanted = {
        name_of(digest, seed): overrides.arguments({**changed, SEED: str(seed)}) for seed in missing
    }
    if wanted:
        configuration.require_in_git(inputs)
        queue.run(
            wanted,
            given.workers,
            lambda now: print(queue.line(now), flush=True),
            lambda: configuration.require_unchanged(inputs, overrides.check(changed), (SEED,)),
        )
        found = there(inputs)
    values = {seed: value for seed, value in found.items() if seed < given.count}
    if len(values) < 2:
        raise GateError(
            f"seeds: {len(values)} have a result; `dvc queue logs {next(iter(wanted))}` says what "
            "became of one that has none"
        )
    print("\n".join(summary(values)))
    if failed := [seed for seed in missing if seed not in found]:
        name = name_of(digest, failed[0])
        raise GateError(
            f"seeds: {len(failed)} failed; `dvc queue logs {name}` says why, and after "
            "`dvc queue remove --failed` they run again"
        )


if __name__ == "__main__":
    sys.exit(command.guarded(main))
