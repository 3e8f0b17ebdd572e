"""Whether a difference is more than noise: between trainings, and on the images at hand."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

LEVEL = 0.05  # two-sided; so a claim in one direction is wrong in 2.5 % of cases
# Below this nothing is said of training again: the t interval of two to four seeds rests on a
# normal distribution that nobody has checked, and sees little but gross differences (choice).
LEAST_SEEDS = 5
RESAMPLES = 10_000  # of the bootstrap (choice)


@dataclass(frozen=True)
class Spread:
    """`mean` and sample standard deviation `sd` of `n` >= 2 values, which count as draws from a
    normal distribution. Its intervals lie around the mean, are two-sided and Student's."""

    n: int
    mean: float
    sd: float

    def of_mean(self, level: float = LEVEL) -> float:
        """Half the width of the interval that holds the true mean with probability 1 - `level`."""
        return self._quantile(level) * self.sd / math.sqrt(self.n)

    def of_next(self, level: float = LEVEL) -> float:
        """Half the width of the interval that holds one more value with probability 1 - `level`."""
        return self._quantile(level) * self.sd * math.sqrt(1 + 1 / self.n)

    def _quantile(self, level: float) -> float:
        from scipy import special

        return float(special.stdtrit(self.n - 1, 1 - level / 2))


def spread(values: Sequence[float] | np.ndarray, least: float = 0.0) -> Spread:
    """The spread of at least two values. Its standard deviation counts as at least `least`: values
    that are all alike do not mean that the next one is, too."""
    return Spread(len(values), float(np.mean(values)), max(float(np.std(values, ddof=1)), least))


@dataclass(frozen=True)
class Paired:
    """Two configurations over `n` common seeds: the mean difference in a metric (second less
    first), its 95 % interval and p by Student's t, and how often the second is better (ties count
    half) with its 95 % interval. None where `n` is too small for it."""

    n: int
    difference: float | None = None
    low: float | None = None
    high: float | None = None
    p: float | None = None
    better: float | None = None
    better_low: float | None = None
    better_high: float | None = None


def paired(differences: Sequence[float], step: float, lower_is_better: bool = False) -> Paired:
    """The paired t interval of `differences`, one per seed. `step`: the smallest difference that
    the metric can show, 1 / images for an accuracy. The standard deviation counts as at least that
    of rounding to whole steps, step / sqrt(12) for each of the two values."""
    values = np.asarray(differences, dtype=np.float64)
    n = len(values)
    if n == 0:
        return Paired(0)
    mean = float(values.mean())
    gains = -values if lower_is_better else values
    wins = float((gains > step / 2).sum() + 0.5 * (np.abs(values) <= step / 2).sum())
    low, high = share_limits(wins, n)
    better = {"better": wins / n, "better_low": low, "better_high": high}
    if n == 1:
        return Paired(n, mean, **better)
    from scipy import special

    found = spread(values, step / math.sqrt(6))
    reach = found.of_mean()
    p = 2 * float(special.stdtr(n - 1, -abs(mean) / (found.sd / math.sqrt(n))))
    return Paired(n, mean, mean - reach, mean + reach, p, **better)


def share_limits(wins: float, n: int) -> tuple[float, float]:
    """The exact 95 % interval for a share of `wins` in `n` (Clopper and Pearson 1934); `wins` may
    hold halves. It leaves out 1/2 where the sign test rejects it, and nowhere else."""
    from scipy import special

    low = float(special.betaincinv(wins, n - wins + 1, LEVEL / 2)) if wins else 0.0
    high = float(special.betaincinv(wins + 1, n - wins, 1 - LEVEL / 2)) if wins < n else 1.0
    return low, high


@dataclass(frozen=True)
class OnImages:
    """Two networks on the same `n` images: how many only the first, and only the second, classifies
    correctly; exact p of McNemar's test; the difference in accuracy with its bootstrap interval."""

    n: int
    only_first: int
    only_second: int
    p: float
    difference: float
    low: float
    high: float


def on_images(first: np.ndarray, second: np.ndarray, seed: int = 0) -> OnImages:
    """`first`, `second`: bool N, correct or not; percentile bootstrap over images, from `seed`."""
    n = len(first)
    only_first, only_second, p = mcnemar(first, second)
    apart = only_first + only_second
    # Resampled images count by kind: only the first correct, only the second, no difference.
    shares = np.array([only_first, only_second, n - apart]) / n
    drawn = np.random.default_rng(seed).multinomial(n, shares, RESAMPLES)
    ends = np.percentile((drawn[:, 1] - drawn[:, 0]) / n, [100 * LEVEL / 2, 100 * (1 - LEVEL / 2)])
    difference = (only_second - only_first) / n
    return OnImages(n, only_first, only_second, p, difference, float(ends[0]), float(ends[1]))


def mcnemar(first: np.ndarray, second: np.ndarray) -> tuple[int, int, float]:
    """How many images only the first, and only the second, classifies correctly (bool N each), and
    the exact two-sided p of McNemar's test (1947), by the binomial distribution."""
    from scipy.special import bdtr

    only_first, only_second = int((first & ~second).sum()), int((second & ~first).sum())
    tail = float(bdtr(min(only_first, only_second), only_first + only_second, 0.5))
    return only_first, only_second, min(1.0, 2 * tail)


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """p values corrected for their number (Holm 1979): each at most 1, and none below a smaller
    one's. None, for a comparison that was not made, stays and does not count."""
    given = sorted((p, index) for index, p in enumerate(p_values) if p is not None)
    corrected: list[float | None] = [None] * len(p_values)
    largest = 0.0
    for rank, (p, index) in enumerate(given):
        largest = max(largest, min(1.0, p * (len(given) - rank)))
        corrected[index] = largest
    return corrected


def verdict(
    n: int, difference: float | None, p: float | None, lower_is_better: bool = False
) -> str:
    """Training again is better, worse or undecided, by `n` common seeds and a corrected p."""
    if n < LEAST_SEEDS or difference is None or p is None or p >= LEVEL:
        return "undecided"
    return "better" if (difference < 0) == lower_is_better else "worse"
