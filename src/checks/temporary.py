"""Changed for a while and put back: random states, running statistics, learning rates."""

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor, nn

from src.checks.reading import device_of, logits_of


def seed_all(seed: int) -> None:
    """Like `torch.manual_seed`, in a hundredth of its time without a GPU. NumPy, Python too."""
    if torch.cuda.is_available() or torch.backends.mps.is_available():
        torch.manual_seed(seed)
    else:
        torch.default_generator.manual_seed(seed)
    np.random.seed(seed % 2**32)
    random.seed(seed)


@contextmanager
def random_state_kept() -> Iterator[None]:
    """Leave the random generators as they were."""
    python_state, numpy_state = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(range(torch.cuda.device_count())):
            yield
    finally:
        np.random.set_state(numpy_state)
        random.setstate(python_state)


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


@torch.no_grad()
def forward(model: nn.Module, x: Tensor, train: bool = False) -> Tensor:
    """Logits without gradient; statistics and mode of the net stay as they were."""
    with buffers_kept(model):
        model.train(train)
        return logits_of(model(x.to(device_of(model)))).float()


@contextmanager
def at_rates(optimizer: Any, rates: Sequence[float]) -> Iterator[None]:
    """The optimizer's groups take steps at these learning rates, whatever the schedule says."""
    step = optimizer.step

    def step_at_rates(*arguments: Any, **more: Any) -> Any:
        kept = [group["lr"] for group in optimizer.param_groups]
        for group, rate in zip(optimizer.param_groups, rates, strict=False):
            group["lr"] = rate
        try:
            return step(*arguments, **more)
        finally:
            for group, rate in zip(optimizer.param_groups, kept, strict=True):
                group["lr"] = rate

    with patch.object(optimizer, "step", step_at_rates):
        yield
