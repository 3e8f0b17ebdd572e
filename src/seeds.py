"""What other seeds give: `python -m src.seeds N [-S KEY=VALUE ...]` trains N of them.

One configuration over the seeds 0 .. N-1, through DVC's queue, less seeds that have a result. Then
mean, standard deviation and interval of the validation accuracy: a smaller gain is none.
"""

import sys
from collections.abc import Mapping

from src.experiments import origin, statistics
from src.experiments.queue import queue
from src.experiments.queue.configuration import Configuration
from src.experiments.stored import SEED
from src.plumbing import command, overrides, workspace
from src.plumbing.errors import GateError, InputError

MOST = 1000


def name_of(configuration: str, seed: int) -> str:
    """The name of the experiment that trains a seed of a configuration, given by its name."""
    return f"seeds-{configuration}-{seed:03d}"


def accuracies(configuration: Configuration) -> dict[int, float]:
    """The validation accuracy by seed, as far as there are results."""
    results = configuration.results()
    return {seed: result.metrics["val"]["accuracy"] for seed, result in results.items()}


def summary(values: Mapping[int, float]) -> list[str]:
    """The lines that say what the seeds gave, at least two of them."""
    found = statistics.spread(list(values.values()))

    def interval(reach: float) -> str:
        return f"{max(0, found.mean - reach):.4f} .. {min(1, found.mean + reach):.4f}"

    return [
        *(f"  seed {seed}: {value:.4f}" for seed, value in sorted(values.items())),
        f"val accuracy of {found.n} seeds: mean {found.mean:.4f}, standard deviation "
        f"{found.sd:.4f}",
        f"  95 % interval of the mean {interval(found.of_mean())} (Student's t)",
        f"  another seed falls into {interval(found.of_next())} "
        "with 95 %: one run outside it is news, one inside is not",
    ]


def main() -> None:
    """The command line."""
    parser = command.parser("seeds", __doc__)
    parser.add_argument("count", type=int, metavar="N", help="how many seeds")
    parser.add_argument("--workers", type=int, default=1, metavar="J", help="trainings at a time")
    overrides.add_option(parser)
    given = parser.parse_args()
    if not 2 <= given.count <= MOST:
        raise InputError(f"N must be in 2..{MOST}, got {given.count}: one seed has no deviation")
    queue.check_workers(given.workers)
    workspace.require_project()
    changed = overrides.merge({}, given.values)
    if SEED in changed:
        raise InputError("-S seed=... contradicts seeds: these are 0 .. N-1")
    # Once: code may be edited while the queue runs.
    configuration = Configuration(changed, (SEED,))
    name = configuration.name()
    found = accuracies(configuration)
    missing = [seed for seed in range(given.count) if seed not in found]
    print(f"seeds: {given.count - len(missing)} of {given.count} are there", flush=True)
    if missing:
        wanted = {
            name_of(name, seed): overrides.arguments({**changed, SEED: str(seed)})
            for seed in missing
        }
        queue.run(wanted, given.workers, configuration)
        found = accuracies(configuration)
    values = {seed: value for seed, value in found.items() if seed < given.count}
    if len(values) < 2:
        raise GateError(
            f"seeds: {len(values)} have a result; `dvc queue logs {name_of(name, missing[0])}` "
            "says what became of one that has none"
        )
    origin.warn_of(configuration.results().values(), workspace.main_repository())
    print("\n".join(summary(values)))
    if failed := [seed for seed in missing if seed not in found]:
        raise GateError(
            f"seeds: {len(failed)} failed; `dvc queue logs {name_of(name, failed[0])}` says why, "
            "and after `dvc queue remove --failed` they run again"
        )


if __name__ == "__main__":
    sys.exit(command.guarded(main))
