"""How often `src.compare` claims a difference where there is none, and how often it sees one.

    python -m bench.compare          # simulated pairs of configurations, by the very functions
    python -m bench.compare --real   # the seeds of HEAD's configuration, split in two in every way

Wanted: of 20,000 pairs without a difference at most 3.5 % are called better, and 2.0 to 3.0 % where
the t interval holds; of the splits of twelve seeds at most 7 % are called better or worse.
"""

import argparse
import sys
from collections.abc import Callable
from functools import cache
from itertools import combinations, permutations

import numpy as np

from src.experiments import statistics
from src.experiments.compare import groups
from src.plumbing import command, workspace
from src.plumbing.errors import InputError

PAIRS = 20_000
SEEDS = (5, 10, 20)
IMAGES = 360
MEAN = 0.985  # accuracy of the default pipeline on val, about
SPREAD = 0.004  # standard deviation of its seeds, about
SHIFTS = (0.5, 1.0, 2.0)  # differences in standard deviations of one configuration
GROUP = 6  # of twelve seeds

Draw = Callable[[np.random.Generator, tuple[int, int]], np.ndarray]  # standard deviation 1


def gaussian(random: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    return random.standard_normal(shape)


def heavy_tailed(random: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """Student's t of three degrees of freedom, whose variance is 3."""
    return random.standard_t(3, shape) / np.sqrt(3)


def as_it_is(values: np.ndarray) -> np.ndarray:
    return values


def discretised(values: np.ndarray) -> np.ndarray:
    """Accuracies on 360 images."""
    return np.clip(np.round(values * IMAGES), 0, IMAGES) / IMAGES


# name: noise, its standard deviation, what becomes of the values, whether the t interval holds
METRICS: dict[str, tuple[Draw, float, Callable[[np.ndarray], np.ndarray], bool]] = {
    "Gaussian": (gaussian, SPREAD, as_it_is, True),
    "heavy-tailed (t, 3 df)": (heavy_tailed, SPREAD, as_it_is, False),
    "discretised (n = 360)": (gaussian, SPREAD, discretised, True),
    "discretised, sd half a step": (gaussian, 0.5 / IMAGES, discretised, False),
    "discretised, heavy-tailed": (heavy_tailed, SPREAD, discretised, False),
}


def claims(metric: str, seeds: int, shift: float = 0.0, pairs: int = PAIRS) -> float:
    """The share of simulated pairs whose second configuration, in truth `shift` standard deviations
    above the first, is called better."""
    draw, spread, observe, _ = METRICS[metric]
    random = np.random.default_rng([seeds, *metric.encode(), int(10 * shift)])
    first = observe(MEAN + spread * draw(random, (pairs, seeds)))
    second = observe(MEAN + spread * (draw(random, (pairs, seeds)) + shift))
    step = 1 / IMAGES if observe is discretised else 0.0
    found = 0
    for differences in second - first:
        pair = statistics.paired(differences, step)
        found += statistics.verdict(pair.n, pair.difference, pair.p) == "better"
    return found / pairs


def simulated() -> None:
    """Print the claims without a difference, and the power."""
    for metric, (_, _, _, holds) in METRICS.items():
        for seeds in SEEDS:
            wrong = claims(metric, seeds)
            bad = wrong > 0.035 or (holds and not 0.02 <= wrong <= 0.03)
            power = "  ".join(
                f"{shift:g} sd {claims(metric, seeds, shift):6.1%}" for shift in SHIFTS
            )
            print(
                f"{metric:28} {seeds:>2} seeds  called better without a difference {wrong:.2%}"
                f"{'  OUTSIDE' if bad else ''}  power: {power}",
                flush=True,
            )


def splits(scores: list[float], step: float) -> tuple[float, float]:
    """Shares of claims over all ways to split twelve scores into two groups of six: with pairs in
    the order of the seeds, and over all pairs. Seeds have no order: the first is one draw of what
    the second is the mean of."""
    steps = [round(score / step) for score in scores]

    @cache
    def claimed(differences: tuple[int, ...]) -> bool:
        pair = statistics.paired([difference * step for difference in differences], step)
        return statistics.verdict(pair.n, pair.difference, pair.p) != "undecided"

    in_order, of_all = [], []
    for chosen in combinations(range(len(steps)), GROUP):
        first = [steps[index] for index in chosen]
        rest = [steps[index] for index in range(len(steps)) if index not in chosen]
        found = [
            claimed(tuple(sorted(b - a for a, b in zip(first, second, strict=True))))
            for second in permutations(rest)  # the first is the order itself
        ]
        in_order.append(found[0])
        of_all += found
    return sum(in_order) / len(in_order), sum(of_all) / len(of_all)


def real() -> None:
    """Print the claims among the splits of the first twelve seeds of HEAD's configuration."""
    [group] = groups.find(["HEAD"], workspace.main_repository())
    scores = list(group.scores("val", "accuracy").values())[: 2 * GROUP]
    if len(scores) < 2 * GROUP:
        raise InputError(
            f"HEAD has {len(scores)} seeds, {2 * GROUP} are needed: dvc exp run -S seed=N"
        )
    in_order, of_all = splits(scores, 1 / group.named.metrics["val"]["n"])
    print(f"val accuracy of {2 * GROUP} seeds: {' '.join(f'{score:.4f}' for score in scores)}")
    print(f"mean {np.mean(scores):.4f}, standard deviation {np.std(scores, ddof=1):.4f}")
    print(f"called different: {of_all:.1%} of the splits in all pairs, {in_order:.1%} in the order")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.compare", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--real", action="store_true", help="the seeds of HEAD instead")
    if parser.parse_args().real:
        real()
    else:
        simulated()


if __name__ == "__main__":
    sys.exit(command.guarded(main))
