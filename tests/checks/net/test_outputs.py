"""A head without bias: small logits above 0 are fine, an activation after it is found."""

import pytest
import torch
from torch import Tensor, nn

from src.checks import TrainingSetup
from src.checks.net import outputs
from tests.checks.small_setup import loud, of_classes


def without_bias(setup: TrainingSetup, seed: int, own: bool, end: nn.Module | None) -> None:
    """A net for two classes whose head, a layer or (`own`) a matrix, has small weights."""

    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.matrix = nn.Parameter(1e-3 * torch.randn(8, 2))

        def forward(self, x: Tensor) -> Tensor:
            return x @ self.matrix

    torch.manual_seed(seed)
    of_classes(setup, 2)
    head: nn.Module = Own() if own else nn.Linear(8, 2, bias=False)
    if isinstance(head, nn.Linear):
        nn.init.normal_(head.weight, std=1e-3)
    body = [nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    setup.model = nn.Sequential(*body, head, *([end] if end else []))
    setup.optimizer = torch.optim.AdamW(setup.model.parameters(), 1e-3)


@pytest.mark.parametrize("own", [False, True])
def test_small_logits_above_0_are_no_probabilities(own: bool) -> None:
    for seed in range(20):
        plant = lambda setup: without_bias(setup, seed, own, None)  # noqa: B023, E731
        assert loud(plant, outputs.check_outputs) == {}, seed


@pytest.mark.parametrize(
    ("end", "own"),
    [
        (nn.Sigmoid(), False),
        (nn.Sigmoid(), True),
        (nn.Softmax(dim=1), False),
        (nn.Softmax(dim=1), True),
        (nn.ReLU(), False),
    ],
)
def test_an_activation_after_a_head_without_bias_is_found(end: nn.Module, own: bool) -> None:
    for seed in range(5):
        plant = lambda setup: without_bias(setup, seed, own, end)  # noqa: B023, E731
        found = loud(plant, outputs.check_outputs)
        assert found["outputs"][1] == "activation_before_loss", seed


def test_a_head_without_bias_may_start_at_zero() -> None:
    def plant(setup: TrainingSetup) -> None:
        without_bias(setup, 0, False, None)
        nn.init.zeros_(setup.model[-1].weight)  # type: ignore[index]

    assert loud(plant, outputs.check_input_gradient) == {}
