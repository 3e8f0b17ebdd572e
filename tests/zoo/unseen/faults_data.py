"""Faults in pictures, labels, splits and loaders."""

import numpy as np
import torch
from torch.utils.data import DataLoader, Subset, WeightedRandomSampler

from tests.zoo.unseen import parts
from tests.zoo.unseen import pictures as pics
from tests.zoo.unseen.bases import (
    TensorBatches,
    cells_depthwise,
    digits_mlp,
    gratings_cnn,
    in_memory,
    shapes_transformer,
)
from tests.zoo.unseen.bases_transfer import transfer_frozen
from tests.zoo.unseen.healthy_small import two_classes_plain_sgd
from tests.zoo.unseen.more_bases import many_mixup_ema, tiles_bce
from tests.zoo.unseen.pictures import Pictures
from tests.zoo.unseen.registry import fault


def reload_memory(setup):
    """Fill the loaders of the MLP again after its data sets changed."""
    setup.train_loader = TensorBatches(*in_memory(setup.train_data), 50, shuffle=True)
    setup.val_loader = TensorBatches(*in_memory(setup.val_data), 100, shuffle=False)


@fault(shapes_transformer, "labels do not belong to their pictures (training labels permuted)")
def labels_from_another_order(setup):
    """Pictures come in the order of one folder listing, labels in the order of another."""
    order = np.random.default_rng(5).permutation(len(setup.train_data.labels))
    setup.train_data.labels = setup.train_data.labels[order]


@fault(gratings_cnn, "labels shifted by one item against the pictures")
def labels_one_behind(setup):
    """A header line was taken as the first label, so each picture has its neighbour's."""
    setup.train_data.labels = np.roll(setup.train_data.labels, 1)


@fault(tiles_bce, "training and validation number the classes differently")
def class_index_differs_in_validation(setup):
    """Class numbers come from a listing of each folder, and the orders differ."""
    other = np.array([9, 10, 11, 0, 1, 2, 6, 7, 8, 3, 4, 5])
    setup.val_data.labels = other[setup.val_data.labels]


class Unscaled(Pictures):
    """Pictures of 0..255 normalised with the mean and std of 0..1."""

    def to_tensor(self, index):
        return 255 * super().to_tensor(index)


@fault(digits_mlp, "pictures not divided by 255 before the normalisation")
def not_divided_by_255(setup):
    """Mean and std of the scale 0..1 meet pixels of 0..255."""
    setup.train_data.__class__ = setup.val_data.__class__ = Unscaled
    setup.optimizer = torch.optim.SGD(setup.model.parameters(), 0.05, momentum=0.9)
    reload_memory(setup)


@fault(gratings_cnn, "validation pictures are not normalised as the training pictures are")
def validation_not_normalised(setup):
    """The validation transform ends before Normalize."""
    setup.val_data.mean, setup.val_data.std = torch.zeros(3, 1, 1), torch.ones(3, 1, 1)


@fault(transfer_frozen, "validation pictures are normalised twice")
def validation_normalised_twice(setup):
    """The loader of validation batches normalises what the data set has normalised."""
    mean, std = setup.val_data.mean, setup.val_data.std
    setup.val_data.mean, setup.val_data.std = mean + std * mean, std * std


@fault(two_classes_plain_sgd, "normalisation with a std on the scale 0..255: inputs near zero")
def std_of_the_wrong_scale(setup):
    """(x / 255 - 0.5) / 128: the declared std of 0.5 was multiplied by 255 in the transform."""
    for data in (setup.train_data, setup.val_data):
        data.tensors = (data.tensors[0] * 0.5 / 128, data.tensors[1])
    setup.train_loader = [setup.train_data[i : i + 24] for i in range(0, 480, 24)]
    setup.val_loader = [setup.val_data[:80], setup.val_data[80:]]


class BlueFirst(Pictures):
    """Pictures read with the channel order of OpenCV."""

    def to_tensor(self, index):
        return super().to_tensor(index).flip(0)


@fault(tiles_bce, "channel order differs: BGR in validation, RGB in training")
def validation_in_bgr(setup):
    """Training pictures are read by one library, validation pictures by another."""
    setup.val_data.__class__ = BlueFirst


class Truncated(Pictures):
    """Pictures stored as integers after the division by 255."""

    def to_tensor(self, index):
        return super().to_tensor(index).to(torch.uint8).float()


@fault(digits_mlp, "pictures cast to integers after scaling to 0..1: (almost) all pixels zero")
def cast_to_bytes_after_scaling(setup):
    """A cache of the scaled pictures has dtype uint8."""
    setup.train_data.__class__ = setup.val_data.__class__ = Truncated
    for data in (setup.train_data, setup.val_data):
        data.pictures = np.minimum(data.pictures, 254)
    reload_memory(setup)


class Reshaped(Pictures):
    """(H, W, C) read as (C, H, W) without moving the axes."""

    def to_tensor(self, index):
        picture = torch.from_numpy(self.pictures[index].copy())
        return picture.reshape(picture.shape[2], *picture.shape[:2]).float() / 255


@fault(transfer_frozen, "HWC pictures reshaped instead of transposed to CHW: scrambled pixels")
def reshaped_instead_of_transposed(setup):
    """Validation uses view(C, H, W) where training uses permute."""
    setup.val_data.__class__ = Reshaped


@fault(gratings_cnn, "augmentation destroys the label: a mirrored picture is another class")
def flip_changes_the_class(setup):
    """Random mirroring and turning by 90 degrees although the class is an orientation."""

    def augment(picture):
        return torch.rot90(pics.flipped(picture), int(torch.randint(4, ())), (1, 2))

    setup.train_data.augment = augment


@fault(cells_depthwise, "augmentation hides the object: far too strong crops")
def crop_without_the_object(setup):
    """RandomResizedCrop of 8 per cent of the area, the default for ImageNet, on counted spots."""

    def augment(picture):
        size = picture.shape[1]
        top, left = torch.randint(0, size - 5, (2,)).tolist()
        small = picture[None, :, top : top + 6, left : left + 6]
        return torch.nn.functional.interpolate(small, size=(size, size))[0]

    setup.train_data.augment = augment


@fault(many_mixup_ema, "training pictures appear in the validation set (leak)")
def oversampled_before_the_split(setup):
    """Duplicates were made before the split, so most validation pictures are in training too."""
    data = setup.train_data
    data.pictures, data.labels = data.pictures.copy(), data.labels.copy()
    data.pictures[:300], data.labels[:300] = (
        setup.val_data.pictures[:300],
        setup.val_data.labels[:300],
    )


@fault(gratings_cnn, "training batches are sorted by class: no shuffling")
def sorted_and_unshuffled(setup):
    """Files come class by class and the loader does not shuffle."""
    data = setup.train_data
    order = data.labels.argsort(kind="stable")
    data.pictures, data.labels = data.pictures[order], data.labels[order]
    setup.train_loader = DataLoader(data, 32, shuffle=False)


class TornBatches(TensorBatches):
    """Draws one order for the inputs and another for the targets."""

    def __iter__(self):
        inputs = torch.randperm(len(self.targets)).split(self.batch_size)
        targets = torch.randperm(len(self.targets)).split(self.batch_size)
        for some, others in zip(inputs, targets, strict=True):
            yield self.inputs[some], self.targets[others]


@fault(digits_mlp, "the loader shuffles inputs and targets apart; the data set itself is right")
def loader_tears_pairs_apart(setup):
    """The hand-written loader shuffles pictures and labels separately."""
    setup.train_loader = TornBatches(*in_memory(setup.train_data), 50, shuffle=True)


@fault(shapes_transformer, "the loader sees only a small part of the training set")
def debug_subset_left_in(setup):
    """Subset(data, range(32)) from overfitting one batch was left in the loader."""
    some = Subset(setup.train_data, range(32))
    setup.train_loader = parts.loader(some, 16, shuffle=True)


@fault(cells_depthwise, "the sampler draws only the first 4 pictures (a weight per class)")
def sampler_weights_per_class(setup):
    """WeightedRandomSampler gets one weight per class where it wants one per picture."""
    weights = (1.0 / torch.from_numpy(setup.train_data.labels).bincount()).tolist()
    sampler = WeightedRandomSampler(weights, 1000, generator=torch.Generator().manual_seed(1))
    setup.train_loader = DataLoader(setup.train_data, 40, sampler=sampler)


@fault(many_mixup_ema, "classes of the validation set are missing in training")
def split_without_shuffling(setup):
    """Data sorted by class was cut at 85 per cent, so the last classes are only in validation."""
    pictures = np.concatenate([setup.train_data.pictures, setup.val_data.pictures])
    labels = np.concatenate([setup.train_data.labels, setup.val_data.labels])
    order = labels.argsort(kind="stable")
    cut = int(0.85 * len(order))
    for data, chosen in ((setup.train_data, order[:cut]), (setup.val_data, order[cut:])):
        data.pictures, data.labels = pictures[chosen], labels[chosen]


def mixed_with_swapped_shares(inputs, targets, classes, alpha):
    """Mixup whose shares of the targets are exchanged."""
    share = float(np.random.beta(alpha, alpha))
    order = torch.randperm(len(inputs))
    hot = torch.nn.functional.one_hot(targets, classes).float()
    pictures = share * inputs + (1 - share) * inputs[order]
    return pictures, (1 - share) * hot + share * hot[order]


@fault(many_mixup_ema, "mixup: inputs and targets are mixed with swapped shares")
def mixup_shares_swapped(setup):
    """The share of the picture goes to the label of its partner."""
    parts.become(setup, many_mixup_ema(mix=mixed_with_swapped_shares))


@fault(gratings_cnn, "training augmentation in the validation set: its numbers change by chance")
def validation_is_augmented(setup):
    """One transform, with noise and erasing, serves both data sets."""

    def augment(picture):
        picture = pics.moved(picture) + 0.3 * torch.randn_like(picture)
        top, left = torch.randint(0, 12, (2,)).tolist()
        picture[:, top : top + 16, left : left + 16] = 0
        return picture

    setup.train_data.augment = setup.val_data.augment = augment
