"""What is held against a formula: the loss of log-probabilities, focal loss, strong smoothing, a
head without bias, pictures of little contrast, batches that resemble their labels. Each with
variants that are fine and variants that are not."""

from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

from src.checks import TrainingSetup
from src.checks.context import draw
from src.checks.data import loaders, normalisation
from src.checks.net import outputs
from src.checks.step import controlled
from tests.checks import base
from tests.checks.base import CLASSES
from tests.checks.test_exact import loud

Loss = Callable[[Tensor, Tensor], Tensor]


def of_classes(setup: TrainingSetup, count: int) -> None:
    """The set-up on the first `count` classes alone."""

    def cut(data: Any) -> TensorDataset:
        x, y = data.tensors
        return TensorDataset(x[y < count], y[y < count])

    setup.train_data, setup.val_data = cut(setup.train_data), cut(setup.val_data)
    setup.train_loader = DataLoader(setup.train_data, 16, shuffle=True)
    setup.val_loader = DataLoader(setup.val_data, 32)
    setup.model[-1] = nn.Linear(32, count)  # type: ignore[operator]
    setup.optimizer = torch.optim.AdamW(setup.model.parameters(), 3e-3)
    setup.declared = {**setup.declared, "num_classes": count}


# --- a net that ends in log_softmax


def bce(smoothing: float) -> Loss:
    def loss(logits: Tensor, y: Tensor) -> Tensor:
        wanted = (1 - smoothing) * functional.one_hot(y, CLASSES) + smoothing / CLASSES
        return functional.binary_cross_entropy_with_logits(logits, wanted)

    return loss


def focal_of_log_p(gamma: float) -> Loss:
    return lambda log_p, y: functional.nll_loss((1 - log_p.exp()) ** gamma * log_p, y)


def log_probabilities(setup: TrainingSetup, loss: Loss, own_step: bool = False) -> None:
    """The net ends in log_softmax; the loss is the set-up's or, with `own_step`, in its step."""

    def step(setup: TrainingSetup, batch: Any) -> dict[str, float]:
        setup.model.train()
        setup.optimizer.zero_grad()
        value = loss(setup.model(batch[0]), batch[1])
        value.backward()
        setup.optimizer.step()
        return {"loss": value.item()}

    setup.model.append(nn.LogSoftmax(dim=1))  # type: ignore[operator]
    if own_step:
        setup.train_step = step
    else:
        setup.loss_fn = loss


@pytest.mark.parametrize("own_step", [False, True])
@pytest.mark.parametrize(
    "loss",
    [
        functional.cross_entropy,
        functional.nll_loss,
        lambda log_p, y: functional.kl_div(
            log_p, functional.one_hot(y, CLASSES).float(), reduction="batchmean"
        ),
        lambda log_p, y: 0.9 * functional.nll_loss(log_p, y) - 0.1 * log_p.mean(),
        focal_of_log_p(1.0),
        focal_of_log_p(2.5),
    ],
)
def test_losses_that_take_log_probabilities_are_fine(loss: Loss, own_step: bool) -> None:
    def plant(setup: TrainingSetup) -> None:
        setup.declared = {**setup.declared, "label_smoothing": None}
        log_probabilities(setup, loss, own_step)

    assert loud(plant, outputs.check_outputs, controlled.check_stub) == {}


@pytest.mark.parametrize("own_step", [False, True])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_binary_cross_entropy_of_log_probabilities_is_found(
    smoothing: float, own_step: bool
) -> None:
    found = loud(
        lambda setup: log_probabilities(setup, bce(smoothing), own_step),
        outputs.check_outputs, controlled.check_stub,
    )  # fmt: skip
    id = "step_loss_confident" if own_step else "loss_confident"
    assert found == {id: ("fail", "activation_before_loss")}


# --- focal loss and smoothing


def focal(setup: TrainingSetup, classes: int, gamma: float, told: bool, factor: float = 1) -> None:
    def loss(logits: Tensor, y: Tensor) -> Tensor:
        each = functional.cross_entropy(factor * logits, y, reduction="none")
        return ((1 - (-each).exp()) ** gamma * each).mean()

    of_classes(setup, classes)
    setup.loss_fn = loss
    setup.declared = {**setup.declared, **({"focal_gamma": gamma} if told else {})}


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize(
    ("gamma", "told"),
    [(0.0, False), (1.0, False), (3.0, False), (0.5, True), (3.0, True), (5.0, True), (8.0, True)],
)
def test_focal_loss_is_fine(classes: int, gamma: float, told: bool) -> None:
    assert loud(lambda setup: focal(setup, classes, gamma, told), controlled.check_stub) == {}


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("factor", [0.02, 100.0])
def test_a_temperature_in_a_focal_loss_is_found(classes: int, factor: float) -> None:
    found = loud(lambda setup: focal(setup, classes, 5.0, True, factor), controlled.check_stub)
    assert found["temperature"] == ("fail", "temperature")


def smoothed(setup: TrainingSetup, classes: int, used: float, declared: float) -> None:
    of_classes(setup, classes)
    setup.loss_fn = nn.CrossEntropyLoss(label_smoothing=used)
    setup.declared = {**setup.declared, "label_smoothing": declared}


@pytest.mark.parametrize("classes", [2, 3, 4])
@pytest.mark.parametrize("smoothing", [0.1, 0.8, 0.95])
def test_smoothing_that_is_the_declared_one_is_fine(classes: int, smoothing: float) -> None:
    plant = lambda setup: smoothed(setup, classes, smoothing, smoothing)  # noqa: E731
    assert loud(plant, controlled.check_stub) == {}


def test_smoothing_that_is_not_the_declared_one_fails() -> None:
    found = loud(lambda setup: smoothed(setup, 3, 0.8, 0.1), controlled.check_stub)
    assert found["loss_confident"][0] == "fail"


# --- a head without bias


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
        (nn.Sigmoid(), False), (nn.Sigmoid(), True), (nn.Softmax(dim=1), False),
        (nn.Softmax(dim=1), True), (nn.ReLU(), False),
    ],
)  # fmt: skip
def test_an_activation_after_a_head_without_bias_is_found(end: nn.Module, own: bool) -> None:
    for seed in range(5):
        plant = lambda setup: without_bias(setup, seed, own, end)  # noqa: B023, E731
        found = loud(plant, outputs.check_outputs)
        assert found["outputs"][1] == "activation_before_loss", seed


def test_a_head_without_bias_may_start_at_zero() -> None:
    def plant(setup: TrainingSetup) -> None:
        without_bias(setup, 0, False, None)
        nn.init.zeros_(setup.model[-1].weight)  # type: ignore[index]

    assert loud(plant, outputs.check_inputs) == {}


# --- pictures of little contrast


def dull(setup: TrainingSetup, low: int, high: int, used: tuple[float, float] | None) -> None:
    """Pictures whose bytes lie in low..high, normalised by their statistics or by `used`."""
    x, y = base.pictures()
    x = (low + x / 255 * (high - low)).round() / 255
    mean, std = x[:160].mean((0, 2, 3)), x[:160].std((0, 2, 3))
    own = mean.view(1, 3, 1, 1), std.view(1, 3, 1, 1)
    x = (x - (used or own)[0]) / (used or own)[1]
    setup.train_data, setup.val_data = (
        TensorDataset(x[part], y[part]) for part in (slice(160), slice(160, None))
    )
    setup.declared = {**setup.declared, "mean": mean.tolist(), "std": std.tolist()}


@pytest.mark.parametrize(("low", "high"), [(120, 135), (0, 15), (240, 255), (100, 155)])
def test_little_contrast_normalised_by_its_own_statistics_is_fine(low: int, high: int) -> None:
    assert loud(lambda setup: dull(setup, low, high, None), normalisation.check_statistics) == {}


@pytest.mark.parametrize("used", [(0.0, 1.0), (0.5, 1.0), (0.5, 0.25)])
def test_little_contrast_normalised_by_other_numbers_is_found(used: tuple[float, float]) -> None:
    found = loud(lambda setup: dull(setup, 120, 135, used), normalisation.check_statistics)
    assert found["normalisation"][0] == "fail"


class Noisy:
    """Augmented items: four kinds of pictures under noise that hides a part of them."""

    def __init__(self, seed: int):
        self.random = torch.Generator().manual_seed(seed)
        self.kinds = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))

    def __len__(self) -> int:
        return 80

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        noise = torch.randn(1, 8, 8, generator=self.random)
        return self.kinds[index % 4] + 2.2 * noise, index % 4


class Loader:
    """Batches of 32 in a new order; `roll`: labels that lie so many places off."""

    def __init__(self, data: Noisy, roll: int):
        self.data, self.roll = data, roll

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for part in torch.randperm(80, generator=self.data.random)[:64].split(32):
            x, y = zip(*(self.data[int(index)] for index in part), strict=True)
            yield torch.stack(x), torch.tensor(y).roll(self.roll)


@pytest.mark.parametrize(
    ("roll", "unlucky", "status"), [(0, 0, "pass"), (0, 1, "pass"), (1, 1, "fail")]
)
def test_an_unlucky_batch_is_not_taken_for_a_misaligned_loader(
    roll: int, unlucky: int, status: str
) -> None:
    for seed in range(20):
        data = Noisy(seed)
        loader = Loader(data, roll)
        ctx: Any = SimpleNamespace(
            train_sample=draw(data, range(80), "train_data"),
            batches=list(Loader(data, unlucky)),
        )
        [found] = loaders._resembling(ctx, SimpleNamespace(train_data=data, train_loader=loader))
        assert (found.status, seed) == (status, seed), found.message
