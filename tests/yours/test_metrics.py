"""What each metric of `METRICS` must keep, whatever it measures."""

import numpy as np
import pytest

from src.training import own_metrics
from src.yours.metrics import METRICS

CLASSES, COUNT = 10, 200


def predictions(skill: float) -> tuple[np.ndarray, np.ndarray]:
    """Labels, and probabilities that name them the more surely the greater `skill` is."""
    draws = np.random.default_rng(0)
    labels = draws.integers(0, CLASSES, COUNT)
    logits = draws.normal(size=(COUNT, CLASSES)) + skill * np.eye(CLASSES)[labels]
    shares = np.exp(logits)
    return labels, shares / shares.sum(axis=1, keepdims=True)


def test_the_names_can_stand_in_metrics_json() -> None:
    assert own_metrics.names() == list(METRICS)


@pytest.mark.parametrize("name", METRICS)
def test_it_is_a_number_within_its_range_and_more_for_better_predictions(name: str) -> None:
    poor, good = (own_metrics.value(name, *predictions(skill), "val") for skill in (0.0, 6.0))
    assert good >= poor


@pytest.mark.parametrize("name", METRICS)
def test_the_order_of_the_samples_does_not_matter(name: str) -> None:
    labels, probabilities = predictions(1.0)
    back = own_metrics.value(name, labels[::-1], probabilities[::-1], "val")
    assert back == pytest.approx(own_metrics.value(name, labels, probabilities, "val"))


@pytest.mark.parametrize("name", METRICS)
def test_it_changes_nothing_that_it_gets(name: str) -> None:
    labels, probabilities = predictions(1.0)
    labels.flags.writeable = probabilities.flags.writeable = False
    own_metrics.value(name, labels, probabilities, "val")


@pytest.mark.parametrize("name", METRICS)
def test_samples_that_lack_classes_give_a_number_or_nan(name: str) -> None:
    labels, probabilities = predictions(1.0)
    own_metrics.call(name, labels[labels < 2], probabilities[labels < 2])
