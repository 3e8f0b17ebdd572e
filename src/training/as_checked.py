"""The training as `src.checks` takes it, made of the very functions that `train` runs.

Pictures go through augmentation, mixing and normalisation in the loader, so that what enters the
net can be looked at; the step then takes them as they are.
"""

import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from src.checks import TrainingSetup
from src.data.batches import steps_per_epoch, training_batches
from src.data.packed import PackedSplit
from src.images.augment import Augmentation
from src.images.mix import Mix
from src.model.nets.weights_file import NO_WEIGHTS
from src.reports.batch import batch_picture
from src.training.checkpoint import Checkpoint
from src.training.loop import Plan, Training
from src.training.setup import Setup, build_setup
from src.training.step import prepared, update
from src.training.validation import validate

# Compiling takes longer than the check, and plateau's metric does not matter in a few steps.
CHANGED = {"compile": "none", "best_by": "val/accuracy"}
DRAWS = 1_000_000  # steps of augmentation that no training reaches: those of single items


class Items:
    """A split, map-style: (picture as it enters the net, C x H x W; its label). With
    `augmentation`, each call draws anew."""

    def __init__(self, data: PackedSplit, setup: Setup, augmentation: Augmentation | None):
        self.data, self.setup, self.augmentation = data, setup, augmentation
        self.enter, self.draws = setup.enter, 0

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        pictures = torch.from_numpy(self.data.pictures([index]))
        if self.augmentation is not None:
            self.draws += 1
            pictures = self.augmentation(pictures, self.setup.seed, DRAWS + self.draws)
        return self.enter(pictures)[0], int(self.data.labels[index])


class Epochs:
    """Batches of one epoch after the other, prepared as the loop prepares them."""

    def __init__(self, training: Training):
        self.training, self.epoch, self.enter = training, 0, training.setup.enter

    def __len__(self) -> int:
        return self.training.steps

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        training, epoch = self.training, self.epoch
        setup, plan = training.setup, training.plan
        self.epoch += 1
        batches = training_batches(
            training.train, setup.seed, epoch, plan.step_size, setup.device,
            sampling=plan.sampling,
        )  # fmt: skip
        for number, batch in enumerate(batches, start=epoch * training.steps):
            pictures, targets = prepared(batch, setup, training.augmentation, training.mix, number)
            yield self.enter(pictures), targets


class Given:
    """Pictures that entered the net, as a packed split again: what evaluation reads."""

    def __init__(self, loader: Any, like: PackedSplit, setup: Setup):
        inputs, labels = zip(*loader, strict=True)
        shape = (1, -1, 1, 1)
        restored = torch.cat(inputs).cpu() * torch.tensor(setup.std).view(shape)
        restored = (restored + torch.tensor(setup.mean).view(shape)) * 255
        self.bytes = restored.round().clamp(0, 255).byte().permute(0, 2, 3, 1).numpy()
        hard = [label if label.ndim == 1 else label.argmax(1) for label in labels]
        self.labels = torch.cat(hard).cpu().numpy()
        self.meta = like.meta

    def __len__(self) -> int:
        return len(self.labels)

    def pictures(self, indices: Any) -> Any:
        return self.bytes[indices]


def checked_setup(
    params: Mapping[str, Any], train: PackedSplit, val: PackedSplit, device: torch.device
) -> TrainingSetup:
    """A fresh training on `train`, for the battery. A batch is that of one optimizer step: the step
    itself cuts it into micro-batches."""
    batch_size = params["batch_size"] * params["accumulate"]
    steps = steps_per_epoch(len(train), batch_size)
    setup = build_setup(params, train, device, steps, **CHANGED)
    classes = len(train.meta["classes"])
    plan = Plan(params["epochs"], batch_size, sampling=params["sampling"])
    training = Training(
        setup, train, val, plan,
        Augmentation.from_params(params), Mix.from_params(params, classes),
    )  # fmt: skip
    train_items = Items(train, setup, training.augmentation)
    val_items, epochs = Items(val, setup, None), Epochs(training)
    setup.enter = lambda pictures: pictures  # type: ignore[method-assign]  # they have entered
    own = params["weights"] == NO_WEIGHTS
    return TrainingSetup(
        model=setup.model,
        loss_fn=setup.criterion,
        optimizer=setup.optimizer,
        scheduler=setup.scheduler,
        train_data=train_items,
        val_data=val_items,
        train_loader=epochs,
        val_loader=torch.utils.data.DataLoader(val_items, batch_size=64),  # type: ignore[arg-type]
        train_step=_step(training),
        evaluate=_evaluate(setup, val),
        save=lambda _: _bytes_of(training),
        load=lambda _, saved: _load(training, saved),
        declared={
            "num_classes": classes,
            "mean": train.meta["mean"] if own else setup.mean,
            "std": train.meta["std"] if own else setup.std,
            "total_steps": params["epochs"] * steps,
            "label_smoothing": 0.0 if params["loss"] == "focal" else params["label_smoothing"],
            "focal_gamma": params["focal_gamma"] if params["loss"] == "focal" else 0.0,
            "mixup": max(params["mixup"], params["cutmix"]),
            "precision": params["precision"],
            "frozen": _fixed_by_the_net(setup.model),
        },
    )


def _fixed_by_the_net(model: torch.nn.Module) -> list[str]:
    """The parameters of the net's own that it keeps from learning, such as fixed positions. That
    the weights of a layer of torch rest is more often a mistake: the battery shall tell."""
    return [
        name
        for name, parameter in model.named_parameters()
        if not parameter.requires_grad
        and not type(model.get_submodule(name.rpartition(".")[0])).__module__.startswith("torch.")
    ]


def first_batch_picture(
    params: Mapping[str, Any], train: PackedSplit, val: PackedSplit, device: torch.device
) -> bytes:
    """PNG of the first batches of training and validation as they enter the net."""
    batch_size = params["batch_size"] * params["accumulate"]
    setup = build_setup(params, train, device, steps_per_epoch(len(train), batch_size), **CHANGED)
    mix = Mix.from_params(params, len(train.meta["classes"]))
    augmentation = Augmentation.from_params(params)
    return batch_picture(train, val, setup, augmentation, batch_size, mix, params["sampling"])


def _step(training: Training) -> Callable[..., dict[str, float]]:
    setup = training.setup

    def train_step(checked: TrainingSetup, batch: tuple[Tensor, Tensor]) -> dict[str, float]:
        setup.model = setup.forward = checked.model
        setup.criterion, setup.optimizer = checked.loss_fn, checked.optimizer  # type: ignore[assignment]
        inputs, targets = batch[0].to(setup.device), batch[1].to(setup.device)
        number = training.epoch * training.steps + training.step
        loss, _, count, _ = update(setup, (inputs, targets), number).tolist()
        training.step += 1
        return {"loss": loss / count}

    return train_step


def _evaluate(setup: Setup, val: PackedSplit) -> Callable[..., dict[str, float]]:
    def evaluate(checked: TrainingSetup, loader: Any) -> dict[str, float]:
        return validate(setup, Given(loader, val, setup))  # type: ignore[arg-type]

    return evaluate


def _bytes_of(training: Training) -> bytes:
    """What `train` writes as its checkpoint."""
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = Checkpoint(Path(folder), "check", 1, {})
        checkpoint.save(training.state_dict())
        return checkpoint.path.read_bytes()


def _load(training: Training, saved: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = Checkpoint(Path(folder), "check", 1, {})
        checkpoint.path.parent.mkdir(parents=True)
        checkpoint.path.write_bytes(saved)
        state = checkpoint.load()
        assert state is not None, "the checkpoint that was just written cannot be read"
        training.load_state_dict(state)
