"""What a split's predictions are worth: the metrics, their intervals, and two baselines to beat."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from src.plumbing.errors import InputError
from src.training import own_metrics

CONFIDENCE = 0.95
TAIL = 50 * (1 - CONFIDENCE)  # percent of the resamples on each side of an interval
RESAMPLES = 1000  # of the bootstrap; other draws move its ends by some 2 % of the width (choice)
CALIBRATION_BINS = 15  # Guo et al. 2017


def interval(correct: int, count: int) -> tuple[float, float]:
    """Wilson's 95 % interval for a share of `correct` in `count`."""
    from scipy.stats import binomtest

    found = binomtest(correct, count).proportion_ci(CONFIDENCE, method="wilson")
    return float(found.low), float(found.high)


def split_metrics(
    labels: np.ndarray,
    probabilities: np.ndarray,
    seed: int = 0,
    groups: np.ndarray | None = None,
) -> dict[str, Any]:
    """n; accuracy, macro F1 and log loss with 95 % intervals (Wilson's for accuracy, else bootstrap
    from `seed`); calibration error of the top probability. As in scikit-learn, macro F1 leaves out
    a class without samples and predictions. `labels` int N, `probabilities` float N x K; `groups`
    (int N, see data/groups.py): all intervals are those of resampled groups, and their number
    `groups` stands behind n."""
    from sklearn.metrics import f1_score

    predictions = probabilities.argmax(axis=1)
    correct = int((predictions == labels).sum())
    losses = log_losses(labels, probabilities)
    resampled = bootstrap(labels, predictions, losses, probabilities.shape[1], seed, groups=groups)
    ends = np.percentile(resampled, [TAIL, 100 - TAIL], axis=0).tolist()
    low, high = ends[0][2], ends[1][2]
    of_groups = {}
    if groups is None:
        low, high = interval(correct, len(labels))
    else:
        of_groups["groups"] = count = int(groups.max()) + 1
        if correct in (0, len(labels)):  # resampling cannot tell: each group counts as one sample
            low, high = interval(count if correct else 0, count)
    return {
        "n": len(labels),
        **of_groups,
        "accuracy": correct / len(labels),
        "accuracy_low": low,
        "accuracy_high": high,
        "macro_f1": f1_score(labels, predictions, average="macro", zero_division=0),
        "macro_f1_low": ends[0][0],
        "macro_f1_high": ends[1][0],
        "log_loss": float(losses.mean()),
        "log_loss_low": ends[0][1],
        "log_loss_high": ends[1][1],
        "calibration_error": calibration_error(*reliability(labels, probabilities)),
    }


def own_split_metrics(
    labels: np.ndarray,
    probabilities: np.ndarray,
    split: str,
    seed: int = 0,
    groups: np.ndarray | None = None,
) -> dict[str, float]:
    """The metrics of src/yours/metrics.py on a split, with 95 % bootstrap intervals from `seed`;
    a resample on which a metric is NaN does not count. Arguments as above."""
    found: dict[str, float] = {}
    for name in own_metrics.names():
        found[name] = own_metrics.value(name, labels, probabilities, split)
        samples = _resamples(len(labels), seed, RESAMPLES, groups)
        values = np.array([own_metrics.call(name, labels[i], probabilities[i]) for i in samples])
        if np.isnan(values).all():
            raise InputError(f"{own_metrics.FILE}: {name} is NaN on every resample of {split}")
        ends = np.nanpercentile(values, [TAIL, 100 - TAIL]).tolist()
        found[f"{name}_low"], found[f"{name}_high"] = ends
    return found


def _resamples(
    count: int, seed: int, resamples: int, groups: np.ndarray | None
) -> Iterator[np.ndarray]:
    """Indices of the samples in each resample: as many samples with replacement as there are, or
    as many groups, each with all its samples."""
    draws = np.random.default_rng(seed)
    if groups is None:
        for _ in range(resamples):
            yield draws.integers(0, count, count)
        return
    number = int(groups.max()) + 1
    for _ in range(resamples):
        times = np.bincount(draws.integers(0, number, number), minlength=number)
        yield np.repeat(np.arange(count), times[groups])


def log_losses(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """-log of each label's probability, float64 N; at most 36 = -log(eps), as in scikit-learn."""
    right = probabilities[np.arange(len(labels)), labels].astype(np.float64)
    return -np.log(np.maximum(right, np.finfo(np.float64).eps))


def bootstrap(
    labels: np.ndarray,
    predictions: np.ndarray,
    losses: np.ndarray,
    classes: int,
    seed: int,
    resamples: int = RESAMPLES,
    groups: np.ndarray | None = None,
) -> np.ndarray:
    """Macro F1, mean loss and accuracy of samples, or of whole `groups` (int N), drawn with
    replacement: float64, `resamples` x 3. `labels`, `predictions` int N, `losses` float N. One
    resample at a time, so memory is N + K."""
    count, hits = len(labels), labels == predictions
    values = np.empty((resamples, 3))
    for row, drawn in zip(values, _resamples(count, seed, resamples, groups), strict=True):
        weights = np.bincount(drawn, minlength=count).astype(np.float64)
        # Not a product of vectors: BLAS sums in another order with another number of threads.
        row[0] = macro_f1(labels, predictions, classes, weights)
        row[1] = (weights * losses).sum() / len(drawn)
        row[2] = weights[hits].sum() / len(drawn)
    return values


def macro_f1(
    labels: np.ndarray, predictions: np.ndarray, classes: int, weights: np.ndarray
) -> float:
    """The mean of F1 over classes, with sample i counted `weights[i]` times. A class without label
    or prediction is left out, its F1 unknown: as 0 it would put the interval of a flawless net with
    three samples per class below 1."""
    hits = labels == predictions
    right = np.bincount(labels[hits], weights[hits], classes)
    named = np.bincount(labels, weights, classes) + np.bincount(predictions, weights, classes)
    counted = named > 0
    return float((2 * right[counted] / named[counted]).mean())


def reliability(
    labels: np.ndarray, probabilities: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Samples (int64), mean top probability and accuracy (float64, 0 where there is no sample)
    in each of 15 bins of equal width ((0, 1/15], ..., (14/15, 1]) of the top probability."""
    top = probabilities.max(axis=1).astype(np.float64)
    hits = (probabilities.argmax(axis=1) == labels).astype(np.float64)
    bins = np.clip(np.ceil(top * CALIBRATION_BINS).astype(int) - 1, 0, CALIBRATION_BINS - 1)
    counts = np.bincount(bins, minlength=CALIBRATION_BINS)
    some = np.maximum(counts, 1)
    confidence = np.bincount(bins, top, CALIBRATION_BINS) / some
    return counts, confidence, np.bincount(bins, hits, CALIBRATION_BINS) / some


def calibration_error(counts: np.ndarray, confidence: np.ndarray, accuracy: np.ndarray) -> float:
    """Expected calibration error (Guo et al. 2017, https://arxiv.org/abs/1706.04599) from the bins
    of `reliability`: the mean over samples of |accuracy - top probability| of their bin."""
    return float((counts * np.abs(accuracy - confidence)).sum() / counts.sum())


def per_class_rows(
    labels: np.ndarray, predictions: np.ndarray, classes: Sequence[str]
) -> list[tuple[Any, ...]]:
    """(class, samples, precision, recall, F1) per class; the last three empty if it is absent."""
    from sklearn.metrics import precision_recall_fscore_support

    precision, recall, f1, support = precision_recall_fscore_support(
        labels, predictions, labels=np.arange(len(classes)), zero_division=0
    )
    named = set(labels.tolist()) | set(predictions.tolist())
    rows = zip(support.tolist(), precision.tolist(), recall.tolist(), f1.tolist(), strict=True)
    return [
        (name, *(row if index in named else (0, "", "", "")))
        for index, (name, row) in enumerate(zip(classes, rows, strict=True))
    ]
