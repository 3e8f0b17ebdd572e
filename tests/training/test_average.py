"""The average of the weights is timm's."""

from typing import Any

import pytest
from timm.utils import ModelEmaV3
from torch import nn

from src.data.batches import training_batches
from src.training.learner import average_remark, last_decay
from src.training.step import train_step
from src.training.validation import validate
from tests.training.trainings import CPU, Splits, ended, make_learner, same_state


def test_the_average_of_weights_is_timms(few: Splits) -> None:
    learner = make_learner(few[0], ema=0.9)
    assert learner.ema is not None
    by_hand = ModelEmaV3(learner.model, decay=0.9, use_warmup=True)
    step = 0
    for epoch in range(3):
        for batch in training_batches(few[0], 0, epoch, 16, CPU):
            train_step(learner, batch, step)
            step += 1
            by_hand.update(learner.model, step=step)
            assert same_state(learner.ema.module.state_dict(), by_hand.module.state_dict())
    assert not same_state(learner.model.state_dict(), by_hand.module.state_dict())
    assert learner.kept_model is learner.ema.module


@pytest.mark.parametrize("ema", [0.5, 0.99, 0.999, 0.9999])
@pytest.mark.parametrize("steps", [1, 2, 396, 1001, 31_700])
def test_the_decay_that_a_training_comes_to_is_timms(ema: float, steps: int) -> None:
    timms = ModelEmaV3(nn.Linear(1, 1), decay=ema, use_warmup=True)
    last = timms.get_decay(steps)  # as train_step asks for it
    assert last_decay(ema, steps) == pytest.approx(last, abs=1e-12)
    assert (average_remark(ema, steps) == "") == (last == ema)


def test_a_decay_that_the_warm_up_keeps_low_is_said() -> None:
    assert average_remark(None, 396) == ""
    assert average_remark(0.98, 396) == ""
    assert average_remark(0.99, 1000) == ""  # but for rounding
    assert average_remark(0.999, 396) == (
        "train: ema 0.999 acts like 0.9815: timm's warm-up of the average is not over after "
        "396 steps"
    )


def test_the_average_is_validated_and_kept(few: Splits, tmp_path: Any) -> None:
    training = ended(few, tmp_path, ema=0.99, lr=1e-2)
    other = make_learner(few[0])
    other.model.load_state_dict(training.best.weights)
    best = training.history[training.best.epoch - 1]
    assert validate(other, few[1])["loss"] == best["val_loss"]
