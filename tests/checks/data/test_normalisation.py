"""Images of little contrast, normalised by their own statistics or by other numbers."""

import pytest
from torch.utils.data import TensorDataset

from src.checks import TrainingSetup
from src.checks.data import values
from tests.checks import small_setup
from tests.checks.small_setup import declare, loud


def dull(setup: TrainingSetup, low: int, high: int, used: tuple[float, float] | None) -> None:
    """Images whose bytes lie in low..high, normalised by their statistics or by `used`."""
    x, y = small_setup.images()
    x = (low + x / 255 * (high - low)).round() / 255
    mean, std = x[:160].mean((0, 2, 3)), x[:160].std((0, 2, 3))
    own = mean.view(1, 3, 1, 1), std.view(1, 3, 1, 1)
    x = (x - (used or own)[0]) / (used or own)[1]
    setup.train_data, setup.val_data = (
        TensorDataset(x[part], y[part]) for part in (slice(160), slice(160, None))
    )
    declare(setup, mean=mean.tolist(), std=std.tolist())


@pytest.mark.parametrize(("low", "high"), [(120, 135), (0, 15), (240, 255), (100, 155)])
def test_little_contrast_normalised_by_its_own_statistics_is_fine(low: int, high: int) -> None:
    assert loud(lambda setup: dull(setup, low, high, None), values.check_statistics) == {}


@pytest.mark.parametrize("used", [(0.0, 1.0), (0.5, 1.0), (0.5, 0.25)])
def test_little_contrast_normalised_by_other_numbers_is_found(used: tuple[float, float]) -> None:
    found = loud(lambda setup: dull(setup, 120, 135, used), values.check_statistics)
    assert found["normalisation"][0] == "fail"
