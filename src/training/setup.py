"""What trains: the parts of a training run, put together in one place.

`train` and `overfit-check` build theirs here, so that a bug in these parts is seen by the check.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from timm.scheduler.scheduler import Scheduler
from torch import nn
from torch.optim import Optimizer

from src.data.batches import Batch, to_input
from src.randomness import seed_step
from src.training.model import create_model
from src.training.optimizer import create_optimizer, create_scheduler


@dataclass
class Setup:
    """A net with all that trains it, on one device. `mean` and `std` per channel in 0..1."""

    model: nn.Module
    criterion: nn.Module
    optimizer: Optimizer
    scheduler: Scheduler
    device: torch.device
    mean: list[float]
    std: list[float]
    seed: int


def build_setup(
    params: Mapping[str, Any],
    meta: Mapping[str, Any],
    device: torch.device,
    steps: int,
    epochs: int,
    schedule: str,
    warmup: float,
    lr: float,
) -> Setup:
    """A fresh set-up for the packed data set that `meta` describes; `steps` per epoch."""
    model = create_model(
        params["model"],
        classes=len(meta["classes"]),
        channels=meta["channels"],
        size=meta["size"],
        weights=params["weights"],
        seed=params["seed"],
    ).to(device)
    optimizer = create_optimizer(
        model, params["optimizer"], lr, params["momentum"], params["weight_decay"]
    )
    return Setup(
        model=model,
        criterion=nn.CrossEntropyLoss(),
        optimizer=optimizer,
        scheduler=create_scheduler(optimizer, schedule, warmup, epochs, steps, lr),
        device=device,
        mean=meta["mean"],
        std=meta["std"],
        seed=params["seed"],
    )


def train_step(setup: Setup, batch: Batch, step: int) -> torch.Tensor:
    """One optimizer step on a batch (pictures uint8 B x H x W x C, labels int64 B).

    Returns the sums [loss x B, correct, B] (float32, on the device): nothing here waits for the
    device, and sums of several processes can be added.
    """
    pictures, labels = batch
    seed_step(setup.seed, step, setup.device)
    setup.model.train()
    logits = setup.model(to_input(pictures, setup.mean, setup.std))
    loss = setup.criterion(logits, labels)
    setup.optimizer.zero_grad(set_to_none=True)
    loss.backward()
    setup.optimizer.step()
    return batch_sums(loss.detach(), logits.detach(), labels)


def batch_sums(loss: torch.Tensor, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """[loss x B, correct, B] of a batch whose mean loss is `loss`."""
    correct = (logits.argmax(dim=1) == labels).sum()
    count = torch.full_like(loss, len(labels))
    return torch.stack([loss * count, correct.to(loss.dtype), count])
