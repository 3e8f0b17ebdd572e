"""The losses against torch, timm and the formulas of their papers."""

import math

import numpy as np
import pytest
import torch
from timm.loss import BinaryCrossEntropy
from torch import nn
from torch.nn import functional

from src.plumbing.errors import InputError
from src.training.loss import Loss, create_loss
from src.yours import loss as yours

LOGITS = torch.randn(64, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
LABELS = torch.arange(64) % 5
SOFT = torch.softmax(torch.randn(64, 5, generator=torch.Generator().manual_seed(1)).double(), 1)


def test_cross_entropy_is_torchs() -> None:
    for targets in (LABELS, SOFT):
        expected = nn.CrossEntropyLoss(label_smoothing=0.1)(LOGITS, targets)
        assert torch.equal(Loss(label_smoothing=0.1)(LOGITS, targets), expected)


def test_binary_cross_entropy_is_timms() -> None:
    """timm's, which smooths otherwise, without smoothing; the sum over classes."""
    expected = BinaryCrossEntropy(smoothing=0.0, sum_classes=True)(LOGITS, LABELS)
    assert Loss("bce")(LOGITS, LABELS).item() == pytest.approx(expected.item(), abs=1e-12)


def test_focal_loss_is_that_of_the_paper() -> None:
    p = LOGITS.softmax(1)[torch.arange(64), LABELS]
    expected = (-((1 - p) ** 2) * p.log()).mean()
    assert Loss("focal", focal_gamma=2)(LOGITS, LABELS).item() == pytest.approx(expected.item())
    plain = functional.cross_entropy(LOGITS, LABELS).item()
    assert Loss("focal", focal_gamma=0)(LOGITS, LABELS).item() == pytest.approx(plain, abs=1e-12)


@pytest.mark.parametrize("gamma", [0.0, 0.3, 0.5, 0.99, 1.0, 2.0])
@pytest.mark.parametrize("gap", [0.0, 5.0, 15.0, 17.5, 40.0, 200.0])
@pytest.mark.parametrize("right", [True, False])
def test_the_slope_of_the_focal_loss_is_finite_and_right(
    gamma: float, gap: float, right: bool
) -> None:
    """Against the derivative in float64, also for an image that the net is sure of."""
    logits = torch.tensor([[gap, 0.0], [0.5, -0.5]], requires_grad=True)
    labels = torch.tensor([0 if right else 1, 1])
    value = Loss("focal", focal_gamma=gamma)(logits, labels)
    value.backward()
    wanted = logits.detach().double().requires_grad_()
    log_p = wanted.log_softmax(1)[torch.arange(2), labels]
    log_rest = wanted.log_softmax(1)[torch.arange(2), 1 - labels]  # two classes: 1 - p
    expected = (-(gamma * log_rest).exp() * log_p).mean()
    expected.backward()
    assert value.item() == pytest.approx(expected.item(), rel=1e-4, abs=1e-6)
    assert logits.grad is not None
    assert wanted.grad is not None
    assert torch.allclose(logits.grad.double(), wanted.grad, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("gamma", [1.0, 1.5, 2.0])
def test_from_gamma_one_on_the_focal_loss_has_the_bits_of_its_formula(gamma: float) -> None:
    logits = (20 * LOGITS.float()).requires_grad_()
    Loss("focal", focal_gamma=gamma)(logits, LABELS).backward()
    plain = logits.detach().clone().requires_grad_()
    log_p = plain.log_softmax(dim=1)
    hard = (1 - log_p.exp()) ** gamma
    (-(functional.one_hot(LABELS, 5) * hard * log_p).sum(dim=1)).mean().backward()
    assert logits.grad is not None
    assert plain.grad is not None
    assert torch.equal(logits.grad, plain.grad)


@pytest.mark.parametrize("name", ["cross_entropy", "bce", "focal"])
def test_labels_and_their_shares_are_one(name: str) -> None:
    loss = Loss(name, 0.0, 2.0, torch.tensor([1.0, 2, 3, 4, 5], dtype=torch.float64))
    shares = functional.one_hot(LABELS, 5).double()
    assert loss(LOGITS, LABELS).item() == pytest.approx(loss(LOGITS, shares).item(), abs=1e-12)


@pytest.mark.parametrize("name", ["cross_entropy", "bce", "focal"])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_an_even_guess_costs_what_the_formula_says(name: str, smoothing: float) -> None:
    if name == "focal" and smoothing:
        pytest.skip("focal has no smoothing")
    even = {"cross_entropy": math.log(5), "bce": 5 * math.log(2), "focal": 0.64 * math.log(5)}
    value = Loss(name, smoothing)(torch.zeros(64, 5), LABELS).item()
    assert value == pytest.approx(even[name], rel=1e-6)


@pytest.mark.parametrize(
    ("returned", "got"), [(torch.zeros(3), r"shape \(3,\)"), (1.0, "float"), (None, "NoneType")]
)
def test_an_own_loss_must_be_one_number(
    returned: object, got: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(yours, "own_loss", lambda *_, **__: returned)
    params = {"loss": "own", "label_smoothing": 0.0, "focal_gamma": 2.0, "class_weights": "none"}
    loss = create_loss(params, np.zeros(4, dtype=int), ["a"])
    with pytest.raises(InputError, match=rf"own_loss in src/yours/loss.py must .*, got {got}"):
        loss(LOGITS, LABELS)


def test_an_own_loss_must_have_a_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(yours, "own_loss", lambda logits, *_, **__: logits.detach().mean())
    params = {"loss": "own", "label_smoothing": 0.0, "focal_gamma": 2.0, "class_weights": "none"}
    loss = create_loss(params, np.zeros(4, dtype=int), ["a"])
    with pytest.raises(InputError, match=r"src/yours/loss.py gives a number without a gradient"):
        loss(LOGITS.clone().requires_grad_(), LABELS)
    with torch.no_grad():
        loss(LOGITS, LABELS)


def test_class_weights() -> None:
    labels, names = np.array([0] * 6 + [1] * 3 + [2]), ["a", "b", "c"]
    params = {"loss": "cross_entropy", "label_smoothing": 0.0, "focal_gamma": 2.0}
    balanced = create_loss({**params, "class_weights": "balanced"}, labels, names)
    assert balanced.class_weights is not None
    expected = torch.tensor([10 / 18, 10 / 9, 10 / 3])
    assert torch.allclose(balanced.class_weights, expected)
    listed = create_loss({**params, "class_weights": [1.0, 2.0, 4.0]}, labels, names)
    weights = listed.class_weights
    assert weights is not None
    assert torch.allclose(weights / weights[0], torch.tensor([1.0, 2.0, 4.0]))
    assert weights[torch.tensor(labels)].mean().item() == pytest.approx(1)
    with pytest.raises(InputError, match="one number for each of the 3 classes"):
        create_loss({**params, "class_weights": [1.0]}, labels, names)
