"""One optimizer step: the batch is augmented and mixed, goes forward and backward in micro-batches,
the gradients are clipped, and optimizer, average and schedule take their step.

`step` is the global one: it counts over all epochs, from 0."""

from collections.abc import Callable
from functools import reduce

import torch
from torch import nn

from src.base.randomness import seed_step
from src.data.batches import Batch
from src.plumbing import process
from src.training.learner import HALF, Learner, Sums

Augment = Callable[[torch.Tensor, int, int], torch.Tensor]
Mix = Callable[[torch.Tensor, torch.Tensor, int, int], Batch]


def prepare_batch(batch: Batch, learner: Learner, augment: Augment, mix: Mix, step: int) -> Batch:
    """A batch (packed samples, labels int64 B), augmented and mixed: a function of (seed, step)."""
    rows, labels = batch
    return mix(augment(rows, learner.seed, step), labels, learner.seed, step)


def update(learner: Learner, batch: Batch, step: int) -> Sums:
    """`train_step`, then the schedule's step; returns what that returns."""
    sums = train_step(learner, batch, step)
    learner.scheduler.step_update(step + 1)
    return sums


def train_step(learner: Learner, batch: Batch, step: int) -> Sums:
    """The optimizer's step on a batch (packed samples, targets int64 B or float B x K).

    Returns (loss, correct, norm of the gradient), a number each (float32, on the device). Nothing
    here waits for the device.
    """
    seed_step(learner.seed, step, learner.device)
    if not learner.model.training:
        learner.train_mode()
    sums = learner.graph(batch) if learner.graph else gradients(learner, batch)
    learner.scaler.step(learner.optimizer)
    learner.scaler.update()
    if learner.ema is not None:
        learner.ema.update(learner.model, step=step + 1)
    return sums


def gradients(learner: Learner, batch: Batch) -> Sums:
    """What a step learns from a batch: forward and backward in micro-batches of at most
    `learner.micro_batch` samples (of two, one may have three), gradients clipped. Returns what
    `train_step` returns."""
    rows, targets = batch
    for parameter in learner.learning():  # a tenth of the time of zero_grad (measured)
        parameter.grad = None
    found: list[tuple[torch.Tensor, torch.Tensor]] = []
    # BatchNorm finds no variance in one sample: with micro-batches of two, one takes an odd sample
    # along as its third.
    count = min(-(-len(rows) // learner.micro_batch), max(1, len(rows) // 2))
    micro_batches = zip(rows.tensor_split(count), targets.tensor_split(count), strict=True)
    for inputs, wanted in micro_batches:
        process.at_work()
        with learner.autocast(), learner.counted():
            logits = learner.forward(learner.enter(inputs))
        if learner.precision in HALF:
            logits = logits.float()
        loss = learner.criterion(logits, wanted)
        # A micro-batch counts by its size, so that the gradients add up to that of the batch. A
        # whole batch is not multiplied: starting an operation on a GPU costs 10 to 30 microseconds.
        share = loss if count == 1 else loss * (len(inputs) / len(rows))
        learner.scaler.scale(share).backward()
        found.append((share.detach(), hit_count(logits.detach(), wanted)))
    loss, correct = (reduce(torch.add, parts) for parts in zip(*found, strict=True))
    return loss, correct, _norm_and_clip(learner)


def _norm_and_clip(learner: Learner) -> torch.Tensor:
    """The norm of all gradients that the optimizer takes, together; they are made smaller if
    `clip_grad` says so."""
    learner.scaler.unscale_(learner.optimizer)
    parameters = [p for p in learner.learning() if p.grad is not None]
    found = [p.grad for p in parameters if p.grad is not None]
    # torch's get_total_norm without its search for devices, which takes longer than the norm.
    norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(found)))
    if learner.precision == "fp16":  # the scaler skips a step whose gradients overflow
        norm = norm.nan_to_num(nan=0.0, posinf=0.0)
    if learner.clip_grad is not None:
        nn.utils.clip_grads_with_norm_(parameters, learner.clip_grad, norm)
    return norm


def hit_count(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """How many of a batch are right (float32); a mixed sample counts as its larger part."""
    labels = targets if targets.ndim == 1 else targets.argmax(dim=1)
    return (logits.argmax(dim=1) == labels).sum(dtype=torch.float32)
