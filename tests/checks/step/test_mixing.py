"""Mixed labels are counted: those that follow their images are fine, others are found."""

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from src.checks import TrainingSetup
from src.checks.step.batch_to_gradient import check_step_and_loss
from tests.checks import small_setup
from tests.checks.small_setup import CLASSES, declare, loud, train_step


def box(x: Tensor, other: Tensor, share: float) -> tuple[Tensor, float]:
    """Cutmix: a box of x[other] in x, and the share of x that is left."""
    side = max(1, round(x.shape[2] * (1 - share) ** 0.5))
    top = int(torch.randint(0, x.shape[2] - side + 1, ()))
    mixed, place = x.clone(), slice(top, top + side)
    mixed[..., place, place] = x[other][..., place, place]
    return mixed, 1 - (side / x.shape[2]) ** 2


def mixing(setup: TrainingSetup, rule: str, form: str) -> None:
    """A step that mixes by `rule` and gives the loss shares ("soft") or calls it twice."""

    def loss(setup: TrainingSetup, batch: Any) -> Tensor:
        x, y = batch
        other, share = torch.randperm(len(x)), float(np.random.beta(0.6, 0.6))
        labels = y[other]
        if "box" in rule:
            entered, share = box(x, other, share)
        elif "row" in rule:
            shares = torch.rand(len(x), 1, 1, 1)
            entered = shares * x + (1 - shares) * x[other]
        else:
            entered = share * x + (1 - share) * x[other]
        own: Any = shares.flatten() if "row" in rule else torch.full((len(x),), share)
        own = 1 - own if "exchanged" in rule else own
        labels = y[torch.randperm(len(x))] if "others" in rule else labels
        entered = x if "labels alone" in rule else entered
        own = torch.ones(len(x)) if "images alone" in rule else own
        logits = setup.model(entered)
        if form == "twice":
            return own[0] * setup.loss_fn(logits, y) + (1 - own[0]) * setup.loss_fn(logits, labels)
        target = own[:, None] * functional.one_hot(y, CLASSES)
        target = target + (1 - own[:, None]) * functional.one_hot(labels, CLASSES)
        target = 0.9 * target + 0.1 / CLASSES if "smooth" in rule else target
        return setup.loss_fn(logits, target)

    setup.train_step = partial(train_step, loss_of=loss)
    declare(setup, mixup=0.6, label_smoothing=0.1 if "smooth" in rule else 0.0)


SOFT = ["sum", "box", "sum smooth", "box smooth", "row", "row smooth"]


@pytest.mark.parametrize(
    ("rule", "form"), [*((rule, "soft") for rule in SOFT), ("sum", "twice"), ("box", "twice")]
)
def test_labels_that_are_mixed_like_their_images_are_fine(rule: str, form: str) -> None:
    assert loud(lambda setup: mixing(setup, rule, form), check_step_and_loss) == {}


@pytest.mark.parametrize("form", ["soft", "twice"])
@pytest.mark.parametrize(
    ("rule", "cause"),
    [
        ("sum exchanged", "mixed_labels_differ"),
        ("box exchanged", "mixed_labels_differ"),
        ("sum others", "mixed_labels_differ"),
        ("box others", "mixed_labels_differ"),
        ("sum images alone", "inputs_changed_in_step"),
        ("labels alone", "mixed_labels_differ"),
    ],
)
def test_labels_that_are_mixed_otherwise_are_found(rule: str, cause: str, form: str) -> None:
    found = loud(lambda setup: mixing(setup, rule, form), check_step_and_loss)
    assert found.get("step_inputs", ("", ""))[1] == cause, found


def test_mixing_inside_the_net_is_not_judged() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            layers = list(small_setup.net().children())
            self.first, self.rest = nn.Sequential(*layers[:4]), nn.Sequential(*layers[4:])

        def forward(self, x: Tensor, mix: Any = None) -> Tensor:
            hidden = self.first(x)
            if mix is not None:
                share, other = mix
                hidden = share * hidden + (1 - share) * hidden[other]
            return self.rest(hidden)

    def loss(setup: TrainingSetup, batch: Any) -> Tensor:
        x, y = batch
        other, share = torch.randperm(len(x)), float(np.random.beta(0.6, 0.6))
        logits = setup.model(x, mix=(share, other))
        return share * setup.loss_fn(logits, y) + (1 - share) * setup.loss_fn(logits, y[other])

    def plant(setup: TrainingSetup) -> None:
        setup.model, setup.train_step = Net(), partial(train_step, loss_of=loss)
        setup.optimizer = torch.optim.AdamW(setup.model.parameters(), 3e-3)

    assert loud(plant, check_step_and_loss) == {}
