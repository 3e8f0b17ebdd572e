"""Your own metrics, which `evaluate` computes beside its own."""

from collections.abc import Callable

import numpy as np


def balanced_accuracy(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """The share of its samples that is found, averaged over the classes that have some."""
    found = labels[probabilities.argmax(axis=1) == labels]
    counts = np.bincount(labels)
    shares = np.bincount(found, minlength=len(counts))[counts > 0] / counts[counts > 0]
    return float(shares.mean())


# Name -> (function, least value, greatest value). Edit it. A function takes `labels` int64 N and
# `probabilities` float64 N x K, whose rows add up to one, and returns a number. Higher is better:
# give what should be low with a minus. Each name stands in metrics.json with a bootstrap interval,
# in MLflow and in `compare --metric`, and `best_by: val/<name>` chooses the epoch by it. For the
# interval a function is called on 1,000 resamples, and some of them lack a class: where it cannot
# say anything it returns NaN, which does not count.
METRICS: dict[str, tuple[Callable[[np.ndarray, np.ndarray], float], float, float]] = {
    "balanced_accuracy": (balanced_accuracy, 0, 1),
}
