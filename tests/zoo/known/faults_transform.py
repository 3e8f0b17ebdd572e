"""Faults between raw image and net: validation prepared otherwise, augmentation that destroys."""

import torch
import torch.nn.functional as F
from torch import Tensor

from tests.zoo.known.catalogue import fault, map_data
from tests.zoo.known.complete_setup import TrainingSetup
from tests.zoo.known.faults_data import columns, raw


@fault("pretrained", causes=["channels_reversed", "train_val_preprocessing_differ"])
def bgr_in_validation(setup: TrainingSetup) -> TrainingSetup:
    """Validation images are read with OpenCV: blue, green, red."""
    return map_data(setup, lambda i, x, y: (x.flip(0), y), ["val"])


@fault(
    "digits_resnet",
    "two_classes",
    causes=["train_val_preprocessing_differ", "input_not_normalised"],
)
def val_not_normalised(setup: TrainingSetup) -> TrainingSetup:
    """Only the training images are normalised."""
    return map_data(setup, lambda i, x, y: (raw(setup, x), y), ["val"])


@fault("mixup_ema", causes=["train_val_preprocessing_differ"])
def val_zoomed(setup: TrainingSetup) -> TrainingSetup:
    """Validation images are cut to the middle quarter and enlarged."""

    def zoom(i: int, x: Tensor, y: int) -> tuple[Tensor, int]:
        h, w = x.shape[1] // 4, x.shape[2] // 4
        middle = x[None, :, h:-h, w:-w]
        return F.interpolate(middle, scale_factor=2, mode="nearest")[0], y

    return map_data(setup, zoom, ["val"])


@fault("digits_resnet", causes=["train_val_preprocessing_differ"])
def val_inverted(setup: TrainingSetup) -> TrainingSetup:
    """Black on white in training, white on black in validation."""
    mean, std = columns(setup, "mean"), columns(setup, "std")
    return map_data(setup, lambda i, x, y: ((1 - raw(setup, x) - mean) / std, y), ["val"])


@fault("digits_resnet", causes=["train_val_preprocessing_differ"])
def val_turned(setup: TrainingSetup) -> TrainingSetup:
    """Validation images come turned by 90 degrees: width and height are swapped in one reader."""
    return map_data(setup, lambda i, x, y: (x.rot90(1, (1, 2)), y), ["val"])


@fault("mixup_ema", causes=["augmentation_destroys_label", "train_val_preprocessing_differ"])
def crop_to_nothing(setup: TrainingSetup) -> TrainingSetup:
    """A random crop keeps 4 x 4 pixels, enlarged: mostly background."""

    def crop(i: int, x: Tensor, y: int) -> tuple[Tensor, int]:
        top, left = torch.randint(0, x.shape[1] - 4, (2,)).tolist()
        return F.interpolate(x[None, :, top : top + 4, left : left + 4], x.shape[1:])[0], y

    return map_data(setup, crop, ["train"])


@fault("digits_resnet", causes=["augmentation_destroys_label", "train_val_preprocessing_differ"])
def noise_drowns(setup: TrainingSetup) -> TrainingSetup:
    """Noise with ten times the deviation of the images is added in training."""
    return map_data(setup, lambda i, x, y: (x + 10 * torch.randn_like(x), y), ["train"])


@fault(
    "two_classes",
    causes=["augmentation_destroys_label", "blank_images", "train_val_preprocessing_differ"],
)
def erased(setup: TrainingSetup) -> TrainingSetup:
    """Random erasing takes 97 % of each training image."""
    return map_data(setup, lambda i, x, y: (x * (torch.rand(x.shape[1:]) < 0.03), y), ["train"])


@fault("digits_resnet", causes=["augmentation_destroys_label"], subtle=True)
def digits_flipped(setup: TrainingSetup) -> TrainingSetup:
    """Digits are flipped at random in training: a 2 becomes no digit, and a 6 nearly a 9."""
    return map_data(setup, lambda i, x, y: (x.flip(2) if torch.rand(()) < 0.5 else x, y), ["train"])
