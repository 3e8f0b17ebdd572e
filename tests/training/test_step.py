"""The step is the textbook step, and sums of gradients are those of one batch."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from src.data.batches import Batch, training_batches
from src.images.input import enter
from src.images.mix import Mix
from src.model.device import readable_errors
from src.plumbing.errors import InputError
from src.training.loop import Training
from src.training.optimizer import create_optimizer
from src.training.step import train_step
from tests.training.trainings import (
    CPU,
    PARAMS,
    Plain,
    Splits,
    give_net,
    make_learner,
    make_training,
    plain_learner,
    run,
    same_state,
)


@pytest.mark.parametrize(
    ("count", "sizes", "options"),
    [
        (48, (48, 12, 16, 32), {}),  # 4 x 12, 3 x 16, and 2 x 24
        (48, (48, 12, 16, 32), {"clip_grad": 0.1}),
        (48, (48, 12, 16, 32), {"class_weights": "balanced"}),
        (48, (48, 12, 16, 32), {"loss": "bce"}),
        (7, (7, 2), {}),  # 2 + 2 + 3
    ],
)
def test_parts_of_a_batch_are_one_batch(
    few: Splits, count: int, sizes: tuple[int, ...], options: dict[str, Any]
) -> None:
    states: list[tuple[dict[str, torch.Tensor], torch.Tensor]] = []
    for batch_size in sizes:
        learner = plain_learner(few[0], batch_size=batch_size, **options)
        sums = []
        for epoch in range(5):
            ((images, labels),) = training_batches(few[0], 0, epoch, 48, CPU)
            done = train_step(learner, (images[:count], labels[:count]), epoch)
            sums.append(torch.stack(done))
        states.append((learner.model.state_dict(), torch.stack(sums)))
    for state, found in states[1:]:
        for name, value in states[0][0].items():
            assert (value - state[name]).abs().max() < 1e-12, name
        assert torch.allclose(found, states[0][1], rtol=1e-5)


def test_the_gradient_is_clipped_to_its_norm(few: Splits) -> None:
    (batch,) = training_batches(few[0], 0, 0, 48, CPU)
    free, clipped = make_learner(few[0]), make_learner(few[0], clip_grad=0.01)
    norm = train_step(free, batch, 0)[2]
    assert train_step(clipped, batch, 0)[2] == norm > 0.01
    gradients = [p.grad for p in clipped.model.parameters() if p.grad is not None]
    left = nn.utils.get_total_norm(gradients)
    assert left.item() == pytest.approx(0.01, rel=1e-4)


@pytest.mark.parametrize("accumulate", [4, 4096])
def test_a_batch_larger_than_the_data_keeps_the_size_of_its_parts(
    few: Splits, tmp_path: Any, accumulate: int
) -> None:
    training = make_training(few, accumulate=accumulate, epochs=1)
    assert training.steps_per_epoch == 1
    seen: list[int] = []
    training.learner.model.register_forward_pre_hook(lambda _, given: seen.append(len(given[0])))
    (batch,) = training.batches(0)
    train_step(training.learner, batch, 0)
    assert seen == [16, 16, 16]


@pytest.mark.parametrize(
    ("batch_size", "count", "parts"),
    [
        (2, 1, [1]),
        (2, 2, [2]),
        (2, 3, [3]),
        (2, 7, [3, 2, 2]),
        (2, 8, [2, 2, 2, 2]),
        (3, 4, [2, 2]),
        (3, 7, [3, 2, 2]),
        (16, 17, [9, 8]),
        (16, 48, [16, 16, 16]),
    ],
)
def test_no_part_of_a_step_is_a_single_sample(
    few: Splits, batch_size: int, count: int, parts: list[int]
) -> None:
    learner = plain_learner(few[0], batch_size=batch_size)
    seen: list[int] = []
    learner.model.register_forward_pre_hook(lambda _, given: seen.append(len(given[0])))
    images, labels = next(iter(training_batches(few[0], 0, 0, 48, CPU)))
    train_step(learner, (images[:count], labels[:count]), 0)
    assert seen == parts


def test_a_step_of_one_sample_on_which_batchnorm_fails_is_a_line(few: Splits) -> None:
    learner = make_learner(few[0])
    pooled = nn.AdaptiveAvgPool2d(1), nn.BatchNorm2d(3), nn.Flatten()
    give_net(learner, nn.Sequential(*pooled, nn.Linear(3, 3)))
    images, labels = next(iter(training_batches(few[0], 0, 0, 16, CPU)))
    words = "train: BatchNorm finds no variance in a step of one sample"
    with pytest.raises(InputError, match=words), readable_errors("train"):
        train_step(learner, (images[:1], labels[:1]), 0)
    with pytest.raises(ValueError, match="other"), readable_errors("train"):
        raise ValueError("other")


def test_the_step_is_the_textbook_step(splits: Splits) -> None:
    """Same weights after three steps as plain PyTorch: zero_grad, train mode, mean loss."""
    ours, plain = make_learner(splits[0]), make_learner(splits[0])
    optimizer = create_optimizer(plain.model, PARAMS, 1e-3)
    plain.model.train()
    for step, batch in enumerate(training_batches(splits[0], 0, 0, 16, CPU)):
        ours.model.eval()  # the step itself must switch to training mode
        loss, correct, _ = train_step(ours, batch, step)
        logits = plain.model(enter(batch[0], plain.mean, plain.std))
        expected = nn.functional.cross_entropy(logits, batch[1])
        optimizer.zero_grad()
        expected.backward()
        optimizer.step()
        assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
        assert correct == (logits.argmax(1) == batch[1]).sum()
    assert same_state(ours.model.state_dict(), plain.model.state_dict())


MIXED = {"mixup": 0.2, "cutmix": 1.0}


class InFloat64(Mix):
    """Shares that keep the precision of the net: float32 would hide a difference."""

    def __call__(self, *given: Any) -> Batch:
        images, targets = super().__call__(*given)
        return images, targets.double() if targets.is_floating_point() else targets


@pytest.mark.parametrize(
    "options",
    [
        {"label_smoothing": 0.1},
        {"loss": "focal", "focal_gamma": 1.5},
        {"loss": "bce", "label_smoothing": 0.1},
        {"class_weights": [1.0, 2.0, 4.0]},
        {**MIXED, "label_smoothing": 0.1, "class_weights": [1.0, 2.0, 4.0]},
        {**MIXED, "loss": "focal", "class_weights": [1.0, 2.0, 4.0]},
        {**MIXED, "loss": "bce", "clip_grad": 0.1},
    ],
    ids=str,
)
def test_four_parts_of_16_learn_like_one_batch_of_64(
    splits: Splits, tmp_path: Path, options: dict[str, Any]
) -> None:
    """In float64, on a net without BatchNorm, through the loop with its augmentation."""
    ends: list[Training] = []
    for batch_size, accumulate, parts in ((64, 1, [64]), (16, 4, [16] * 4)):
        given = {**options, "batch_size": batch_size, "accumulate": accumulate, "epochs": 5}
        training = make_training(splits, **given)
        training.mix = InFloat64(**vars(training.mix))
        training.learner = plain_learner(splits[0], **given)
        training.learner.criterion.double()
        sizes: list[int] = []
        training.learner.model.register_forward_pre_hook(
            lambda net, entered, sizes=sizes: (
                sizes.append(len(entered[0])) if net.training else None
            )
        )
        run(training, tmp_path / f"{accumulate}")
        assert sizes == 5 * parts
        ends.append(training)
    whole, summed = (training.learner.model.state_dict() for training in ends)
    for name, value in whole.items():
        assert (value - summed[name]).abs().max() < 1e-12, name
    for first, second in zip(*(training.history for training in ends), strict=True):
        assert first == pytest.approx(second, rel=1e-5)  # sums are kept in float32
    start = Plain().state_dict()
    assert max((value - start[name]).abs().max() for name, value in whole.items()) > 1e-3
