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
AT_ONCE = 100  # of them in memory, where they are drawn together (choice)


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
    correctly; exact p of McNemar's test; the difference in accuracy with its bootstrap interval.
    Both over `groups` of images where the data have groups, else None."""

    n: int
    only_first: int
    only_second: int
    p: float
    difference: float
    low: float
    high: float
    groups: int | None = None


def on_images(
    first: np.ndarray, second: np.ndarray, seed: int = 0, groups: np.ndarray | None = None
) -> OnImages:
    """`first`, `second`: bool N, correct or not; percentile bootstrap from `seed` over images, or
    over `groups` of them (int N, see data/groups.py)."""
    n = len(first)
    only_first, only_second, p = mcnemar(first, second)
    if groups is not None:
        gains = _gains(first, second, groups)
        p, (low, high) = _exchanged(gains, seed), _resampled(gains, np.bincount(groups), seed)
        difference = (only_second - only_first) / n
        return OnImages(n, only_first, only_second, p, difference, low, high, len(gains))
    apart = only_first + only_second
    # Resampled images count by kind: only the first correct, only the second, no difference.
    shares = np.array([only_first, only_second, n - apart]) / n
    drawn = np.random.default_rng(seed).multinomial(n, shares, RESAMPLES)
    ends = np.percentile((drawn[:, 1] - drawn[:, 0]) / n, [100 * LEVEL / 2, 100 * (1 - LEVEL / 2)])
    difference = (only_second - only_first) / n
    return OnImages(n, only_first, only_second, p, difference, float(ends[0]), float(ends[1]))


def p_on_images(first: np.ndarray, second: np.ndarray, groups: np.ndarray | None = None) -> float:
    """p alone, as `on_images` has it."""
    if groups is None:
        return mcnemar(first, second)[2]
    return _exchanged(_gains(first, second, groups))


def _gains(first: np.ndarray, second: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """By group (G), the images that only the second network classifies correctly, less those that
    only the first does."""
    return np.bincount(groups, second.astype(int) - first)


def _exchanged(gains: np.ndarray, seed: int = 0) -> float:
    """Two-sided p by exchanging the two networks in whole groups at random: the permutation test
    that McNemar's is where each image is a group. `gains` as of `_gains`."""
    counted = gains[gains != 0]
    draws, observed, as_large = np.random.default_rng(seed), abs(gains.sum()), 0
    for _ in range(RESAMPLES // AT_ONCE):
        signs = 2 * draws.integers(0, 2, (AT_ONCE, len(counted))) - 1
        as_large += int((np.abs(signs @ counted) >= observed).sum())
    return (1 + as_large) / (1 + RESAMPLES)


def _resampled(gains: np.ndarray, sizes: np.ndarray, seed: int) -> tuple[float, float]:
    """The ends of the 95 % interval of the difference in accuracy, groups resampled; `sizes` (G):
    images of each."""
    draws, number, values = np.random.default_rng(seed), len(gains), np.empty(RESAMPLES)
    for index in range(RESAMPLES):
        drawn = draws.integers(0, number, number)
        values[index] = gains[drawn].sum() / sizes[drawn].sum()
    low, high = np.percentile(values, [100 * LEVEL / 2, 100 * (1 - LEVEL / 2)])
    return float(low), float(high)


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
