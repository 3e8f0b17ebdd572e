"""The step, the loop, best weights and going on from a checkpoint."""

import csv
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from src.base.imports import ROOT
from src.data.batches import steps_per_epoch, to_input, training_batches
from src.data.packed import PackedSplit
from src.images.augment import Augmentation
from src.images.mix import Mix
from src.plumbing import params
from src.plumbing.errors import GateError
from src.plumbing.terminal import Progress
from src.training.checkpoint import Checkpoint
from src.training.loop import Plan, Training
from src.training.optimizer import create_optimizer, create_scheduler
from src.training.setup import Setup, build_setup
from src.training.step import train_step
from src.training.validation import validate

CPU = torch.device("cpu")
# The committed params, but for a small net and three epochs.
PARAMS: dict[str, Any] = {
    **params.load(ROOT), "model": "test_resnet", "epochs": 3, "batch_size": 16,
}  # fmt: skip


Splits = tuple[PackedSplit, PackedSplit]


@pytest.fixture(scope="module")
def splits(finished: tuple[Path, object]) -> tuple[PackedSplit, PackedSplit]:
    folder = finished[0] / "data/prepared"
    return PackedSplit(folder, "train"), PackedSplit(folder, "val")


def make_setup(data: PackedSplit, **options: Any) -> Setup:
    return build_setup({**PARAMS, **options}, data, CPU, steps_per_epoch(len(data), 16))


def make_training(
    splits: tuple[PackedSplit, PackedSplit], device: torch.device = CPU, **options: Any
) -> Training:
    given = {**PARAMS, "augment_flip": True, **options}
    mix = Mix.from_params(given, len(splits[0].meta["classes"]))
    plan = Plan.from_params(given)
    setup = build_setup(given, splits[0], device, steps_per_epoch(len(splits[0]), plan.step_size))
    return Training(setup, *splits, plan, Augmentation.from_params(given), mix)


class Killed(Exception):
    """Stands for a kill between two steps."""


class Interrupting(Progress):
    """Raises after a number of steps, counted from the start of this process."""

    def __init__(self, after: int | None):
        super().__init__(3, 6, 16, 0, "off")
        self.after = after

    def advance(self) -> None:
        super().advance()
        if self.done == self.after:
            raise Killed


def run(training: Training, checkpoint: Checkpoint, after: int | None = None) -> None:
    training.run(checkpoint, Interrupting(after), lambda row: None)


def checkpoint_in(
    folder: Path, minutes: float = 1e9, kind: str = "a", anywhere: bool = False
) -> Checkpoint:
    return Checkpoint(folder, "f" * 64, minutes, {"kind": kind}, anywhere)


def has_done(training: Training, steps: int) -> bool:
    return training.epoch * 6 + training.step >= steps


def same_state(first: Any, second: Any) -> bool:
    if isinstance(first, torch.Tensor):
        return torch.equal(first, second)
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(same_state(first[k], second[k]) for k in first)
    if isinstance(first, list | tuple):
        return len(first) == len(second) and all(map(same_state, first, second))
    return bool(first == second)


def test_the_step_is_the_textbook_step(splits: tuple[PackedSplit, PackedSplit]) -> None:
    """Same weights after three steps as plain PyTorch: zero_grad, train mode, mean loss."""
    ours, plain = make_setup(splits[0]), make_setup(splits[0])
    optimizer = create_optimizer(plain.model, PARAMS, 1e-3)
    plain.model.train()
    for step, batch in enumerate(training_batches(splits[0], 0, 0, 16, CPU)):
        ours.model.eval()  # the step itself must switch to training mode
        loss, correct, count, _ = train_step(ours, batch, step).tolist()
        entering = to_input(batch[0], plain.mean, plain.std)
        logits = plain.model(entering)
        expected = nn.functional.cross_entropy(logits, batch[1])
        optimizer.zero_grad()
        expected.backward()
        optimizer.step()
        assert loss / count == pytest.approx(expected.item(), rel=1e-6)
        assert (correct, count) == ((logits.argmax(1) == batch[1]).sum().item(), 16)
    assert same_state(ours.model.state_dict(), plain.model.state_dict())


def test_no_weight_decay_on_norms_and_biases(splits: tuple[PackedSplit, PackedSplit]) -> None:
    setup = make_setup(splits[0])
    decay = {id(p): g["weight_decay"] for g in setup.optimizer.param_groups for p in g["params"]}
    for name, parameter in setup.model.named_parameters():
        assert decay[id(parameter)] == (0.05 if parameter.ndim > 1 else 0.0), name


def test_sgd_has_nesterov_momentum(splits: tuple[PackedSplit, PackedSplit]) -> None:
    setup = make_setup(splits[0], optimizer="sgd", momentum=0.8)
    assert isinstance(setup.optimizer, torch.optim.SGD)
    assert all(g["nesterov"] and g["momentum"] == 0.8 for g in setup.optimizer.param_groups)


@pytest.mark.parametrize(
    ("schedule", "warmup", "expected"),
    [
        ("constant", 0, [1.0] * 9),
        ("constant", 1, [1 / 3, 5 / 9, 7 / 9] + [1.0] * 6),
        ("step", 0, [1.0] * 3 + [0.1] * 3 + [0.01] * 3),
        ("cosine", 0, [1.0, 0.9698, 0.8830, 0.75, 0.5868, 0.4132, 0.25, 0.1170, 0.0302, 0.0]),
    ],
)
def test_schedules(schedule: str, warmup: float, expected: list[float]) -> None:
    """Learning rate before each step, three epochs of three steps, in parts of lr."""
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1)
    given = {**PARAMS, "schedule": schedule, "warmup": warmup, "decay_epochs": 1}
    scheduler = create_scheduler(optimizer, given, 0.1, steps=3)
    rates = []
    for step in range(len(expected)):
        rates.append(optimizer.param_groups[0]["lr"] / 0.1)
        scheduler.step_update(step + 1)
    assert rates == pytest.approx(expected, abs=1e-4)


def test_a_killed_run_ends_in_the_same_bits(
    splits: tuple[PackedSplit, PackedSplit], tmp_path: Path
) -> None:
    """Killed after any step, in mid-epoch too, with a schedule and warm-up."""
    options: dict[str, Any] = {"schedule": "cosine", "warmup": 1}
    whole = make_training(splits, **options)
    assert whole.steps == 6
    run(whole, checkpoint_in(tmp_path / "whole"))
    for after in (1, 5, 6, 7, 12, 17):
        first = make_training(splits, **options)
        with pytest.raises(Killed):
            run(first, checkpoint_in(tmp_path / f"{after}", minutes=1e-9), after)
        saved = checkpoint_in(tmp_path / f"{after}").load()
        assert (saved is None) == (after == 1)  # killed before the first checkpoint: starts over
        second = make_training(splits, **options)
        if saved:
            second.load_state_dict(saved)
            assert second.epoch * 6 + second.step == after - 1
        run(second, checkpoint_in(tmp_path / "second"))
        assert same_state(whole.state_dict(), second.state_dict()), after


def test_a_finished_training_is_kept(
    splits: tuple[PackedSplit, PackedSplit], tmp_path: Path
) -> None:
    """What comes after it, writing and logging, may fail."""
    whole = make_training(splits)
    run(whole, checkpoint_in(tmp_path))
    saved = checkpoint_in(tmp_path).load()
    assert saved is not None
    again = make_training(splits)
    again.load_state_dict(saved)
    assert again.finished
    assert same_state(whole.state_dict(), again.state_dict())


def test_history_has_the_rate_of_the_epoch_itself(
    splits: tuple[PackedSplit, PackedSplit], tmp_path: Path
) -> None:
    training = make_training(splits, schedule="step", decay_epochs=2, decay_rate=0.1, lr=0.01)
    run(training, checkpoint_in(tmp_path))
    assert [row["lr"] for row in training.history] == pytest.approx([0.01, 0.01, 0.001])


@pytest.mark.parametrize(
    "options",
    [
        {"ema": 0.9, "schedule": "plateau", "decay_epochs": 1, "warmup": 0.5, "clip_grad": 0.5},
        {"freeze_epochs": 2, "optimizer": "sgd", "schedule": "step", "decay_epochs": 1},
        pytest.param(  # 16-bit floats take six times as long on a CPU
            {"precision": "fp16", "mixup": 0.2, "cutmix": 1.0, "sampling": "balanced"},
            marks=pytest.mark.slow,
        ),
        {"batch_size": 8, "accumulate": 2, "loss": "bce", "patience": 2, "augment_scale": 0.5},
    ],
)  # fmt: skip
def test_every_part_of_the_state_survives_a_kill(
    splits: tuple[PackedSplit, PackedSplit], tmp_path: Path, options: dict[str, Any]
) -> None:
    whole = make_training(splits, **options)
    run(whole, checkpoint_in(tmp_path / "whole"))
    for after in (3, 6, 8, 13):
        first = make_training(splits, **options)
        with pytest.raises(Killed):
            run(first, checkpoint_in(tmp_path / f"{after}", minutes=1e-9), after)
        saved = checkpoint_in(tmp_path / f"{after}").load()
        assert saved is not None
        second = make_training(splits, **options)
        second.load_state_dict(saved)
        run(second, checkpoint_in(tmp_path / "second"))
        assert same_state(whole.state_dict(), second.state_dict()), after


def test_the_schedule_is_part_of_the_checkpoint(
    splits: tuple[PackedSplit, PackedSplit], tmp_path: Path
) -> None:
    """The test above would notice a resume that forgets a part of the state."""
    first = make_training(splits, schedule="cosine")
    with pytest.raises(Killed):
        run(first, checkpoint_in(tmp_path, minutes=1e-9), 8)
    saved = checkpoint_in(tmp_path).load()
    assert saved is not None
    whole = make_training(splits, schedule="cosine")
    run(whole, checkpoint_in(tmp_path / "whole"))
    for part in ("model", "optimizer", "sums", "best", "history"):
        broken = make_training(splits, schedule="cosine")
        broken.load_state_dict({**saved, part: broken.state_dict()[part]})
        run(broken, checkpoint_in(tmp_path / part))
        assert not same_state(whole.state_dict(), broken.state_dict()), part


def test_a_checkpoint_of_another_machine_counts_only_when_asked(
    splits: tuple[PackedSplit, PackedSplit], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    training = make_training(splits)
    with pytest.raises(Killed):
        run(training, checkpoint_in(tmp_path), 2)
    state = training.state_dict()
    checkpoint_in(tmp_path).save(state)
    assert same_state(checkpoint_in(tmp_path).load(), state)
    assert capsys.readouterr().out == ""
    assert checkpoint_in(tmp_path, kind="b").load() is None
    assert "another machine (kind a); to go on from it set machine.resume=any" in (
        capsys.readouterr().out
    )
    assert same_state(checkpoint_in(tmp_path, kind="b", anywhere=True).load(), state)
    assert "another machine (kind a): the bits will differ" in capsys.readouterr().out
    both = checkpoint_in(tmp_path, kind="b", anywhere=True)
    both.load()
    assert both.kinds == ["a", "b"]  # told with the result, which is of neither alone
    # One that starts over leaves the other's where it is, and then goes before it.
    other = make_training(splits)
    checkpoint_in(tmp_path, kind="b").save(other.state_dict())
    assert same_state(checkpoint_in(tmp_path).load(), state)
    assert not same_state(checkpoint_in(tmp_path, kind="b", anywhere=True).load(), state)
    checkpoint_in(tmp_path).remove()
    assert checkpoint_in(tmp_path, kind="b", anywhere=True).load() is None


@pytest.mark.parametrize("damage", ["cut", "empty", "text", "keys"])
def test_a_damaged_checkpoint_is_said_and_not_used(
    splits: tuple[PackedSplit, PackedSplit],
    tmp_path: Path,
    damage: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    checkpoint = checkpoint_in(tmp_path)
    checkpoint.save(make_training(splits).state_dict())
    content = checkpoint.path.read_bytes()
    if damage == "keys":
        torch.save({"kind": checkpoint.kind}, checkpoint.path)
    else:
        spoilt = {"cut": content[: len(content) // 2], "empty": b"", "text": b"no checkpoint"}
        checkpoint.path.write_bytes(spoilt[damage])
    assert checkpoint.load() is None
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("train: starts over, the checkpoint cannot be read")


def test_a_run_that_is_asked_to_stop_goes_on_from_that_step(
    splits: tuple[PackedSplit, PackedSplit], tmp_path: Path
) -> None:
    whole = make_training(splits)
    run(whole, checkpoint_in(tmp_path / "whole"))
    for after in (1, 6, 7, 18):
        first = make_training(splits)
        arrived = partial(has_done, first, after)
        checkpoint = checkpoint_in(tmp_path / f"{after}")
        first.run(checkpoint, Interrupting(None), lambda row: None, stopping=arrived)
        saved = checkpoint_in(tmp_path / f"{after}").load()
        assert saved is not None
        assert saved["epoch"] * 6 + saved["step"] == after
        second = make_training(splits)
        second.load_state_dict(saved)
        run(second, checkpoint_in(tmp_path / "second"))
        assert same_state(whole.state_dict(), second.state_dict()), after


@pytest.mark.parametrize("best_by", ["val/accuracy", "val/loss"])
def test_the_kept_weights_are_those_of_the_best_epoch(
    splits: tuple[PackedSplit, PackedSplit], tmp_path: Path, best_by: str
) -> None:
    training = make_training(splits, best_by=best_by, lr=2e-2)
    run(training, checkpoint_in(tmp_path))
    rows = training.history
    if best_by == "val/loss":
        best = min(rows, key=lambda row: row["val_loss"])
    else:
        best = max(rows, key=lambda row: (row["val_accuracy"], -row["val_loss"]))
    assert training.best.epoch == best["epoch"]
    training.setup.model.load_state_dict(training.best.weights)
    found = validate(training.setup, splits[1])
    assert found == {key: best[f"val_{key}"] for key in ("loss", "accuracy", "macro_f1")}


def test_a_loss_that_is_not_a_number_stops_in_one_line(
    splits: tuple[PackedSplit, PackedSplit], tmp_path: Path
) -> None:
    training = make_training(splits, lr=1e30, optimizer="sgd")
    with pytest.raises(GateError, match=r"loss is NaN or infinite in epoch 1.*lower lr"):
        run(training, checkpoint_in(tmp_path))


@pytest.mark.parametrize("source", ["weights", "order", "augment", "dropout"])
def test_the_seed_moves_every_random_part(
    splits: tuple[PackedSplit, PackedSplit], source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two seeds that share all but one source of randomness still part."""
    from src.base import randomness

    original: Callable[..., int] = randomness.derive
    states = []
    for seed in (0, 1):
        monkeypatch.setattr(
            randomness, "derive",
            lambda _, purpose, step=0, seed=seed: original(
                seed if purpose == source else 0, purpose, step
            ),
        )  # fmt: skip
        setup = make_setup(splits[0])
        setup.model = nn.Sequential(setup.model, nn.Dropout(0.3))
        setup.forward = setup.model
        setup.optimizer = create_optimizer(setup.model, PARAMS, 1e-3)
        augmentation = Augmentation(crop=2, flip=True)
        for step, (pictures, labels) in enumerate(training_batches(splits[0], seed, 0, 16, CPU)):
            train_step(setup, (augmentation(pictures, seed, step), labels), step)
        states.append(setup.model.state_dict())
    assert not same_state(*states)


def test_history_has_no_column_of_time(finished: tuple[Path, object]) -> None:
    with open(finished[0] / "results/train/history.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    names = ["epoch", "lr", "grad_norm", "train_loss", "train_accuracy"]
    names += ["val_loss", "val_accuracy", "val_macro_f1"]
    assert list(rows[0]) == names
    assert [row["epoch"] for row in rows] == ["1", "2", "3"]
