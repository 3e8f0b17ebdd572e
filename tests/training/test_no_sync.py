"""Between two looks at the loss no value is read from the device: each read would wait for it."""

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch

from src.data.readers import Reading
from src.training import loop
from src.training.learner import Learner
from tests.training.trainings import DRAWN, Splits, make_training, run

# Has shapes and types but no values: to read one is an error, as it is in the middle of a step.
META = torch.device("meta")
EVERYTHING: dict[str, Any] = {
    **DRAWN,
    "augment_crop": 2,
    "augment_flip": True,
    "label_smoothing": 0.1,
    "clip_grad": 1.0,
    "schedule": "cosine",
    "warmup": 0.5,
    "layer_decay": 0.7,
}
CASES = {
    "default": ({}, "resident"),
    "everything": (EVERYTHING, "resident"),
    "mapped": (EVERYTHING, "mapped"),
    "workers": (EVERYTHING, "workers"),
    "parts": ({**EVERYTHING, "loss": "bce", "batch_size": 8, "accumulate": 2}, "resident"),
    "focal": ({"loss": "focal", "label_smoothing": 0, "class_weights": "balanced"}, "resident"),
    "sgd": ({"optimizer": "sgd", "sampling": "balanced", "freeze_epochs": 1}, "resident"),
}


@pytest.mark.parametrize(("options", "way"), CASES.values(), ids=CASES)
def test_a_step_reads_nothing_back(
    few: Splits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], way: str
) -> None:
    """Without what the device does not have: autocast, fused steps, and timm's average."""
    monkeypatch.setattr(Learner, "autocast", lambda _: nullcontext())
    given = {"epochs": 1, "fused": False, **options}
    training = make_training(few, META, Reading(way, 1), **given)
    steps: list[int] = []

    def end_epoch(training: loop.Training) -> loop.Row:
        steps.append(training.step_in_epoch)
        training.epoch += 1
        return {}

    monkeypatch.setattr(loop.Training, "_finish_epoch", end_epoch)
    run(training, tmp_path)
    assert steps == [3]
    with pytest.raises(RuntimeError, match="meta"):  # what a read would have been
        training.sums[0].item()
