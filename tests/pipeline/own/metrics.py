from collections.abc import Callable

import numpy as np
from sklearn.metrics import balanced_accuracy_score


def top_2(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """How often the label is one of the two likeliest classes."""
    likeliest = np.argpartition(-probabilities, 1, axis=1)[:, :2]
    return float((likeliest == labels[:, None]).any(axis=1).mean())


def balanced(labels: np.ndarray, probabilities: np.ndarray) -> float:
    return float(balanced_accuracy_score(labels, probabilities.argmax(axis=1)))


METRICS: dict[str, tuple[Callable[[np.ndarray, np.ndarray], float], float, float]] = {
    "top_2": (top_2, 0, 1),
    "balanced": (balanced, 0, 1),
}
