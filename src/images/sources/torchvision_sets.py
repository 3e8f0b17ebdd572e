"""The data sets of torchvision.datasets that give images with one class each: how each is opened,
and which files it needs below prepare.path."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Arguments = Mapping[str, Any]


@dataclass(frozen=True)
class Set:
    """How to open a data set: the arguments of its class for each split, `all` if it has none; the
    paths below prepare.path that it needs; the number of classes where torchvision names none."""

    splits: Mapping[str, Arguments]
    files: tuple[str, ...]
    classes: int | None = None


def _set(style: str, *files: str, classes: int | None = None, **more: Any) -> Set:
    return Set(
        {name: {**arguments, **more} for name, arguments in _STYLES[style].items()}, files, classes
    )


def _named(**splits: str) -> dict[str, Arguments]:
    return {split: {"split": name} for split, name in splits.items()}


_STYLES: dict[str, dict[str, Arguments]] = {
    "whole": {"all": {}},
    "flag": {"train": {"train": True}, "test": {"train": False}},
    "train, test": _named(train="train", test="test"),
    "train, val": _named(train="train", val="val"),
    "train, val, test": _named(train="train", val="val", test="test"),
    "train, valid, test": _named(train="train", val="valid", test="test"),
    "trainval, test": _named(train="trainval", test="test"),
    "standard": _named(train="train-standard", val="val"),
}

# Left out: ImageNet, which unpacks archives into its folder; SUN397, whose order is that of the
# file system; Omniglot, LFW, iNaturalist and CLEVR, whose labels are no classes that the splits
# share; everything with several labels per image, with videos or without labels.
SETS = {
    "CIFAR10": _set("flag", "cifar-10-batches-py"),
    "CIFAR100": _set("flag", "cifar-100-python"),
    "USPS": _set("flag", "usps.bz2", "usps.t.bz2", classes=10),
    "SEMEION": _set("whole", "semeion.data", classes=10),
    "SVHN": _set("train, test", "train_32x32.mat", "test_32x32.mat", classes=10),
    "STL10": _set("train, test", "stl10_binary"),
    "GTSRB": _set(
        "train, test",
        "gtsrb/GTSRB/Training",
        "gtsrb/GTSRB/Final_Test/Images",
        "gtsrb/GT-final_test.csv",
        classes=43,
    ),
    "EuroSAT": _set("whole", "eurosat/2750"),
    "Flowers102": _set(
        "train, val, test",
        "flowers-102/jpg",
        "flowers-102/imagelabels.mat",
        "flowers-102/setid.mat",
    ),
    "OxfordIIITPet": _set(
        "trainval, test", "oxford-iiit-pet/images", "oxford-iiit-pet/annotations"
    ),
    "Food101": _set("train, test", "food-101/meta", "food-101/images"),
    "DTD": _set("train, val, test", "dtd/dtd/labels", "dtd/dtd/images"),
    "FGVCAircraft": _set("train, val, test", "fgvc-aircraft-2013b/data"),
    "StanfordCars": _set(
        "train, test",
        "stanford_cars/devkit",
        "stanford_cars/cars_train",
        "stanford_cars/cars_test",
        "stanford_cars/cars_test_annos_withlabels.mat",
    ),
    "Country211": _set("train, valid, test", "country211"),
    "RenderedSST2": _set("train, val, test", "rendered-sst2"),
    "PCAM": _set("train, val, test", "pcam"),
    "FER2013": _set("train, test", "fer2013", classes=7),
    "Imagenette": _set("train, val", "imagenette2/train", "imagenette2/val"),
    "Places365": _set("standard", "data_256_standard", "val_256", small=True),
    "Caltech101": _set("whole", "caltech101/101_ObjectCategories"),
    "Caltech256": _set("whole", "caltech256/256_ObjectCategories"),
}
