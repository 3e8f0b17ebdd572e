"""Faults of the loaders: order, coverage, pairs taken apart, randomness of workers."""

from collections.abc import Iterator
from copy import copy
from dataclasses import replace
from itertools import repeat
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Subset

from tests.zoo.known.bases import Batches
from tests.zoo.known.catalogue import fault, labels_of, load_from, with_data
from tests.zoo.known.complete_setup import TrainingSetup


class Changed:
    """A loader whose batches go through a function of all batches."""

    def __init__(self, loader: Any, change: Any):
        self.loader, self.change = loader, change

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        return iter(self.change(self.loader))


def sorted_by_label(data: Any) -> Subset:
    labels = labels_of(data)
    return Subset(data, sorted(range(len(labels)), key=labels.__getitem__))


@fault("digits_resnet", causes=["loader_sorted", "loader_not_shuffled"])
def sorted_not_shuffled(setup: TrainingSetup) -> TrainingSetup:
    """Training images lie sorted by class and the loader does not shuffle."""
    data = sorted_by_label(setup.train_data)
    return replace(setup, train_data=data, train_loader=DataLoader(data, 32))


@fault("shapes_vit", causes=["loader_sorted", "loader_not_shuffled"])
def list_sorted_not_shuffled(setup: TrainingSetup) -> TrainingSetup:
    """The list is sorted by class and the loader keeps its order."""
    data = sorted(setup.train_data, key=lambda item: item[1])
    loader = load_from(setup.train_loader, data, shuffle=False)
    return replace(setup, train_data=data, train_loader=loader)


@fault("shapes_vit", "pretrained", causes=["loader_repeats", "loader_incomplete"])
def loader_repeats_first_batch(setup: TrainingSetup) -> TrainingSetup:
    """`next(iter(loader))` in the loop: always the first batch of a fixed order."""

    def first(loader: Any) -> Iterator[tuple[Tensor, Tensor]]:
        fixed = load_from(loader, setup.train_data, shuffle=False)
        return repeat(next(iter(fixed)), len(loader))

    return replace(setup, train_loader=Changed(setup.train_loader, first))


@fault("digits_resnet", causes=["loader_incomplete"])
def loader_over_few(setup: TrainingSetup) -> TrainingSetup:
    """A subset of 64 images left from debugging feeds the training loader."""
    few = Subset(setup.train_data, range(64))
    return replace(setup, train_loader=load_from(setup.train_loader, few))


@fault("two_classes", causes=["loader_incomplete"])
def half_the_data_lost(setup: TrainingSetup) -> TrainingSetup:
    """As if for two processes, every second image is left to a process that does not exist."""
    half = Subset(setup.train_data, range(0, len(setup.train_data), 2))
    return replace(setup, train_loader=load_from(setup.train_loader, half))


@fault("shapes_vit", causes=["loader_incomplete"])
def loader_empty(setup: TrainingSetup) -> TrainingSetup:
    """drop_last with a batch larger than the data: an epoch without a batch."""
    loader = load_from(setup.train_loader, setup.train_data, size=1000)
    return replace(setup, train_loader=loader)


class ApartBatches(Batches):
    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        rng = np.random.default_rng(self.epoch)
        images, labels = rng.permutation(len(self.data)), rng.permutation(len(self.data))
        self.epoch += 1
        for start in range(0, len(self) * self.size, self.size):
            part = slice(start, start + self.size)
            x = torch.stack([self.data[i][0] for i in images[part]])
            yield x, torch.tensor([self.data[i][1] for i in labels[part]])


@fault("shapes_vit", causes=["loader_misaligned"])
def loader_shuffles_apart(setup: TrainingSetup) -> TrainingSetup:
    """The loader draws one order for the images and another for the labels."""
    loader = ApartBatches(setup.train_data, 32, shuffle=True, drop_last=True)
    return replace(setup, train_loader=loader)


@fault("two_classes", causes=["loader_misaligned"])
def labels_shifted_in_collate(setup: TrainingSetup) -> TrainingSetup:
    """collate_fn rolls the labels of a batch by one."""

    def collate(items: list) -> tuple[Tensor, Tensor]:
        return torch.stack([x for x, _ in items]), torch.stack([y for _, y in items]).roll(1)

    loader = load_from(setup.train_loader, setup.train_data, collate_fn=collate)
    return replace(setup, train_loader=loader)


@fault("mixup_ema", causes=["loader_misaligned", "loader_repeats", "duplicates"])
def same_image_in_batch(setup: TrainingSetup) -> TrainingSetup:
    """collate_fn fills the batch with its first image; the labels are those of all."""

    def collate(items: list) -> tuple[Tensor, Tensor]:
        return torch.stack([items[0][0]] * len(items)), torch.tensor([y for _, y in items])

    loader = load_from(setup.train_loader, setup.train_data, collate_fn=collate)
    return replace(setup, train_loader=loader)


@fault("digits_resnet", causes=["batch_too_small"])
def batch_of_two(setup: TrainingSetup) -> TrainingSetup:
    """Batches of 2 for a net with BatchNorm at 1 x 1 pixels."""
    loader = load_from(setup.train_loader, setup.train_data, batch_size=2)
    return replace(setup, train_loader=loader)


class NumpyAugmented(Dataset):
    """Shifts drawn from a generator that the data set owns: each worker has the same copy."""

    def __init__(self, data: Any):
        self.data, self.random = data, np.random.default_rng(0)

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> tuple[Tensor, Any]:
        x, y = self.data[index]
        dy, dx = self.random.integers(-3, 4, 2)
        return x.roll((int(dy), int(dx)), (1, 2)) + 0.1 * self.random.standard_normal(), y


@fault("two_classes", causes=["worker_seeds_equal"])
def workers_draw_alike(setup: TrainingSetup) -> TrainingSetup:
    """Two workers and a generator inside the data set: the same draws in both, in every epoch."""
    data = NumpyAugmented(setup.train_data)
    loader = load_from(setup.train_loader, data, num_workers=2)
    return replace(setup, train_data=data, train_loader=loader)


@fault("mixup_ema", "two_classes", causes=["loader_of_other_data", "train_val_leakage"])
def val_loader_of_train(setup: TrainingSetup) -> TrainingSetup:
    """The validation loader was made from the training data."""
    return replace(setup, val_loader=load_from(setup.val_loader, setup.train_data))


@fault("digits_resnet", causes=["loader_incomplete"])
def val_loader_cut(setup: TrainingSetup) -> TrainingSetup:
    """drop_last in validation with large batches: 449 images become 300."""
    loader = load_from(setup.val_loader, setup.val_data, batch_size=300, drop_last=True)
    return replace(setup, val_loader=loader)


@fault("digits_resnet", causes=["eval_not_deterministic", "train_val_preprocessing_differ"])
def val_augmented(setup: TrainingSetup) -> TrainingSetup:
    """The validation split got the random transform of training: no two evaluations agree."""
    val = copy(setup.val_data)
    val.shift = 4
    return with_data(setup, val=val)
