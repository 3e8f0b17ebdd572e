"""Intervals and tests by what is known about them, and how often `compare` claims a difference."""

import numpy as np
import pytest
from scipy import stats

from bench import compare as bench
from src.experiments import statistics


def test_the_interval_is_that_of_the_t_test() -> None:
    values = np.random.default_rng(0).normal(0.003, 0.004, 9)
    pair = statistics.paired(values.tolist(), 1e-9)
    reference = stats.ttest_1samp(values, 0)
    low, high = reference.confidence_interval(0.95)
    assert (pair.p, pair.low, pair.high) == pytest.approx((reference.pvalue, low, high))


def test_ties_have_a_width() -> None:
    pair = statistics.paired([0.0] * 6, 1 / 360)
    assert (pair.p, pair.better) == (pytest.approx(1.0), 0.5)
    assert pair.low is not None
    assert pair.low < -0.0005
    assert statistics.verdict(6, pair.difference, pair.p) == "undecided"


def test_nothing_is_decided_below_five_seeds() -> None:
    gains = [0.1, 0.11, 0.12, 0.1]
    pair = statistics.paired(gains, 1 / 360)
    assert pair.p is not None
    assert pair.p < 0.001
    assert statistics.verdict(pair.n, pair.difference, pair.p) == "undecided"
    more = statistics.paired([*gains, 0.1], 1 / 360)
    assert statistics.verdict(more.n, more.difference, more.p) == "better"
    worse = statistics.paired([-gain for gain in [*gains, 0.1]], 1 / 360)
    assert statistics.verdict(worse.n, worse.difference, worse.p) == "worse"
    assert statistics.paired([], 1 / 360).p is None


def test_mcnemar_and_bootstrap_by_what_is_known_of_them() -> None:
    first = np.array([True] * 90 + [False] * 10)
    second = np.array([True] * 88 + [False] * 2 + [True] * 9 + [False])
    found = statistics.on_images(first, second)
    assert (found.only_first, found.only_second) == (2, 9)
    assert found.p == pytest.approx(2 * stats.binom.cdf(2, 11, 0.5))
    error = np.sqrt((11 / 100 - 0.07**2) / 100)  # of the mean of values -1, 0, 1
    assert found.high - found.low == pytest.approx(2 * 1.96 * error, rel=0.08)
    assert statistics.on_images(first, first).p == 1.0


def of_groups(draws: np.random.Generator, gain: float) -> tuple[np.ndarray, ...]:
    """30 groups of 10 images: each net is right in all of a group or in none, the second of them
    in `gain` more."""
    groups = np.repeat(np.arange(30), 10)
    first, second = draws.random((2, 30)) < np.array([[0.5], [0.5 + gain]])
    return first[groups], second[groups], groups


def test_whole_groups_count_as_one_image() -> None:
    """Ten copies of each image say no more than one: neither p nor the interval may get better."""
    first, second, groups = of_groups(np.random.default_rng(1), 0.3)
    one = statistics.on_images(first[::10], second[::10])
    ten = statistics.on_images(first, second, groups=groups)
    assert (ten.n, ten.groups, ten.difference) == (300, 30, pytest.approx(one.difference))
    assert ten.p == pytest.approx(one.p, rel=0.15)
    assert ten.high - ten.low == pytest.approx(one.high - one.low, rel=0.08)
    by_image = statistics.on_images(first, second)
    assert by_image.p < one.p / 10
    assert by_image.high - by_image.low < 0.5 * (one.high - one.low)
    assert statistics.p_on_images(first, second, groups) == ten.p
    assert statistics.p_on_images(first, second) == by_image.p
    assert statistics.on_images(first, first, groups=groups).p == 1


def test_groups_of_equal_nets_are_rarely_told_apart() -> None:
    draws, apart, by_image = np.random.default_rng(2), 0, 0
    for _ in range(60):
        first, second, groups = of_groups(draws, 0.0)
        apart += statistics.p_on_images(first, second, groups) < statistics.LEVEL
        by_image += statistics.p_on_images(first, second) < statistics.LEVEL
    assert apart <= 7  # 3 expected
    assert by_image > 20


def test_holm_by_hand() -> None:
    assert statistics.holm([0.01, None, 0.04, 0.03]) == pytest.approx([0.03, None, 0.06, 0.06])


def test_the_interval_of_a_share_is_exact_and_ties_lie_between() -> None:
    for wins, n in ((0, 5), (3, 7), (5, 5), (20, 20)):
        low, high = stats.binomtest(wins, n).proportion_ci(0.95, method="exact")
        assert statistics.share_limits(wins, n) == pytest.approx((low, high), abs=1e-9)
    assert statistics.share_limits(5, 5)[0] < 0.5  # the sign test: p = 0.0625
    below, tied, above = (statistics.share_limits(wins, 5) for wins in (2, 2.5, 3))
    assert below[0] < tied[0] < above[0]
    assert below[1] < tied[1] < above[1]


@pytest.mark.parametrize("metric", bench.METRICS)
def test_claims_without_a_difference_are_rare(metric: str) -> None:
    """A small part of `python -m bench.compare`: 2,000 pairs, whose share moves by 0.35 %."""
    assert bench.claims(metric, 5, pairs=2000) <= 0.035
    assert bench.claims(metric, 5, shift=2.0, pairs=500) > 0.4


def test_splits_of_twelve_alike_are_never_claimed() -> None:
    assert bench.splits([0.99] * 12, 1 / 360) == (0, 0)


def test_splits_of_two_groups_far_apart_are_claimed_in_part() -> None:
    """The two extreme splits are claims, most of the mixed ones are not."""
    in_order, of_all = bench.splits(
        [n / 360 for n in (1, 2, 3, 2, 1, 3, 91, 92, 93, 92, 91, 93)], 1 / 360
    )
    assert 2 / 924 <= in_order < 0.2
    assert 0.01 < of_all < 0.1
