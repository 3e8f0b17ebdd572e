"""The loop, best weights and going on from a checkpoint."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from src.data.batches import training_batches
from src.images.augment import Augmentation
from src.plumbing.errors import GateError
from src.training.loop import Training
from src.training.step import train_step
from src.training.validation import validate
from tests.training.trainings import (
    CPU,
    Killed,
    Splits,
    checkpoint_in,
    ended,
    give_net,
    make_learner,
    make_training,
    resumed,
    run,
    same_state,
    taken_up,
)


@pytest.mark.parametrize("frozen", [0, 9])
def test_patience_ends_a_training_that_gains_nothing(
    frozen: int, few: Splits, tmp_path: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    options = {"patience": 2, "lr": 1e-9, "best_by": "val/macro_f1", "freeze_epochs": frozen}
    training = ended(few, tmp_path, epochs=50, **options)
    best = training.best.epoch
    assert training.epoch == max(best, frozen) + 2 < 50
    line = f"train: patience ended it after epoch {training.epoch}: val/macro_f1 was best in epoch"
    assert f"{line} {best}\n" in capsys.readouterr().out


def test_macro_f1_of_validation_is_scikit_learns(few: Splits) -> None:
    from sklearn.metrics import f1_score

    learner = make_learner(few[0])
    found = validate(learner, few[1])
    with torch.no_grad():
        images = torch.from_numpy(few[1].rows(range(len(few[1]))))
        predictions = learner.model.eval()(learner.enter(images)).argmax(1)
    expected = f1_score(few[1].labels, predictions, average="macro", zero_division=0)
    assert found["macro_f1"] == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    "options",
    [
        {"schedule": "cosine", "warmup": 1},
        {"ema": 0.9, "schedule": "plateau", "decay_epochs": 1, "warmup": 0.5, "clip_grad": 0.5},
        {"freeze_epochs": 2, "optimizer": "sgd", "schedule": "step", "decay_epochs": 1},
        pytest.param(  # 16-bit floats take six times as long on a CPU
            {"precision": "fp16", "mixup": 0.2, "cutmix": 1.0, "sampling": "balanced"},
            marks=pytest.mark.slow,
        ),
        {"batch_size": 8, "accumulate": 2, "loss": "bce", "patience": 2, "augment_scale": 0.5},
    ],
)
def test_a_killed_run_ends_in_the_same_bits(
    splits: Splits, tmp_path: Path, options: dict[str, Any]
) -> None:
    """Killed after any step, in mid-epoch too; every part of the state survives."""
    whole = ended(splits, tmp_path / "whole", **options)
    assert whole.steps_per_epoch == 6
    for after in (1, 6, 13):
        second = resumed(lambda: make_training(splits, **options), tmp_path / f"{after}", after)
        assert same_state(whole.state_dict(), second.state_dict()), after


def test_a_finished_training_is_kept(splits: Splits, tmp_path: Path) -> None:
    """What comes after it, writing and logging, may fail."""
    whole = ended(splits, tmp_path)
    again = taken_up(make_training(splits), tmp_path)
    assert again.finished
    assert same_state(whole.state_dict(), again.state_dict())


def test_history_has_the_rate_of_the_epoch_itself(splits: Splits, tmp_path: Path) -> None:
    options = {"schedule": "step", "decay_epochs": 2, "decay_rate": 0.1, "lr": 0.01}
    training = ended(splits, tmp_path, **options)
    assert [row["lr"] for row in training.history] == pytest.approx([0.01, 0.01, 0.001])


# What a cosine sets follows from the number of steps; a plateau's counters stand in the checkpoint.
PARTS = {"cosine": ("model", "optimizer", "sums", "best", "history"), "plateau": ("scheduler",)}


@pytest.mark.parametrize("schedule", PARTS)
def test_a_resume_that_forgets_a_part_is_noticed(
    splits: Splits, tmp_path: Path, schedule: str
) -> None:
    options: dict[str, Any] = {"schedule": schedule, "decay_epochs": 1, "warmup": 0}
    first = make_training(splits, **options)
    with pytest.raises(Killed):
        run(first, tmp_path, 8, minutes=1e-9)
    saved = checkpoint_in(tmp_path).load()
    assert saved is not None
    whole = ended(splits, tmp_path / "whole", **options)
    for part in PARTS[schedule]:
        broken = make_training(splits, **options)
        broken.load_state_dict({**saved, part: broken.state_dict()[part]})
        run(broken, tmp_path / part)
        assert not same_state(whole.state_dict(), broken.state_dict()), part


def test_a_run_that_is_asked_to_stop_goes_on_from_that_step(splits: Splits, tmp_path: Path) -> None:
    whole = ended(splits, tmp_path / "whole")
    for after in (1, 6, 7, 18):
        first, folder = make_training(splits), tmp_path / f"{after}"

        def stopping(first: Training = first, after: int = after) -> bool:
            return first.global_step >= after

        run(first, folder, stopping=stopping)
        second = taken_up(make_training(splits), folder)
        assert second.global_step == after
        run(second, tmp_path / "second")
        assert same_state(whole.state_dict(), second.state_dict()), after


@pytest.mark.parametrize("best_by", ["val/accuracy", "val/loss"])
def test_the_kept_weights_are_those_of_the_best_epoch(
    splits: Splits, tmp_path: Path, best_by: str
) -> None:
    training = ended(splits, tmp_path, best_by=best_by, lr=2e-2)
    rows = training.history
    if best_by == "val/loss":
        best = min(rows, key=lambda row: row["val_loss"])
    else:
        best = max(rows, key=lambda row: (row["val_accuracy"], -row["val_loss"]))
    assert training.best.epoch == best["epoch"]
    training.learner.model.load_state_dict(training.best.weights)
    found = validate(training.learner, splits[1])
    assert found == {key: best[f"val_{key}"] for key in ("loss", "accuracy", "macro_f1")}


def test_a_loss_that_is_not_a_number_stops_in_one_line(splits: Splits, tmp_path: Path) -> None:
    training = make_training(splits, lr=1e30, optimizer="sgd")
    with pytest.raises(GateError, match=r"loss is NaN or infinite in epoch 1.*lower lr"):
        run(training, tmp_path)


@pytest.mark.parametrize("source", ["weights", "order", "augment", "dropout"])
def test_the_seed_moves_every_random_part(
    splits: Splits, source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two seeds that share all but one source of randomness still part."""
    from src.base import randomness

    original: Callable[..., int] = randomness.derive
    states = []
    for seed in (0, 1):
        monkeypatch.setattr(
            randomness,
            "derive",
            lambda _, purpose, step=0, seed=seed: original(
                seed if purpose == source else 0, purpose, step
            ),
        )
        learner = make_learner(splits[0])
        give_net(learner, nn.Sequential(learner.model, nn.Dropout(0.3)))
        augmentation = Augmentation(crop=2, flip=True)
        for step, (images, labels) in enumerate(training_batches(splits[0], seed, 0, 16, CPU)):
            train_step(learner, (augmentation(images, seed, step), labels), step)
        states.append(learner.model.state_dict())
    assert not same_state(*states)
