"""What the checks share: fresh set-ups, samples and batches of the data, how much to do."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from src.checks.reading import as_labels, inputs_of, reported_loss, split_batch
from src.checks.temporary import seed_all
from src.checks.training_setup import Declared, TrainingSetup

SEED = 20240229  # any number: that it is always the same makes two reports equal


class SetupError(Exception):
    """A part of the set-up that is checked stopped with an error: `part` did, with `error`."""

    def __init__(self, part: str, error: Exception):
        super().__init__(f"{part}: {type(error).__name__}: {error}")
        self.part, self.error = part, error


@contextmanager
def running(part: str) -> Iterator[None]:
    """Errors within are those of a part of the set-up: SetupError."""
    try:
        yield
    except Exception as error:
        raise SetupError(part, error) from error


class OutOfTime(Exception):
    """The emergency stop: the budget is used up several times."""


@dataclass
class Sample:
    """Items of a data set: inputs float N x ..., labels int64 N (of soft targets the largest),
    the `indices` they were asked for by, and how many the data set has."""

    x: Tensor
    y: Tensor
    indices: list[int]
    total: int

    def __len__(self) -> int:
        return len(self.y)


def draw(data: Any, indices: Sequence[int], name: str) -> Sample:
    """The items at `indices`. SetupError where the data set, of this `name`, cannot give them."""
    inputs, labels = [], []
    with running(name):
        for index in indices:
            item = data[index]
            inputs.append(inputs_of(item))
            labels.append(as_labels(split_batch(item)[1], single=True))
        stacked = torch.stack(inputs)
    return Sample(stacked, torch.cat(labels), list(indices), len(data))


class Context:
    """The factory and facts about its set-ups. A check that changes one takes a `fresh()` one."""

    def __init__(self, factory: Callable[[], TrainingSetup], budget_seconds: float):
        self.factory, self.budget = factory, float(budget_seconds)
        # Of the processor, so that what runs beside it stops no check.
        self.deadline = time.process_time() + 4 * self.budget * torch.get_num_threads()
        self.declared = Declared()
        self.classes = 2
        self.soft = self.val_soft = False  # whether the loaders' targets are shares
        self.train_sample: Sample | None = None
        self.val_sample: Sample | None = None
        self.batches: list[tuple[Any, Any]] = []
        self.width = 0  # outputs of the net
        self.peak_lrs: list[float] = []
        self.step_seconds = 0.01  # estimated, of a training step on 16 items
        self.curves: dict[str, dict[str, list[float]]] = {}
        self.loss_reduction = "mean"
        self.scheduler_calls = 0.0  # per optimizer step, as seen in train_step
        self.log_probabilities = False  # whether the net gives those instead of logits
        self.clipped = 1.0  # share of the gradient's length that clipping keeps
        self.failed = False  # whether a check has failed already
        self.deterministic_train = False  # whether train_data gives the same each time

    @property
    def sample(self) -> Sample:
        """The training items, in checks that need "train_data"."""
        assert self.train_sample is not None
        return self.train_sample

    def samples(self) -> list[tuple[str, Sample]]:
        """(split, its items) of the splits that there are."""
        both = (("train", self.train_sample), ("val", self.val_sample))
        return [(name, sample) for name, sample in both if sample is not None]

    def batch(self, number: int) -> tuple[Any, Any]:
        """The first batches of an epoch, over and over."""
        return self.batches[number % len(self.batches)]

    def fresh(self, seed: int = SEED) -> TrainingSetup:
        """A new set-up, made with the random generators in a known state."""
        self.check_clock()
        seed_all(seed)
        with running("factory"):
            setup = self.factory()
        seed_all(seed + 1)
        return setup

    def check_clock(self) -> None:
        if time.process_time() > self.deadline:
            raise OutOfTime

    def step(self, setup: TrainingSetup, batch: Any) -> float:
        """One call of train_step; the loss it reports."""
        self.check_clock()
        assert setup.train_step is not None
        with running("train_step"):
            out = setup.train_step(setup, batch)
        return reported_loss(out)

    def evaluate(self, setup: TrainingSetup, loader: Iterable[Any]) -> dict[str, float]:
        self.check_clock()
        assert setup.evaluate is not None
        with running("evaluate"):
            out = setup.evaluate(setup, loader)
            return {key: float(value) for key, value in out.items()}

    def encode(self, labels: Tensor, soft: bool) -> Tensor:
        """Labels int64 B as they are, or (`soft`) as shares B x K."""
        return nn.functional.one_hot(labels, self.classes).float() if soft else labels

    def target(self, labels: Tensor, logits: Tensor) -> Tensor:
        """Labels as the loss function takes them, beside logits that a check chose."""
        if logits.shape[-1] == 1:  # binary: one logit, a target like it
            shape = np.shape(self.batches[0][1]) if self.batches else ()
            return labels.to(logits).reshape(len(labels), *shape[1:])
        return self.encode(labels, self.soft).to(logits.device)

    def steps(self, share: float, items: int = 16, low: int = 4, high: int = 40) -> int:
        """How many training steps on so many items fit into a share of the budget, by estimate."""
        cost = self.step_seconds * max(0.25, items / 16)
        return int(min(high, max(low, share * self.budget / cost)))
