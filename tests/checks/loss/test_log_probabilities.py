"""A net that ends in log_softmax: losses that take log-probabilities, and one that does not."""

from collections.abc import Callable
from functools import partial

import pytest
from torch import Tensor, nn
from torch.nn import functional

from src.checks import TrainingSetup
from src.checks.net import outputs
from src.checks.step.batch_to_gradient import check_step_and_loss
from tests.checks.small_setup import CLASSES, bce, declare, loud, train_step

Loss = Callable[[Tensor, Tensor], Tensor]


def focal_of_log_p(gamma: float) -> Loss:
    return lambda log_p, y: functional.nll_loss((1 - log_p.exp()) ** gamma * log_p, y)


def log_probabilities(setup: TrainingSetup, loss: Loss, own_step: bool = False) -> None:
    """The net ends in log_softmax; the loss is the set-up's or, with `own_step`, in its step."""

    setup.model.append(nn.LogSoftmax(dim=1))  # type: ignore[operator]
    if own_step:
        own_loss = lambda setup, batch: loss(setup.model(batch[0]), batch[1])  # noqa: E731
        setup.train_step = partial(train_step, loss_of=own_loss)
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
        declare(setup, label_smoothing=None)
        log_probabilities(setup, loss, own_step)

    assert loud(plant, outputs.check_outputs, check_step_and_loss) == {}


@pytest.mark.parametrize("own_step", [False, True])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_binary_cross_entropy_of_log_probabilities_is_found(
    smoothing: float, own_step: bool
) -> None:
    found = loud(
        lambda setup: log_probabilities(setup, bce(smoothing), own_step),
        outputs.check_outputs,
        check_step_and_loss,
    )
    id = "step_loss_confident" if own_step else "loss_confident"
    assert found == {id: ("fail", "activation_before_loss")}
