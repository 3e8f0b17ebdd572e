"""What a split's predictions are worth: the metrics, their interval, and two baselines to beat."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from src.data.packed import PackedSplit

CONFIDENCE = 0.95
# The logistic regression looks at no more than this, so that it takes seconds on any data. (choice)
BASELINE_PICTURES = 5000
BASELINE_SIDE = 16


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities N x K (float64) of logits N x K."""
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    exponentials = np.exp(shifted)
    return exponentials / exponentials.sum(axis=1, keepdims=True)


def interval(correct: int, count: int) -> tuple[float, float]:
    """Wilson's 95 % interval for a share of `correct` in `count`."""
    from scipy.stats import binomtest

    found = binomtest(correct, count).proportion_ci(CONFIDENCE, method="wilson")
    return float(found.low), float(found.high)


def split_metrics(labels: np.ndarray, probabilities: np.ndarray) -> dict[str, Any]:
    """n, accuracy with its interval, macro F1 and log loss; `labels` N, `probabilities` N x K."""
    from sklearn.metrics import f1_score, log_loss

    classes = np.arange(probabilities.shape[1])
    predictions = probabilities.argmax(axis=1)
    correct = int((predictions == labels).sum())
    low, high = interval(correct, len(labels))
    return {
        "n": len(labels),
        "accuracy": correct / len(labels),
        "accuracy_low": low,
        "accuracy_high": high,
        "macro_f1": f1_score(labels, predictions, labels=classes, average="macro", zero_division=0),
        "log_loss": log_loss(labels, probabilities, labels=classes),
    }


def per_class_rows(
    labels: np.ndarray, predictions: np.ndarray, classes: Sequence[str]
) -> list[tuple[Any, ...]]:
    """(class, pictures, precision, recall, F1) for each class."""
    from sklearn.metrics import precision_recall_fscore_support

    precision, recall, f1, support = precision_recall_fscore_support(
        labels, predictions, labels=np.arange(len(classes)), zero_division=0
    )
    columns = (support.tolist(), precision.tolist(), recall.tolist(), f1.tolist())
    return list(zip(classes, *columns, strict=True))


class Baselines:
    """The two baselines that a net has to beat, fitted on the training split: the majority class,
    and logistic regression on pixels (reduced to at most 16 x 16)."""

    def __init__(self, train: PackedSplit):
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler
        from threadpoolctl import threadpool_limits

        self.majority = int(np.bincount(train.labels).argmax())
        chosen = baseline_choice(train)
        self.model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=300))
        with threadpool_limits(1):  # the same sums in the same order on any number of cores
            self.model.fit(_pixels(train, chosen), train.labels[chosen])

    def accuracy(self, data: PackedSplit) -> tuple[float, float]:
        """(logistic regression, majority class) on a split."""
        from threadpoolctl import threadpool_limits

        with threadpool_limits(1):
            hits = [
                self.model.predict(_pixels(data, part)) == data.labels[part]
                for part in np.array_split(np.arange(len(data)), -(-len(data) // 1000))
            ]
        return float(np.concatenate(hits).mean()), float((data.labels == self.majority).mean())


def baseline_choice(train: PackedSplit) -> np.ndarray:
    """The indices, ascending, of the pictures that the logistic regression is fitted on: all, or
    of each class its share of BASELINE_PICTURES, but at least one. The hash of a picture decides,
    which is as good as random, and fixed."""
    count = len(train)
    if count <= BASELINE_PICTURES:
        return np.arange(count)
    sha256 = np.asarray(train.sha256)
    chosen = []
    for label in np.unique(train.labels):
        candidates = np.flatnonzero(train.labels == label)
        take = max(1, len(candidates) * BASELINE_PICTURES // count)
        chosen.append(candidates[np.argsort(sha256[candidates], kind="stable")[:take]])
    return np.sort(np.concatenate(chosen))


def _pixels(data: PackedSplit, indices: np.ndarray) -> np.ndarray:
    """The pictures at `indices` as float rows, averaged over blocks down to at most 16 x 16."""
    pictures = data.pictures(indices)
    count, side, _, channels = pictures.shape
    block = -(-side // BASELINE_SIDE)
    kept = side // block * block
    blocks = pictures[:, :kept, :kept].reshape(
        count, kept // block, block, kept // block, block, channels
    )
    return blocks.mean(axis=(2, 4), dtype=np.float32).reshape(count, -1) / 255
