"""The metrics of src/yours/metrics.py, by name and checked."""

import re

import numpy as np

from src.plumbing.errors import InputError
from src.plumbing.params import did_you_mean
from src.yours import metrics as yours

FILE = "src/yours/metrics.py"
OF_TRAINING = ("accuracy", "macro_f1", "loss")  # what validation measures in each epoch
# What metrics.json has of a split besides; an interval's ends are <name>_low and <name>_high.
OF_EVALUATION = (
    "n",
    "groups",
    "log_loss",
    "calibration_error",
    "baseline_accuracy",
    "majority_accuracy",
)


def names() -> list[str]:
    """The names in METRICS. InputError for one that metrics.json cannot have."""
    for name, entry in yours.METRICS.items():
        if not re.fullmatch(r"[a-z]\w*", name) or name.endswith(("_low", "_high")):
            raise InputError(
                f"{FILE}: a metric's name must be lower case, of letters, digits and _, and not "
                f"end in _low or _high, got '{name}'"
            )
        if name in OF_TRAINING + OF_EVALUATION:
            raise InputError(f"{FILE}: {name} is a metric already: take another name")
        if not isinstance(entry, tuple) or len(entry) != 3 or not callable(entry[0]):
            raise InputError(f"{FILE}: {name} must be (function, least value, greatest value)")
    return list(yours.METRICS)


def chosen_by(best_by: str) -> str | None:
    """The own metric that the param `best_by` names, None for one of training's. InputError for a
    name that nobody has."""
    name = best_by.removeprefix("val/")
    if name in OF_TRAINING:
        return None
    if name not in names():
        known = [f"val/{known}" for known in (*OF_TRAINING, *names())]
        raise InputError(
            f"params.yaml: best_by {best_by} is no metric: {FILE} has no {name}"
            f"{did_you_mean(best_by, known)}"
        )
    return name


def value(name: str, labels: np.ndarray, probabilities: np.ndarray, split: str) -> float:
    """The metric `name` of predictions: `labels` int64 N, `probabilities` float64 N x K. InputError
    if it raises, is no number, or lies outside of its range."""
    _, low, high = yours.METRICS[name]
    found = call(name, labels, probabilities)
    if not low <= found <= high:
        raise InputError(f"{FILE}: {name} must be in {low} to {high}, and is {found} on {split}")
    return found


def try_out(labels: np.ndarray, classes: int) -> None:
    """Call each metric once, on guesses for `labels` (int64 N) of val: a mistake shall not wait for
    the end of a training. InputError as for `value`."""
    guesses = np.random.default_rng(0).dirichlet(np.ones(classes), len(labels))
    for name in names():
        value(name, labels, guesses, "val")


def call(name: str, labels: np.ndarray, probabilities: np.ndarray) -> float:
    """As `value`, for a resample of the samples, where NaN is allowed."""
    try:
        return float(yours.METRICS[name][0](labels, probabilities))
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise InputError(f"{FILE}: {name} cannot be computed ({reason})") from error
