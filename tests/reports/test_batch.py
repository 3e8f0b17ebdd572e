"""The images of batches show what really enters the net."""

import copy
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from src.images import grids
from src.images.grids import Grid
from src.model.inference import ACTIVATIONS
from src.reports.batch import SHOWN, batch_grid, examples_grid, training_input, validation_input
from tests.training.trainings import Splits, make_training, run


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"mixup": 0.4, "augment_crop": 2, "augment_erase": 0.5},
        {"sampling": "balanced", "channels_last": True},
    ],
    ids=str,
)
def test_it_is_what_the_net_gets_first(few: Splits, tmp_path: Path, options: Any) -> None:
    training = make_training(few, epochs=1, **options)
    seen: dict[bool, list[torch.Tensor]] = {True: [], False: []}  # by training mode
    training.learner.model.register_forward_pre_hook(
        lambda net, given: seen[net.training].append(given[0].detach().clone())
    )
    run(training, tmp_path)
    plan = training.plan
    entering, targets = training_input(training)
    assert torch.equal(entering, seen[True][0])
    assert len(targets) == plan.step_size
    entering, labels = validation_input(few[1], training.learner)
    assert torch.equal(entering, seen[False][0])
    assert np.array_equal(labels.numpy(), few[1].labels[: len(labels)])


@pytest.mark.parametrize("images", [3, 41, 79, 119])
def test_examples_are_spread_over_the_split(
    images: int, few: Splits, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And show the probability that `evaluate` gives: the shares of sigmoids add up to one."""
    learner = make_training(few, loss="bce").learner
    data = copy.copy(few[1])
    many = np.resize(np.arange(len(data)), images)
    data.labels = data.labels[many]
    asked: list[np.ndarray] = []
    captions: list[str] = []

    def read(indices: np.ndarray) -> np.ndarray:
        asked.append(indices)
        return few[1].rows(many[indices])

    def draw(drawn: list[Grid], columns: int) -> bytes:
        [(_, below, _)] = drawn
        captions.extend(below)
        return b""

    monkeypatch.setattr(data, "rows", read)
    monkeypatch.setattr(grids, "grids_side_by_side", draw)
    examples_grid(data, learner, "")
    [indices] = asked
    assert len(indices) == min(SHOWN, images)
    assert (indices[0], len(set(indices))) == (0, len(indices))
    assert np.diff(indices, append=images).max() <= -(-images // SHOWN)
    logits = learner.kept_model(learner.enter(torch.from_numpy(few[1].rows(many[indices]))))
    highest = ACTIVATIONS["sigmoid"](logits.detach().numpy()).max(axis=1)
    assert [caption[-4:] for caption in captions] == [f"{share:.2f}" for share in highest]


def test_the_halves_stand_side_by_side_with_the_images_as_they_were(few: Splits) -> None:
    training = make_training(few, augment_flip=False, augment_crop=0)
    png = batch_grid(training)
    sheet = np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))
    assert sheet.shape[1] == 2 * (5 * 100 + 4) + 24
    right = sheet[:, 5 * 100 + 4 + 24 :]
    side = few[1].meta["size"]
    for number in range(min(10, SHOWN)):
        top, left = 44 + number // 5 * (96 + 16 + 4), 4 + number % 5 * 100
        tile = right[top : top + 96, left : left + 96]
        wanted = few[1].rows([number])[0].repeat(96 // side, axis=0).repeat(96 // side, axis=1)
        assert np.abs(tile.astype(int) - wanted).max() <= 1
