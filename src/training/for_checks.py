"""The training as `src.checks` takes it, made of the very functions that `train` runs.

Samples are augmented, mixed and normalised in the loader, so that inputs can be looked at.
"""

import tempfile
from collections import ChainMap
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from src.base.kinds import kind_part
from src.checks import TrainingSetup
from src.data.packed import PackedSplit
from src.model.nets.weights_file import NO_WEIGHTS
from src.training.checkpoint import Checkpoint
from src.training.learner import Learner
from src.training.loop import Training
from src.training.loss import OWN
from src.training.step import Augment, prepare_batch, update
from src.training.validation import validate

# The check's own: compiling takes longer than it, and the kept or last epoch does not matter.
FIXED = {
    "compile": "none",
    "best_by": "val/accuracy",
    "patience": "none",
    "freeze_epochs": 0,
    "machine.cuda_graph": "off",
}
DRAWS = 1_000_000  # steps of augmentation that no training reaches: those of single items


class Items:
    """A split, map-style: (sample as it enters the net, without the batch's dimension; its label).
    With `augment`, each call draws anew."""

    def __init__(self, data: PackedSplit, learner: Learner, augment: Augment | None):
        self.data, self.learner, self.augment = data, learner, augment
        self.enter, self.draws = learner.enter, 0

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        rows = torch.from_numpy(self.data.rows([index]))
        if self.augment is not None:
            self.draws += 1
            rows = self.augment(rows, self.learner.seed, DRAWS + self.draws)
        return self.enter(rows)[0], int(self.data.labels[index])


class Epochs:
    """Batches of one epoch after the other, prepared as the loop prepares them."""

    def __init__(self, training: Training):
        self.training, self.epoch, self.enter = training, 0, training.learner.enter

    def __len__(self) -> int:
        return self.training.steps_per_epoch

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        training, epoch, learner = self.training, self.epoch, self.training.learner
        self.epoch += 1
        first = epoch * training.steps_per_epoch
        for step, batch in enumerate(training.batches(epoch), start=first):
            rows, targets = prepare_batch(batch, learner, training.augment, training.mix, step)
            yield self.enter(rows), targets


class Entered:
    """Samples that entered the net, as a packed split again: what evaluation reads."""

    def __init__(self, loader: Any, like: PackedSplit, learner: Learner):
        inputs, labels = zip(*loader, strict=True)
        leave = kind_part(learner.kind, "input").leave
        self._rows = leave(torch.cat(inputs), learner.mean, learner.std).numpy()
        hard = [label if label.ndim == 1 else label.argmax(1) for label in labels]
        self.labels = torch.cat(hard).cpu().numpy()
        self.meta = like.meta

    def __len__(self) -> int:
        return len(self.labels)

    def rows(self, indices: Any) -> Any:
        return self._rows[indices]


def training_setup(
    params: Mapping[str, Any], train: PackedSplit, val: PackedSplit, device: torch.device
) -> TrainingSetup:
    """A fresh training. A batch is an optimizer step's: the step cuts it into micro-batches."""
    training = fresh_training(params, train, val, device)
    learner = training.learner
    train_items = Items(train, learner, training.augment)
    val_items, epochs = Items(val, learner, None), Epochs(training)
    learner.enter = lambda rows: rows  # type: ignore[method-assign]  # they have entered
    is_own_loss, no_weights = params["loss"] == OWN, params["weights"] == NO_WEIGHTS
    # Of an own loss it is not known.
    smoothing = {} if is_own_loss else {"label_smoothing": params["label_smoothing"]}
    return TrainingSetup(
        model=learner.model,
        loss_fn=learner.criterion,
        optimizer=learner.optimizer,
        scheduler=learner.scheduler,
        train_data=train_items,
        val_data=val_items,
        train_loader=epochs,
        val_loader=torch.utils.data.DataLoader(val_items, batch_size=64),  # type: ignore[arg-type]
        train_step=_step(training),
        evaluate=lambda _, loader: validate(
            learner,
            Entered(loader, val, learner),  # type: ignore[arg-type]
        ),
        save=lambda _: _bytes_of(training),
        load=lambda _, saved: _load(training, saved),
        declared={
            "num_classes": len(train.meta["classes"]),
            "mean": train.meta["mean"] if no_weights else learner.mean,
            "std": train.meta["std"] if no_weights else learner.std,
            "total_steps": params["epochs"] * training.steps_per_epoch,
            **smoothing,
            "focal_gamma": params["focal_gamma"] if params["loss"] == "focal" else 0.0,
            "mixup": max(params["mixup"], params["cutmix"]),
            "precision": params["precision"],
            "frozen": _fixed_by_the_net(learner.model),
        },
    )


def fresh_training(
    params: Mapping[str, Any], train: PackedSplit, val: PackedSplit, device: torch.device
) -> Training:
    """The training that `params` describe, but for what the check fixes."""
    return Training(ChainMap(FIXED, params), train, val, device)  # type: ignore[arg-type]


def _fixed_by_the_net(model: torch.nn.Module) -> list[str]:
    """The parameters of the net's own that it keeps from learning, such as fixed positions. Weights
    of a layer of torch that do not learn are more often a mistake, which the battery reports."""
    return [
        name
        for name, parameter in model.named_parameters()
        if not parameter.requires_grad
        and not type(model.get_submodule(name.rpartition(".")[0])).__module__.startswith("torch.")
    ]


def _step(training: Training) -> Callable[..., dict[str, float]]:
    learner = training.learner

    def train_step(given: TrainingSetup, batch: tuple[Tensor, Tensor]) -> dict[str, float]:
        learner.model = learner.forward = given.model
        learner.criterion, learner.optimizer = given.loss_fn, given.optimizer  # type: ignore[assignment]
        inputs, targets = batch[0].to(learner.device), batch[1].to(learner.device)
        loss, _, _ = update(learner, (inputs, targets), training.global_step)
        training.step_in_epoch += 1
        return {"loss": loss.item()}

    return train_step


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
