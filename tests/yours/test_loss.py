"""What `own_loss` must keep, whatever it computes."""

import pytest
import torch
from torch.nn import functional

from src.base.imports import ROOT
from src.plumbing import params
from src.yours.loss import own_loss

PARAMS = params.load(ROOT)

CLASSES, COUNT = 5, 12


def loss_of(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return own_loss(logits, targets, PARAMS)


def batch(scale: float = 2.0) -> tuple[torch.Tensor, torch.Tensor]:
    draws = torch.Generator().manual_seed(0)
    logits = scale * torch.randn(COUNT, CLASSES, generator=draws, dtype=torch.float64)
    return logits.requires_grad_(), torch.arange(COUNT) % CLASSES


def test_it_is_one_finite_number_whose_gradient_reaches_each_logit() -> None:
    for scale in (0.0, 2.0, 50.0):
        logits, labels = batch(scale)
        loss = loss_of(logits, labels)
        assert loss.shape == ()
        assert loss.isfinite()
        loss.backward()
        assert logits.grad is not None
        assert logits.grad.isfinite().all()
    logits, labels = batch(0.0)
    loss_of(logits, labels).backward()
    assert logits.grad is not None
    assert (logits.grad != 0).any(dim=1).all()


def test_right_logits_cost_less_than_wrong_ones() -> None:
    labels = torch.arange(COUNT) % CLASSES
    right = 5.0 * functional.one_hot(labels, CLASSES).double()
    assert loss_of(right, labels) < loss_of(right.roll(1, dims=1), labels)


def test_the_losses_of_equal_parts_average_to_that_of_the_batch() -> None:
    logits, labels = batch()
    parts = [loss_of(logits[part::3], labels[part::3]) for part in range(3)]
    assert torch.stack(parts).mean().item() == pytest.approx(loss_of(logits, labels).item())


def test_labels_and_their_shares_are_one() -> None:
    logits, labels = batch()
    shares = functional.one_hot(labels, CLASSES).double()
    assert loss_of(logits, shares).item() == pytest.approx(loss_of(logits, labels).item())


def test_the_same_batch_gives_the_same_bits() -> None:
    logits, labels = batch()
    assert loss_of(logits, labels).item() == loss_of(logits, labels).item()
