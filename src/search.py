"""Random search, the last resort: `python -m src.search [N] [--workers J] [-S KEY=VALUE ...]`.

N trials over the space in recipes/search.yaml, each an ordinary DVC experiment in the queue, named
search-<hash>-<number>. Seeded: trial 7 of a search is always the same, so the command that was
stopped or killed is simply given again. Without N: the leaderboard of the trials that are there. A
grid needs no tool: `dvc exp run --queue -S 'lr=1e-3,3e-3' -S 'optimizer=adamw,sgd'`.
"""

import re
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

from src.base.files import write_bytes, write_csv
from src.base.words import counted
from src.experiments import origin, stored
from src.experiments.compare import predictions
from src.experiments.queue import queue, tasks
from src.experiments.queue.configuration import Configuration
from src.experiments.search import leaderboard, space
from src.plumbing import command, git, overrides, params, workspace
from src.plumbing.errors import InputError

FOLDER = Path("results/search")  # in .gitignore: no stage reads or writes it
MOST = 9999


def common(dimensions: list[space.Dimension], changed: Mapping[str, str]) -> Configuration:
    """What all trials have in common. A key that only some of them draw counts: for the others its
    value in params.yaml decides."""
    return Configuration(changed, [item.key for item in dimensions if not item.condition])


def prefix_of(dimensions: list[space.Dimension], seed: int, configuration: Configuration) -> str:
    """The beginning of the names of a search's trials: all that decides them is in the hash."""
    extra = {"space": [asdict(item) for item in dimensions], "seed": seed}
    return f"search-{configuration.name(extra)}-"


def main() -> None:
    """The command line."""
    parser = command.parser("search", __doc__)
    parser.add_argument("count", type=int, nargs="?", metavar="N", help="how many trials")
    parser.add_argument(
        "--workers", type=int, metavar="J", help="run them, so many at a time; without, queue them"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the draws (default 0)")
    overrides.add_option(parser)
    given = parser.parse_args()
    if given.count is not None and not 1 <= given.count <= MOST:
        raise InputError(f"N must be in 1..{MOST}, got {given.count}")
    queue.check_workers(given.workers)
    workspace.require_project()
    dimensions = space.read()
    changed = overrides.merge({}, given.values)
    if twice := [item.key for item in dimensions if item.key in changed]:
        raise InputError(f"{twice[0]} is varied by {space.FILE}: give no -S for it")
    configuration = common(dimensions, changed)
    prefix = prefix_of(dimensions, given.seed, configuration)
    if given.count is not None:
        trials = space.trials(dimensions, given.seed, given.count, configuration.params)
        wanted = {}
        for number, drawn in enumerate(trials):
            values = {**changed, **drawn}
            with overrides.mistakes_in(f"{space.FILE}: trial {number}"):
                params.load(overrides=values)
            wanted[f"{prefix}{number:04d}"] = overrides.arguments(values)
        if given.workers is None:
            new = queue.queue_missing(wanted, configuration)
            print(f"search: {len(new)} of {len(wanted)} trials were queued, the others are there")
            print("dvc queue start -j 2   runs them; python -m src.search   shows the leaderboard")
            return
        print(
            f"search: {counted(len(wanted), 'trial')} {prefix}0000 .. {len(wanted) - 1:04d}",
            flush=True,
        )
        queue.run(wanted, given.workers, configuration)
    show(prefix, dimensions, given.seed, configuration)


def show(
    prefix: str, dimensions: list[space.Dimension], seed: int, configuration: Configuration
) -> None:
    """Print the leaderboard and write it with its figure."""
    states = tasks.states(re.compile(prefix + "[0-9]{4}").fullmatch)  # not what was renamed
    revs = {item.name: item.rev for item in git.experiments()}
    if not states:
        others = {name.rpartition("-")[0] for name in revs if name.startswith("search-")}
        also = f"; {', '.join(sorted(others))} had another space, code or params" if others else ""
        raise InputError(f"this search has no trials yet: `python -m src.search 20`{also}")
    numbers = {name: int(name.rpartition("-")[2]) for name in states}
    drawn = space.trials(dimensions, seed, max(numbers.values()) + 1, configuration.params)
    finished = {name: rev for name, rev in revs.items() if states.get(name) == "finished"}
    results = stored.results_at(finished)
    metrics = {name: result.metrics["val"] for name, result in results.items()}
    rows = leaderboard.ranked(
        leaderboard.Row(name, state, drawn[numbers[name]], metrics.get(name, {}))
        for name, state in states.items()
    )
    keys = [item.key for item in dimensions]
    root, correct, groups = workspace.main_repository(), {}, None
    origin.warn_of(results.values(), root)
    for name, result in results.items():
        with suppress(InputError):  # its predictions are not in DVC's cache
            _, correct[name], groups = predictions.correct(result, "val", name, root)
    print("\n".join(leaderboard.lines(rows, keys, configuration.changed, correct, groups)))
    table = FOLDER / f"{prefix.rstrip('-')}.csv"
    write_csv(table, *leaderboard.table(rows, keys))
    if metrics:
        figure = table.with_suffix(".png")
        write_bytes(figure, leaderboard.draw(rows, dimensions))
        print(f"figure: {figure}   table: {table}")


if __name__ == "__main__":
    sys.exit(command.guarded(main))
