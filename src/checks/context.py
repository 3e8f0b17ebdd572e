"""What the checks share: fresh set-ups, samples and batches of the data, how much to do."""

import random
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from src.checks.setup import Declared, TrainingSetup

SEED = 20240229  # any number: that it is always the same makes two reports equal


class SetupError(Exception):
    """A part of the set-up that is checked stopped with an error: `part` did, with `error`."""

    def __init__(self, part: str, error: Exception):
        super().__init__(f"{part}: {type(error).__name__}: {error}")
        self.part, self.error = part, error


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


class Context:
    """The factory and what is known of its set-ups. `fresh()` gives a new one; each check that
    trains or patches takes one of its own."""

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
        self.later: tuple[Any, Any] = ((), None)  # targets of a later stub call, and what it did
        self.inputs_change = False  # whether the step mixes inputs
        self.clipped = 1.0  # share of the gradient's length that clipping keeps
        self.failed = False  # whether a check has failed already
        self.deterministic_train = False  # whether train_data gives the same each time

    def fresh(self, seed: int = SEED) -> TrainingSetup:
        """A new set-up, made with the random generators in a known state."""
        self.check_clock()
        seed_all(seed)
        try:
            setup = self.factory()
        except Exception as error:
            raise SetupError("factory", error) from error
        seed_all(seed + 1)
        return setup

    def check_clock(self) -> None:
        if time.process_time() > self.deadline:
            raise OutOfTime

    def step(self, setup: TrainingSetup, batch: Any) -> float:
        """One call of train_step; the loss it reports."""
        self.check_clock()
        assert setup.train_step is not None
        try:
            out = setup.train_step(setup, batch)
        except Exception as error:
            raise SetupError("train_step", error) from error
        return reported_loss(out)

    def evaluate(self, setup: TrainingSetup, loader: Iterable[Any]) -> dict[str, float]:
        self.check_clock()
        assert setup.evaluate is not None
        try:
            out = setup.evaluate(setup, loader)
            return {key: float(value) for key, value in out.items()}
        except Exception as error:
            raise SetupError("evaluate", error) from error

    def encode(self, labels: Tensor, soft: bool | None = None) -> Tensor:
        """Labels int64 B in the form of the train loader's targets (or as `soft` says)."""
        if self.soft if soft is None else soft:
            return nn.functional.one_hot(labels, self.classes).float()
        return labels

    def target(self, labels: Tensor, logits: Tensor) -> Tensor:
        """Labels as the loss function takes them, beside logits of our choice."""
        if logits.shape[-1] == 1:  # binary: one logit, a target like it
            return labels.to(logits).reshape(self.binary_shape(len(labels)))
        return self.encode(labels).to(logits.device)

    def binary_shape(self, count: int) -> tuple[int, ...]:
        """The shape of the loader's targets for a net with one logit."""
        shape = np.shape(self.batches[0][1]) if self.batches else (count,)
        return (count, *shape[1:])

    def steps(self, share: float, items: int = 16, low: int = 4, high: int = 40) -> int:
        """How many training steps on so many items fit into a share of the budget, by estimate."""
        cost = self.step_seconds * max(0.25, items / 16)
        return int(min(high, max(low, share * self.budget / cost)))


def seed_all(seed: int) -> None:
    torch.manual_seed(seed)
    np.random.seed(seed % 2**32)
    random.seed(seed)


@contextmanager
def random_state_kept() -> Iterator[None]:
    """Leave the random generators as they were."""
    torch_state, numpy_state, python_state = (
        torch.get_rng_state(), np.random.get_state(), random.getstate(),
    )  # fmt: skip
    cuda_state = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else None
    try:
        yield
    finally:
        torch.set_rng_state(torch_state)
        np.random.set_state(numpy_state)
        random.setstate(python_state)
        if cuda_state is not None:
            torch.cuda.set_rng_state_all(cuda_state)


def reported_loss(out: Any) -> float:
    """The loss in what train_step returned; NaN where there is none."""
    loss = out.get("loss", float("nan")) if hasattr(out, "get") else out
    try:
        return float(loss.detach().float().mean()) if isinstance(loss, Tensor) else float(loss)
    except (TypeError, ValueError):
        return float("nan")


def split_batch(batch: Any) -> tuple[Any, Any]:
    """(inputs, targets) of what a loader yields or a data set holds."""
    if isinstance(batch, dict):
        values = list(batch.values())
        return values[0], values[1]
    return batch[0], batch[1]


def labels_of(targets: Any, single: bool = False) -> Tensor:
    """Targets as int64 labels on the CPU: shares and one-hot give their largest. `single`: the
    targets are those of one item."""
    found = torch.as_tensor(np.asarray(targets) if not isinstance(targets, Tensor) else targets)
    found = found.detach().cpu()
    if single:
        found = found[None]
    if found.ndim > 1 and found.shape[-1] > 1:
        return found.reshape(len(found), -1).argmax(dim=1)
    return found.reshape(len(found)).long() if found.ndim else found.reshape(1).long()


def device_of(model: nn.Module) -> torch.device:
    return next((p.device for p in model.parameters()), torch.device("cpu"))


def to_tensor(value: Any) -> Tensor:
    return value if isinstance(value, Tensor) else torch.as_tensor(np.asarray(value))


def draw(data: Any, indices: Sequence[int], name: str) -> Sample:
    """The items at `indices`. SetupError where the data set cannot give them."""
    inputs, labels = [], []
    try:
        for index in indices:
            x, y = split_batch(data[index])
            inputs.append(to_tensor(x).detach().cpu().float())
            labels.append(labels_of(y, single=True))
        stacked = torch.stack(inputs)
    except Exception as error:
        raise SetupError(name, error) from error
    return Sample(stacked, torch.cat(labels), list(indices), len(data))


@contextmanager
def buffers_kept(model: nn.Module) -> Iterator[None]:
    """Leave BatchNorm's statistics and the mode as they were."""
    modes = {module: module.training for module in model.modules()}
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, value in buffers:
                buffer.copy_(value)
        for module, mode in modes.items():
            module.training = mode


def logits_of(output: Any) -> Tensor:
    """The logits in what a net returned; a tuple's or dict's first tensor."""
    if isinstance(output, Tensor):
        return output
    if isinstance(output, dict):
        output = list(output.values())
    for part in output if isinstance(output, list | tuple) else ():
        if isinstance(part, Tensor):
            return part
    raise TypeError(f"the model returned a {type(output).__name__}, not a tensor of logits")


def predict(logits: Tensor) -> Tensor:
    """Classes by logits B x K; one logit decides between two classes."""
    return (logits.reshape(len(logits)) > 0).long() if logits.shape[-1] == 1 else logits.argmax(-1)


@torch.no_grad()
def forward(model: nn.Module, x: Tensor, train: bool = False) -> Tensor:
    """Logits without gradient; statistics and mode of the net stay as they were."""
    with buffers_kept(model):
        model.train(train)
        return logits_of(model(x.to(device_of(model)))).float()
