"""The two baselines that a net has to beat."""

import warnings

import numpy as np

from src.data.packed import PackedSplit

# The logistic regression looks at no more than this, so that it takes seconds on any data. (choice)
BASELINE_PICTURES = 5000


BASELINE_SIDE = 16


class Baselines:
    """The two baselines that a net has to beat, fitted on the training split: the majority class,
    and logistic regression on pixels (reduced to at most 16 x 16)."""

    def __init__(self, train: PackedSplit):
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler
        from threadpoolctl import threadpool_limits

        self.majority = int(np.bincount(train.labels).argmax())
        chosen = baseline_choice(train)
        self.model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=300))
        with threadpool_limits(1), warnings.catch_warnings():
            # The same sums in the same order on any number of cores; 300 rounds are near enough.
            warnings.simplefilter("ignore", ConvergenceWarning)
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
