"""The training loop: batches, steps (a checkpoint may follow any), validation, best weights,
schedule. A batch is what one optimizer step takes."""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from src.base.kinds import kind_part
from src.data.batches import Batch, leftover_remark, steps_per_epoch, training_batches
from src.data.packed import PackedSplit
from src.data.readers import MAPPED, Reading, workers_kept
from src.plumbing.errors import GateError
from src.plumbing.terminal import Progress
from src.training import own_metrics
from src.training.augment import augmentation
from src.training.checkpoint import Checkpoint
from src.training.graph import step_graph
from src.training.learner import average_remark, build_learner
from src.training.step import Mix, prepare_batch, update
from src.training.validation import validate

# Steps between two looks at the loss: each waits for the device. (choice)
LOG_EVERY = 50

Row = dict[str, float]


@dataclass(frozen=True)
class Plan:
    """How long to train, on which order of samples, and which epoch's weights to keep."""

    epochs: int
    step_size: int  # samples per optimizer step
    best_by: str
    patience: int | None
    freeze_epochs: int
    sampling: str


@dataclass
class Best:
    """The best epoch so far by validation, and its weights on the CPU: with `ema` the average's."""

    epoch: int = 0
    score: list[float] = field(default_factory=lambda: [-math.inf, -math.inf])
    weights: dict[str, torch.Tensor] = field(default_factory=dict)


class Training:
    """A training run that can stop after any step and go on with the same bits.

    State: `epoch` (how many are finished), `step_in_epoch` (how many steps of this one are), `sums`
    of the losses, hits and gradient norms of this epoch's steps, the `lr` of the last step, the
    `history` (a row per epoch), the `best` weights. No random numbers: they are a function of seed
    and `global_step`.
    """

    def __init__(
        self,
        params: Mapping[str, Any],
        train: PackedSplit,
        val: PackedSplit,
        device: torch.device,
        reading: Reading = MAPPED,
    ):
        """The fresh training that `params` describe: for `train`, for the check before it, the
        range test, the figures of a batch."""
        self.train, self.val, self.reading = train, val, reading
        self.plan = Plan(
            epochs=params["epochs"],
            step_size=params["batch_size"] * params["accumulate"],
            best_by=params["best_by"],
            patience=None if params["patience"] == "none" else params["patience"],
            freeze_epochs=params["freeze_epochs"],
            sampling=params["sampling"],
        )
        self.own_metric = own_metrics.chosen_by(params["best_by"])
        self.steps_per_epoch = steps_per_epoch(len(train), self.plan.step_size)
        self.learner = build_learner(params, train, device, self.steps_per_epoch)
        self.learner.graph = step_graph(self.learner, params)
        kind = self.learner.kind
        self.augment = augmentation(params, kind)
        self.mix: Mix = kind_part(kind, "augment").mix(params, len(train.meta["classes"]))
        self.epoch = self.step_in_epoch = 0
        self.sums = torch.zeros(3, device=device)
        self.lr = 0.0
        self.history: list[Row] = []
        self.best = Best()

    @property
    def global_step(self) -> int:
        """Finished steps of all epochs: the number of the next one."""
        return self.epoch * self.steps_per_epoch + self.step_in_epoch

    def remarks(self) -> list[str]:
        """What a person should know before it begins, a line each."""
        plan, ema = self.plan, self.learner.ema
        found = [
            average_remark(ema.decay if ema else None, plan.epochs * self.steps_per_epoch),
            leftover_remark(len(self.train), plan.step_size, plan.sampling),
        ]
        return [line for line in found if line]

    @workers_kept()
    def run(
        self,
        checkpoint: Checkpoint,
        progress: Progress,
        on_epoch: Callable[[Row], None],
        stopping: Callable[[], bool] = lambda: False,
    ) -> None:
        """Train from the present state to the end, and save that; `on_epoch` gets each epoch's row
        of history.

        As soon as `stopping()` is true the state is saved and this returns, `finished` or not. The
        caller must not use it then: the end of `process.deferred` raises the signal.
        """
        while not self.finished:
            # Later epochs free it again; the first step then goes back to training mode.
            self.learner.freeze_backbone(self.epoch < self.plan.freeze_epochs)
            for batch in self.batches(self.epoch, self.step_in_epoch):
                step = self.global_step
                batch = prepare_batch(batch, self.learner, self.augment, self.mix, step)
                # The classifier's rate is the largest: `layer_decay` lowers those of the layers
                # before it.
                self.lr = max(group["lr"] for group in self.learner.optimizer.param_groups)
                torch._foreach_add_(self.sums.unbind(), update(self.learner, batch, step))
                self.step_in_epoch += 1
                if self.step_in_epoch % LOG_EVERY == 0:
                    loss, accuracy = self._finite_means()
                    progress.show(self.step_in_epoch, loss, accuracy)
                progress.advance()
                stop = stopping()
                if stop or checkpoint.is_due():
                    checkpoint.save(self.state_dict())
                if stop:
                    progress.say(
                        f"train: stopped after epoch {self.epoch}, step {self.step_in_epoch} of "
                        f"{self.steps_per_epoch}; the same dvc command goes on from there"
                    )
                    return
            row = self._finish_epoch()
            progress.epoch_done(row)
            on_epoch(row)
        if self.epoch < self.plan.epochs:
            progress.say(
                f"train: patience ended it after epoch {self.epoch}: {self.plan.best_by} was best "
                f"in epoch {self.best.epoch}"
            )
        checkpoint.save(self.state_dict())  # a kill while outputs are written then costs nothing

    @property
    def finished(self) -> bool:
        """Whether all epochs are done, or `patience` ran out; frozen epochs do not count for it."""
        patience = self.plan.patience
        waited = self.epoch - max(self.best.epoch, self.plan.freeze_epochs)
        return self.epoch >= self.plan.epochs or (patience is not None and waited >= patience)

    def batches(self, epoch: int, first_step: int = 0) -> Iterator[Batch]:
        """The batches of an epoch from a step on, as they are read."""
        return training_batches(
            self.train,
            self.learner.seed,
            epoch,
            self.plan.step_size,
            self.learner.device,
            first_step=first_step,
            reading=self.reading,
            sampling=self.plan.sampling,
        )

    def _finish_epoch(self) -> Row:
        """Validate, keep the weights if they are the best, start the next epoch's count, and tell
        the schedule."""
        train_loss, train_accuracy = self._finite_means()
        grad_norm = self.sums[2].item() / max(1, self.step_in_epoch)
        val = validate(self.learner, self.val, self.reading, self.own_metric)
        self._require_finite(val["loss"], "validation")
        self.epoch, self.step_in_epoch = self.epoch + 1, 0
        self.sums = torch.zeros_like(self.sums)
        row = {
            "epoch": self.epoch,
            "lr": self.lr,
            "grad_norm": grad_norm,
            "train_loss": train_loss,
            "train_accuracy": train_accuracy,
            **{f"val_{name}": value for name, value in val.items()},
        }
        self.history.append(row)
        chosen = self.plan.best_by.removeprefix("val/")
        # Accuracy on a small validation set has many ties: the lower loss decides them.
        score = [-val["loss"], 0.0] if chosen == "loss" else [val[chosen], -val["loss"]]
        if score > self.best.score:
            state = self.learner.kept_model.state_dict()
            weights = {key: value.cpu().clone() for key, value in state.items()}
            self.best = Best(self.epoch, score, weights)
        self.learner.scheduler.step(self.epoch, val[chosen])
        return row

    def _finite_means(self) -> tuple[float, float]:
        """Loss and accuracy over this epoch so far; GateError when the loss is no number."""
        loss, correct, _ = self.sums.tolist()
        self._require_finite(loss, "training")
        steps = self.step_in_epoch
        samples = steps * min(self.plan.step_size, len(self.train))
        return loss / steps, correct / samples

    def _require_finite(self, loss: float, kind: str) -> None:
        if not math.isfinite(loss):
            raise GateError(
                f"train: the {kind} loss is NaN or infinite in epoch {self.epoch + 1}, by step "
                f"{self.step_in_epoch}: lower lr (now {self.lr:g}) or look at the data"
            )

    def state_dict(self) -> dict[str, Any]:
        """Everything that changes while training: model, its average, optimizer, schedule, scaler,
        counters, best."""
        learner = self.learner
        return {
            "model": learner.model.state_dict(),
            "ema": learner.ema.module.state_dict() if learner.ema is not None else {},
            "optimizer": learner.optimizer.state_dict(),
            "scheduler": learner.scheduler.state_dict(),
            "scaler": learner.scaler.state_dict(),
            "epoch": self.epoch,
            "step": self.step_in_epoch,
            "sums": self.sums,
            "lr": self.lr,
            "history": self.history,
            "best": vars(self.best),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go back to where `state_dict` was taken."""
        learner = self.learner
        for part in ("model", "optimizer", "scheduler", "scaler"):
            getattr(learner, part).load_state_dict(state[part])
        if learner.ema is not None:
            learner.ema.module.load_state_dict(state["ema"])
        self.epoch, self.step_in_epoch = state["epoch"], state["step"]
        self.sums, self.lr = state["sums"].to(learner.device), state["lr"]
        self.history = state["history"]
        self.best = Best(**state["best"])
