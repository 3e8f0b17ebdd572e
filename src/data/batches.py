"""Batches for the net: index lists -> packed samples -> device."""

from collections.abc import Iterator

import torch

from src.base.randomness import balanced_order, sample_order
from src.base.words import counted
from src.data.packed import PackedSplit
from src.data.readers import MAPPED, Batch, Reading, read_batches

REST = 0.1  # share of the samples that an epoch may leave out without a word (choice)
EVAL_BATCH = 128  # samples per forward pass outside training: fixed, so that bits do not move


def steps_per_epoch(count: int, batch_size: int) -> int:
    """Whole batches in `count` samples, at least one; each epoch leaves out another remainder."""
    return max(1, count // batch_size)


def leftover_remark(count: int, batch_size: int, sampling: str) -> str:
    """A line if an epoch drops many samples or a step has fewer than `batch_size`, else empty."""
    if batch_size > count:
        return (
            f"train: one step of {counted(count, 'sample')} per epoch: there are no {batch_size} "
            "(batch_size times accumulate)"
        )
    steps = steps_per_epoch(count, batch_size)
    rest = count - steps * batch_size
    if sampling == "balanced" or rest < REST * count:
        return ""
    many = f"{counted(steps, 'step')} of {batch_size} samples"
    return f"train: an epoch is {many}: {rest} of {count} are left out, others in each"


def training_batches(
    data: PackedSplit,
    seed: int,
    epoch: int,
    batch_size: int,
    device: torch.device,
    first_step: int = 0,
    reading: Reading = MAPPED,
    sampling: str = "random",
) -> Iterator[Batch]:
    """(rows, of images uint8 B x H x W x C, labels int64 B) on the device, from `first_step` of the
    epoch on. The order is a function of (seed, epoch). `sampling`: random visits each sample once;
    balanced draws each class equally often, with replacement. `reading` changes nothing."""
    if sampling == "balanced":
        order = balanced_order(seed, epoch, torch.from_numpy(data.labels)).numpy()
    else:
        order = sample_order(seed, epoch, len(data)).numpy()
    steps = range(first_step, steps_per_epoch(len(data), batch_size))
    return read_batches(
        data, [order[s * batch_size : (s + 1) * batch_size] for s in steps], device, reading
    )


def ordered_batches(
    data: PackedSplit, device: torch.device, reading: Reading = MAPPED
) -> Iterator[Batch]:
    """All samples in their order, for evaluation; shapes as in training_batches."""
    indices = torch.arange(len(data)).split(EVAL_BATCH)
    return read_batches(data, [part.numpy() for part in indices], device, reading)
