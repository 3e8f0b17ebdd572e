"""Faults in the data: images, labels, how they are normalised, and what two splits share."""

import torch
from torch import Tensor
from torch.utils.data import ConcatDataset, Subset

from tests.zoo.known.bases import IMAGENET_MEAN, IMAGENET_STD, Images
from tests.zoo.known.catalogue import Mapped, fault, keep, labels_of, map_data, with_data
from tests.zoo.known.complete_setup import TrainingSetup


def relabel(setup: TrainingSetup, labels: list[int], part: str = "train") -> TrainingSetup:
    return map_data(setup, lambda i, x, y: (x, labels[i]), [part])


def columns(setup: TrainingSetup, values: str) -> Tensor:
    return torch.tensor(setup.declared[values])[:, None, None]


def raw(setup: TrainingSetup, x: Tensor) -> Tensor:
    """The image in 0..1."""
    return x * columns(setup, "std") + columns(setup, "mean")


@fault("digits_resnet", "two_classes", causes=["labels_shuffled"])
def labels_shuffled(setup: TrainingSetup) -> TrainingSetup:
    """Images and labels of the training split were shuffled apart."""
    labels = torch.tensor(labels_of(setup.train_data))
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(1))
    return relabel(setup, labels[order].tolist())


@fault("digits_resnet", causes=["labels_shuffled"])
def labels_off_by_one_item(setup: TrainingSetup) -> TrainingSetup:
    """A header line in the list of labels: each image has the label of the next."""
    labels = labels_of(setup.train_data)
    return relabel(setup, labels[1:] + labels[:1])


@fault("digits_resnet", causes=["label_noise"])
def labels_noisy(setup: TrainingSetup) -> TrainingSetup:
    """One training label in five is drawn at random."""
    random = torch.Generator().manual_seed(4)
    drawn = torch.randint(0, 10, (len(setup.train_data),), generator=random).tolist()
    wrong = (torch.rand(len(drawn), generator=random) < 0.2).tolist()
    labels = labels_of(setup.train_data)
    return relabel(setup, [d if w else y for y, d, w in zip(labels, drawn, wrong, strict=True)])


@fault("shapes_vit", causes=["label_map_differs"])
def label_map_by_name(setup: TrainingSetup) -> TrainingSetup:
    """The validation split numbers its classes in the order 0, 1, 10, 11, ..., 19, 2, 20, ..."""
    order = sorted(range(30), key=str)
    return map_data(setup, lambda i, x, y: (x, order.index(int(y))), ["val"])


@fault("digits_resnet", causes=["label_map_differs"])
def label_map_shifted(setup: TrainingSetup) -> TrainingSetup:
    """Validation labels count from 1, and 10 became 0."""
    return map_data(setup, lambda i, x, y: (x, (y + 1) % 10), ["val"])


@fault("digits_resnet", causes=["label_map_differs"])
def two_classes_swapped(setup: TrainingSetup) -> TrainingSetup:
    """Classes 3 and 8 are swapped in the validation split."""
    return map_data(setup, lambda i, x, y: (x, {3: 8, 8: 3}.get(y, y)), ["val"])


@fault("shapes_vit", causes=["labels_out_of_range", "num_classes"])
def labels_from_one(setup: TrainingSetup) -> TrainingSetup:
    """Labels count from 1 to K: the last is out of range."""
    return map_data(setup, lambda i, x, y: (x, y + 1))


@fault("two_classes", causes=["class_missing", "train_val_distribution_differs"])
def labels_all_zero(setup: TrainingSetup) -> TrainingSetup:
    """Every training label is 0: a list of labels that was never filled."""
    return map_data(setup, lambda i, x, y: (x, 0), ["train"])


@fault("digits_resnet", causes=["dtype_mismatch"])
def labels_as_floats(setup: TrainingSetup) -> TrainingSetup:
    """Labels come as floats out of a table."""
    return map_data(setup, lambda i, x, y: (x, float(y)))


@fault("digits_resnet", causes=["class_missing"])
def class_missing(setup: TrainingSetup) -> TrainingSetup:
    """Class 7 is missing in the training split; its folder was not copied."""
    return keep(setup, "train", lambda i, y: y != 7)


@fault("digits_resnet", causes=["class_missing", "train_val_distribution_differs"])
def split_without_shuffle(setup: TrainingSetup) -> TrainingSetup:
    """Sorted data cut in two: the classes of the validation split are new."""
    setup = keep(setup, "train", lambda i, y: y < 8)
    return keep(setup, "val", lambda i, y: y >= 8)


@fault("two_classes", causes=["class_imbalance", "train_val_distribution_differs"])
def rare_class_lost(setup: TrainingSetup) -> TrainingSetup:
    """A filter leaves 3 training images of the second class."""
    kept = [i for i, y in enumerate(labels_of(setup.train_data)) if y == 1][:3]
    return keep(setup, "train", lambda i, y: y == 0 or i in kept)


@fault("digits_resnet", causes=["train_val_leakage"])
def val_in_train(setup: TrainingSetup) -> TrainingSetup:
    """The training split holds the validation split."""
    both: ConcatDataset = ConcatDataset([setup.train_data, setup.val_data])
    return with_data(setup, train=both)


@fault("two_classes", causes=["train_val_leakage"])
def third_of_val_in_train(setup: TrainingSetup) -> TrainingSetup:
    """A third of the validation images were put into the training split too."""
    third = Subset(setup.val_data, range(0, len(setup.val_data), 3))
    return with_data(setup, train=ConcatDataset([setup.train_data, third]))


@fault("shapes_vit", causes=["train_val_leakage"])
def val_is_train(setup: TrainingSetup) -> TrainingSetup:
    """The same file was read for both splits."""
    return with_data(setup, val=setup.train_data[:200])


@fault("pretrained", causes=["train_val_leakage"])
def augmented_before_split(setup: TrainingSetup) -> TrainingSetup:
    """Images were copied with a little noise first and split afterwards."""
    random = torch.Generator().manual_seed(3)
    x = setup.train_data.x[:96]
    x = (x + 0.01 * torch.randn(x.shape, generator=random)).clamp(0, 1)
    val = Images(x, setup.train_data.y[:96], IMAGENET_MEAN, IMAGENET_STD)
    return with_data(setup, val=val)


@fault("shapes_vit", "mixup_ema", causes=["duplicates", "blank_images"])
def images_constant(setup: TrainingSetup) -> TrainingSetup:
    """A closure in a loop: every item shows the same image."""
    first = setup.train_data[0][0]
    return map_data(setup, lambda i, x, y: (first, y))


@fault("pretrained", causes=["blank_images", "duplicates"])
def images_truncated(setup: TrainingSetup) -> TrainingSetup:
    """Images in 0..1 are cast to uint8: all black."""
    shift = -columns(setup, "mean") / columns(setup, "std")
    return map_data(setup, lambda i, x, y: (shift + 0 * x, y))


@fault("digits_resnet", "two_classes", causes=["input_not_normalised"])
def images_0_to_255(setup: TrainingSetup) -> TrainingSetup:
    """Images are in 0..255 and not normalised."""
    return map_data(setup, lambda i, x, y: (raw(setup, x) * 255, y))


@fault("two_classes", causes=["normalised_twice"])
def normalised_twice(setup: TrainingSetup) -> TrainingSetup:
    """Mean and deviation are applied a second time."""
    mean, std = columns(setup, "mean"), columns(setup, "std")
    return map_data(setup, lambda i, x, y: ((x - mean) / std, y))


@fault(
    "two_classes",
    "mixup_ema",
    causes=[
        "normalised_with_other_statistics",
        "input_not_normalised",
        "normalised_twice",
        "blank_images",
    ],
)
def divided_by_255_twice(setup: TrainingSetup) -> TrainingSetup:
    """Images are divided by 255 once more before they are normalised: nearly constant."""
    mean, std = columns(setup, "mean"), columns(setup, "std")
    return map_data(setup, lambda i, x, y: ((raw(setup, x) / 255 - mean) / std, y))


@fault("pretrained", causes=["normalised_with_other_statistics"])
def mean_and_std_swapped(setup: TrainingSetup) -> TrainingSetup:
    """Mean and deviation changed places in the call of normalise."""
    mean, std = columns(setup, "mean"), columns(setup, "std")
    return map_data(setup, lambda i, x, y: ((raw(setup, x) - std) / mean, y))


@fault("pretrained", causes=["normalised_with_other_statistics", "input_not_normalised"])
def std_not_divided(setup: TrainingSetup) -> TrainingSetup:
    """The mean is taken off and the division is forgotten."""
    mean = columns(setup, "mean")
    return map_data(setup, lambda i, x, y: (raw(setup, x) - mean, y))


@fault("pretrained", causes=["normalised_with_other_statistics", "normalised_twice"])
def variance_for_std(setup: TrainingSetup) -> TrainingSetup:
    """The variance stands where the deviation belongs."""
    mean, std = columns(setup, "mean"), columns(setup, "std")
    return map_data(setup, lambda i, x, y: ((raw(setup, x) - mean) / std**2, y))


@fault("digits_resnet", causes=["augmentation_destroys_label"], subtle=True)
def digits_upside_down(setup: TrainingSetup) -> TrainingSetup:
    """Augmentation turns digits by 180 degrees: a 6 becomes a 9."""

    def change(i: int, x: Tensor, y: int) -> tuple[Tensor, int]:
        return (x.flip(1, 2) if torch.rand(()) < 0.5 else x), y

    return map_data(setup, change, ["train"])


@fault("digits_resnet", causes=["input_not_finite"])
def normalised_by_image_max(setup: TrainingSetup) -> TrainingSetup:
    """Normalised by 0/0: one image in twenty is blank and divided by its maximum."""

    def change(i: int, x: Tensor, y: int) -> tuple[Tensor, int]:
        image = raw(setup, x) * (i % 20 != 3)
        return image / image.max(), y

    return map_data(setup, change)


@fault("digits_resnet", causes=["duplicates"])
def ten_images(setup: TrainingSetup) -> TrainingSetup:
    """An index that wraps: the training split is ten images again and again."""
    data = setup.train_data
    return with_data(setup, train=Mapped(data, lambda i, x, y: data[i % 10]))


@fault("digits_resnet", causes=["shape_mismatch"])
def three_channels(setup: TrainingSetup) -> TrainingSetup:
    """Grey images are read as RGB; the net takes one channel."""
    return map_data(setup, lambda i, x, y: (x.expand(3, -1, -1), y))
