"""The net on a whole split: its outputs, their probabilities, and fresh BatchNorm statistics."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from src.base.kinds import kind_of, kind_part
from src.base.randomness import generator
from src.data.batches import EVAL_BATCH, ordered_batches
from src.data.packed import PackedSplit
from src.data.readers import MAPPED, Reading, read_batches
from src.plumbing.errors import InputError


@torch.no_grad()
def logits_of(
    model: nn.Module,
    data: PackedSplit,
    device: torch.device,
    mean: Sequence[float],
    std: Sequence[float],
    reading: Reading = MAPPED,
    flip: bool = False,
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """(logits float B x K, labels int64 B) for all of `data` in its order, on the device, with the
    net in evaluation mode. `flip`: the mean of the logits for a sample and its mirror image. Of
    logits, since it fits both activations: it is the geometric mean of the odds, for sigmoid of
    each class, for softmax between classes."""
    model.eval()
    part = kind_part(kind_of(data.meta), "input")
    for rows, labels in ordered_batches(data, device, reading):
        logits = model(part.enter(rows, mean, std))
        if flip:
            logits = (logits + model(part.enter(part.mirror(rows), mean, std))) / 2
        yield logits, labels


@torch.no_grad()
def refresh_batchnorm(
    model: nn.Module,
    data: PackedSplit,
    device: torch.device,
    mean: Sequence[float],
    std: Sequence[float],
    reading: Reading = MAPPED,
) -> None:
    """Replace the statistics of all BatchNorm layers by those of `data`: the mean over batches of
    the batch mean and of the unbiased batch variance, each sample counting alike ("precise
    BatchNorm", Wu and Johnson 2021). Nothing else changes; labels are not read. InputError for a
    net that keeps no BatchNorm statistics, or fewer than two samples."""
    layers = [
        module
        for module in model.modules()
        if isinstance(module, _BatchNorm) and module.running_mean is not None
    ]
    if not layers:
        raise InputError(
            "params.yaml: evaluate.refresh_batchnorm must be none: the model has no BatchNorm"
        )
    if len(data) < 2:
        raise InputError(
            f"params.yaml: evaluate.refresh_batchnorm must be none: {data.split} has one sample, "
            "which has no variance"
        )
    model.eval()
    momenta = [layer.momentum for layer in layers]
    for layer in layers:
        layer.reset_running_stats()
        layer.training = True  # not train(), which reaches the dropout inside timm's BatchNormAct2d
    seen, enter = 0, kind_part(kind_of(data.meta), "input").enter
    for rows, _ in read_batches(data, _mixed_batches(len(data)), device, reading):
        seen += len(rows)
        for layer in layers:
            # The cumulative average of momentum=None, with batches counting by their size.
            layer.momentum = len(rows) / seen
        model(enter(rows, mean, std))
    for layer, momentum in zip(layers, momenta, strict=True):
        layer.momentum = momentum
    model.eval()


def _mixed_batches(count: int) -> list:
    """Indices of all `count` samples in batches of at most EVAL_BATCH, in a fixed random order:
    class by class, as samples are often packed, the variance would be that within a class. Sizes
    differ by one at most: a single sample has no variance where the net has come down to 1 x 1."""
    order = torch.randperm(count, generator=generator(0, "batchnorm", 0))
    return [part.numpy() for part in order.tensor_split(-(-count // EVAL_BATCH))]


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities N x K (float64) of logits N x K."""
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    exponentials = np.exp(shifted)
    return exponentials / exponentials.sum(axis=1, keepdims=True)


def normalised_sigmoid(logits: np.ndarray) -> np.ndarray:
    """Probabilities N x K (float64) of the logits N x K of a net that was trained with a binary
    loss per class: the sigmoids, divided by their sum, since a sample has exactly one class."""
    # By logarithms: a row of sigmoids that are all 0 in floats still has its ratios.
    return softmax(-np.logaddexp(0, -logits.astype(np.float64)))


# What model.json may name as `activation`: how logits become probabilities.
ACTIVATIONS = {"softmax": softmax, "sigmoid": normalised_sigmoid}
