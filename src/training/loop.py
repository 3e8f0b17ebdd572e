"""The training loop: batches, steps, validation, best weights, checkpoint. In this order."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

from src.data.augment import Augmentation
from src.data.batches import steps_per_epoch, training_batches
from src.data.packed import PackedSplit
from src.errors import GateError
from src.terminal import Progress
from src.training.checkpoint import Checkpoint
from src.training.model import logits_of
from src.training.setup import Setup, batch_sums, train_step

# Steps between two looks at the loss: each waits for the device. (choice)
LOG_EVERY = 50

Row = dict[str, float]


@dataclass
class Best:
    """The best epoch so far by validation, and its weights (on the CPU)."""

    epoch: int = 0
    score: tuple[float, float] = (-math.inf, -math.inf)
    weights: dict[str, torch.Tensor] = field(default_factory=dict)


class Training:
    """A training run that can stop after any step and go on with the same bits.

    State: `epoch` (finished ones), `step` (finished ones of this epoch), `sums` of this epoch's
    loss, hits and samples, the `history` (a row per epoch) and the `best` weights.
    """

    def __init__(
        self,
        setup: Setup,
        train: PackedSplit,
        val: PackedSplit,
        epochs: int,
        batch_size: int,
        augmentation: Augmentation,
        best_by: str,
        workers: int = 0,
    ):
        self.setup, self.train, self.val = setup, train, val
        self.epochs, self.batch_size = epochs, batch_size
        self.augmentation, self.best_by, self.workers = augmentation, best_by, workers
        self.steps = steps_per_epoch(len(train), batch_size)
        self.epoch = self.step = 0
        self.sums = torch.zeros(3, device=setup.device)
        self.history: list[Row] = []
        self.best = Best()

    def run(
        self,
        checkpoint: Checkpoint,
        progress: Progress,
        on_epoch: Callable[[Row], None],
        stopping: Callable[[], bool] = lambda: False,
    ) -> None:
        """Train from the present state to the end; `on_epoch` gets each epoch's row of history.

        As soon as `stopping()` is true the state is saved and the training ends where it is.
        """
        while self.epoch < self.epochs:
            for batch in self._batches():
                number = self.epoch * self.steps + self.step
                pictures, labels = batch
                pictures = self.augmentation(pictures, self.setup.seed, number)
                self.sums += train_step(self.setup, (pictures, labels), number)
                self.setup.scheduler.step_update(number + 1)
                self.step += 1
                if self.step % LOG_EVERY == 0:
                    progress.show(self.step, *self._loss_and_accuracy())
                progress.advance()
                stop = stopping()
                if stop or checkpoint.is_due():
                    checkpoint.save(self.state_dict())
                if stop:
                    print(
                        f"train: stopped in epoch {self.epoch + 1} after step {self.step} of "
                        f"{self.steps}; `dvc repro` goes on from there"
                    )
                    return
            row = self._finish_epoch()
            progress.epoch_done(row)
            on_epoch(row)
        if stopping():  # asked during the last validation
            checkpoint.save(self.state_dict())

    def _batches(self) -> Any:
        return training_batches(
            self.train,
            self.setup.seed,
            self.epoch,
            self.batch_size,
            self.setup.device,
            first_step=self.step,
            workers=self.workers,
        )

    def _finish_epoch(self) -> Row:
        """Validate, keep the weights if they are the best, and start the next epoch's count."""
        train_loss, train_accuracy = self._loss_and_accuracy()
        val_loss, val_accuracy = validate(self.setup, self.val, self.workers)
        self._require_finite(val_loss, "validation")
        self.epoch, self.step = self.epoch + 1, 0
        self.sums = torch.zeros_like(self.sums)
        row = {
            "epoch": self.epoch,
            "lr": self.setup.optimizer.param_groups[0]["lr"],
            "train_loss": train_loss,
            "train_accuracy": train_accuracy,
            "val_loss": val_loss,
            "val_accuracy": val_accuracy,
        }
        self.history.append(row)
        # Accuracy on a small validation set has many ties: the lower loss decides them.
        score = (val_accuracy, -val_loss) if self.best_by == "val/accuracy" else (-val_loss, 0.0)
        if score > self.best.score:
            weights = self.setup.model.state_dict()
            self.best = Best(
                self.epoch, score, {key: value.cpu().clone() for key, value in weights.items()}
            )
        return row

    def _loss_and_accuracy(self) -> tuple[float, float]:
        """Means over this epoch so far; GateError when the loss is not a number any more."""
        loss, correct, count = self.sums.tolist()
        self._require_finite(loss, "training")
        return loss / count, correct / count

    def _require_finite(self, loss: float, kind: str) -> None:
        if not math.isfinite(loss):
            lr = self.setup.optimizer.param_groups[0]["lr"]
            raise GateError(
                f"train: the {kind} loss is NaN or infinite in epoch {self.epoch + 1}, by step "
                f"{self.step}: lower lr (now {lr:g}) or look at the data"
            )

    def state_dict(self) -> dict[str, Any]:
        """Everything that changes while training: model, optimizer, schedule, counters, best."""
        return {
            "model": self.setup.model.state_dict(),
            "optimizer": self.setup.optimizer.state_dict(),
            "scheduler": self.setup.scheduler.state_dict(),
            "epoch": self.epoch,
            "step": self.step,
            "sums": self.sums,
            "history": self.history,
            "best": {
                "epoch": self.best.epoch,
                "score": list(self.best.score),
                "weights": self.best.weights,
            },
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go back to where `state_dict` was taken."""
        self.setup.model.load_state_dict(state["model"])
        self.setup.optimizer.load_state_dict(state["optimizer"])
        self.setup.scheduler.load_state_dict(state["scheduler"])
        self.epoch, self.step = state["epoch"], state["step"]
        self.sums = state["sums"].to(self.setup.device)
        self.history = state["history"]
        best = state["best"]
        self.best = Best(best["epoch"], tuple(best["score"]), best["weights"])


def validate(setup: Setup, data: PackedSplit, workers: int = 0) -> tuple[float, float]:
    """(mean loss, accuracy) of the net in evaluation mode on all of `data`."""
    sums = torch.zeros(3, device=setup.device)
    for logits, labels in logits_of(
        setup.model, data, setup.device, setup.mean, setup.std, workers
    ):
        sums += batch_sums(setup.criterion(logits, labels), logits, labels)
    loss, correct, count = sums.tolist()
    return loss / count, correct / count
