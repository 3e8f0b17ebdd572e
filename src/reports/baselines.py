"""The two baselines that a net has to beat."""

import warnings

import numpy as np
from threadpoolctl import threadpool_limits

from src.base.kinds import kind_of, kind_part
from src.data.packed import PackedSplit

# The logistic regression looks at no more than this, so that it takes seconds on any data. (choice)
BASELINE_SAMPLES = 5000


class Baselines:
    """Baselines on the training split: the majority class, and logistic regression on features."""

    def __init__(self, train: PackedSplit):
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler

        self._features = kind_part(kind_of(train.meta), "baseline").features
        self.majority = int(np.bincount(train.labels).argmax())
        chosen = baseline_choice(train)
        self.model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=300))
        with threadpool_limits(1), warnings.catch_warnings():
            # The same sums in the same order on any number of cores; 300 rounds are near enough.
            warnings.simplefilter("ignore", ConvergenceWarning)
            self.model.fit(self._features(train.rows(chosen)), train.labels[chosen])

    def accuracy(self, data: PackedSplit) -> tuple[float, float]:
        """(logistic regression, majority class) on a split."""
        with threadpool_limits(1):
            hits = [
                self.model.predict(self._features(data.rows(part))) == data.labels[part]
                for part in np.array_split(np.arange(len(data)), -(-len(data) // 1000))
            ]
        return float(np.concatenate(hits).mean()), float((data.labels == self.majority).mean())


def baseline_choice(train: PackedSplit) -> np.ndarray:
    """Indices, ascending, to fit the logistic regression on: all, or of each class its share of
    BASELINE_SAMPLES, at least one, by the samples' hashes: as good as random, and fixed."""
    count = len(train)
    if count <= BASELINE_SAMPLES:
        return np.arange(count)
    sha256 = np.array(train.sha256, dtype="S64")  # as text four times as much
    chosen = []
    for label in np.unique(train.labels):
        candidates = np.flatnonzero(train.labels == label)
        take = max(1, len(candidates) * BASELINE_SAMPLES // count)
        chosen.append(candidates[np.argsort(sha256[candidates], kind="stable")[:take]])
    return np.sort(np.concatenate(chosen))
