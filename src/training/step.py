"""One optimizer step."""

from functools import reduce

import torch
from torch import nn

from src.base.randomness import seed_step
from src.data.batches import Batch
from src.images.augment import Augmentation
from src.images.mix import Mix
from src.training.setup import HALF, Setup


def train_step(setup: Setup, batch: Batch, step: int) -> torch.Tensor:
    """One optimizer step on a batch (pictures B x H x W x C in 0..255, targets int64 B or float
    B x K), forward and backward in parts of at most `setup.micro_batch` (or three, if that is two).

    Returns [loss x B, correct, B, norm of the gradient] (float32, on the device): nothing here
    waits for the device, and the first three can be summed over processes.
    """
    pictures, targets = batch
    seed_step(setup.seed, step, setup.device)
    if not setup.model.training:
        setup.train_mode()
    setup.optimizer.zero_grad(set_to_none=True)
    found: list[torch.Tensor] = []
    # BatchNorm finds no variance in one picture: of parts of two, one takes an odd picture along.
    count = min(-(-len(pictures) // setup.micro_batch), max(1, len(pictures) // 2))
    parts = zip(pictures.tensor_split(count), targets.tensor_split(count), strict=True)
    for part, wanted in parts:
        with setup.autocast():
            logits = setup.forward(setup.enter(part))
        if setup.precision in HALF:
            logits = logits.float()
        loss = setup.criterion(logits, wanted)
        # A part counts by its size, so that the gradients add up to that of the batch. All of it is
        # not multiplied: to start an operation on a GPU costs the host 10 to 30 microseconds.
        share = loss if count == 1 else loss * (len(part) / len(pictures))
        setup.scaler.scale(share).backward()
        found.append(batch_sums(loss.detach(), logits.detach(), wanted))
    sums = reduce(torch.add, found)
    norm = _norm_and_clip(setup)
    setup.scaler.step(setup.optimizer)
    setup.scaler.update()
    if setup.ema is not None:
        setup.ema.update(setup.model, step=step + 1)
    return torch.cat([sums, norm.reshape(1)])


def _norm_and_clip(setup: Setup) -> torch.Tensor:
    """The norm of all gradients that the optimizer takes, together; they are made smaller if
    `clip_grad` says so."""
    setup.scaler.unscale_(setup.optimizer)
    parameters = [p for p in setup.learning() if p.grad is not None]
    norm = nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
    if setup.precision == "fp16":  # the scaler skips a step whose gradients overflow
        norm = norm.nan_to_num(nan=0.0, posinf=0.0)
    if setup.clip_grad is not None:
        nn.utils.clip_grads_with_norm_(parameters, setup.clip_grad, norm)
    return norm


def batch_sums(loss: torch.Tensor, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """[loss x B, correct, B] of a batch whose mean loss is `loss`; a mixed picture counts as its
    larger part."""
    labels = targets if targets.ndim == 1 else targets.argmax(dim=1)
    correct = (logits.argmax(dim=1) == labels).sum(dtype=loss.dtype)
    return torch.stack([loss * len(labels), correct, torch.full_like(loss, len(labels))])


def prepared(batch: Batch, setup: Setup, augmentation: Augmentation, mix: Mix, step: int) -> Batch:
    """A batch (pictures uint8 B x H x W x C, labels int64 B), augmented and mixed."""
    pictures, labels = batch
    return mix(augmentation(pictures, setup.seed, step), labels, setup.seed, step)


def update(setup: Setup, batch: Batch, step: int) -> torch.Tensor:
    """One optimizer step and one of the schedule; what `train_step` returns."""
    sums = train_step(setup, batch, step)
    setup.scheduler.step_update(step + 1)
    return sums
