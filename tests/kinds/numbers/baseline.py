"""Logistic regression gets the numbers as they are."""

import numpy as np


def features(rows: np.ndarray) -> np.ndarray:
    return rows
