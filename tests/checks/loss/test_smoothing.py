"""Focal loss, temperature and strong smoothing, held against their formulas."""

import pytest
from torch import Tensor, nn
from torch.nn import functional

from src.checks import TrainingSetup
from src.checks.step.batch_to_gradient import check_step_and_loss
from tests.checks.small_setup import declare, loud, of_classes


def focal(setup: TrainingSetup, classes: int, gamma: float, known: bool, factor: float = 1) -> None:
    def loss(logits: Tensor, y: Tensor) -> Tensor:
        each = functional.cross_entropy(factor * logits, y, reduction="none")
        return ((1 - (-each).exp()) ** gamma * each).mean()

    of_classes(setup, classes)
    setup.loss_fn = loss
    declare(setup, **({"focal_gamma": gamma} if known else {}))


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize(
    ("gamma", "known"),
    [(0.0, False), (1.0, False), (3.0, False), (0.5, True), (3.0, True), (5.0, True), (8.0, True)],
)
def test_focal_loss_is_fine(classes: int, gamma: float, known: bool) -> None:
    assert loud(lambda setup: focal(setup, classes, gamma, known), check_step_and_loss) == {}


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("factor", [0.02, 100.0])
def test_a_temperature_in_a_focal_loss_is_found(classes: int, factor: float) -> None:
    found = loud(lambda setup: focal(setup, classes, 5.0, True, factor), check_step_and_loss)
    assert found["temperature"] == ("fail", "temperature")


def smoothed(setup: TrainingSetup, classes: int, used: float, declared: float) -> None:
    of_classes(setup, classes)
    setup.loss_fn = nn.CrossEntropyLoss(label_smoothing=used)
    declare(setup, label_smoothing=declared)


@pytest.mark.parametrize("classes", [2, 3, 4])
@pytest.mark.parametrize("smoothing", [0.1, 0.8, 0.95])
def test_smoothing_that_is_the_declared_one_is_fine(classes: int, smoothing: float) -> None:
    plant = lambda setup: smoothed(setup, classes, smoothing, smoothing)  # noqa: E731
    assert loud(plant, check_step_and_loss) == {}


def test_smoothing_that_is_not_the_declared_one_fails() -> None:
    found = loud(lambda setup: smoothed(setup, 3, 0.8, 0.1), check_step_and_loss)
    assert found["loss_confident"][0] == "fail"
