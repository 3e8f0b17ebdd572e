"""Images from a data set of torchvision.datasets whose files lie on the disk already.

Nothing is downloaded, and nothing is written into the folder of the files: DVC hashes it.
"""

import inspect
import operator
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from src.images.packing import ImageFile, Pixels
from src.images.sources.idx import IDX_SETS, idx_source
from src.plumbing.errors import InputError
from src.plumbing.params import did_you_mean
from src.preparation.sources.base import Item, Read, Source

PREFIX = "torchvision:"


@dataclass(frozen=True)
class Set:
    """How to open a data set: the arguments of its class for each split, `all` if it has none; the
    paths below prepare.path that it needs; the number of classes where torchvision names none."""

    splits: Mapping[str, Mapping[str, Any]]
    files: tuple[str, ...]
    classes: int | None = None


# Splits that torchvision's classes call by another name than here.
_NAMES = {"valid": "val", "trainval": "train", "train-standard": "train"}
_WITHOUT_NAMES: dict[str, dict[str, dict[str, Any]]] = {
    "whole": {"all": {}},
    "flag": {"train": {"train": True}, "test": {"train": False}},
}


def _set(splits: str, *files: str, classes: int | None = None, **more: Any) -> Set:
    """`splits`: values of the argument `split`; or `whole`, or `flag`: an argument `train`."""
    opened = _WITHOUT_NAMES.get(splits) or {
        _NAMES.get(name, name): {"split": name} for name in splits.split(", ")
    }
    return Set({name: {**arguments, **more} for name, arguments in opened.items()}, files, classes)


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
    "Places365": _set("train-standard, val", "data_256_standard", "val_256", small=True),
    "Caltech101": _set("whole", "caltech101/101_ObjectCategories"),
    "Caltech256": _set("whole", "caltech256/256_ObjectCategories"),
}


def torchvision_source(params: Mapping[str, Any]) -> Source:
    """The set `prepare.source`, from files in `prepare.path`, with its own splits; without a val,
    train gives it by hash. InputError for an unknown name, or files not there or not whole."""
    name, root = params["prepare.source"].removeprefix(PREFIX), Path(params["prepare.path"])
    if name in IDX_SETS:
        return idx_source(name, root)
    if name not in SETS:
        raise _unknown(name)
    chosen = SETS[name]
    for file in chosen.files:
        if not (root / file).exists():
            raise InputError(
                f"params.yaml: prepare.source {PREFIX}{name} needs {root / file} and nothing is "
                "downloaded: put the files there, or set prepare.path to their folder"
            )
    opened = _open(name, chosen, root)
    classes = _classes(name, chosen, opened)
    given = frozenset(opened) if "train" in opened else frozenset[str]()
    items, total = _items(name, opened, len(classes)), sum(map(len, opened.values()))
    return Source(classes, items, total, given, published=True, in_memory=not _loads_files(name))


def _unknown(name: str) -> InputError:
    from torchvision import datasets

    known = [*IDX_SETS, *SETS]
    if name in datasets.__all__:
        return InputError(
            f"params.yaml: prepare.source {PREFIX}{name} gives no images with one class each, in "
            "splits that share them: set folder for images in class folders, or torchvision: "
            f"with one of {', '.join(known)}"
        )
    hint = did_you_mean(name, known) or f": set one of {', '.join(known)}"
    return InputError(
        f"params.yaml: prepare.source {PREFIX}{name} is no data set of torchvision{hint}"
    )


def _open(name: str, chosen: Set, root: Path) -> dict[str, Any]:
    """The data set of each split."""
    from torchvision import datasets

    create = getattr(datasets, name)
    known = inspect.signature(create).parameters
    # Some classes download unless told not to. Some then give the path in place of the image, and
    # workers read the files.
    wanted = {"download": False, "loader": Path}
    more = {key: value for key, value in wanted.items() if key in known}
    try:
        return {
            split: create(str(root), **arguments, **more)
            for split, arguments in chosen.splits.items()
        }
    except Exception as error:  # each set has its own ways to fail on files that are not whole
        raise InputError(
            f"params.yaml: prepare.path {root} does not hold {PREFIX}{name} ({_reason(error)}): "
            f"put {', '.join(chosen.files)} there, as published"
        ) from None


def _loads_files(name: str) -> bool:
    """Whether the set loads each image from a file of its own, by a function one can give."""
    from torchvision import datasets

    return "loader" in inspect.signature(getattr(datasets, name)).parameters


def _reason(error: Exception) -> str:
    text = re.sub(r"\.? ?You can use download=True.*", "", " ".join(str(error).split()))
    return text[:150] or type(error).__name__


def _classes(name: str, chosen: Set, opened: Mapping[str, Any]) -> list[str]:
    """The names of the classes, which all splits must share; numbers where the set has none."""
    if chosen.classes is not None:
        return [str(number) for number in range(chosen.classes)]
    lists = [
        [str(label) for label in getattr(data, "classes", None) or data.categories]
        for data in opened.values()
    ]
    if any(other != lists[0] for other in lists):
        raise InputError(f"{PREFIX}{name}: the splits have different classes: use the whole set")
    return lists[0]


def _items(name: str, opened: Mapping[str, Any], classes: int) -> Iterator[Item]:
    """One image after the other, the test split first: what it holds is not learnt."""
    for split in sorted(opened, key=("test", "val", "train", "all").index):
        data = opened[split]
        for index in range(len(data)):
            where = f"{split}/{index:05d}"
            try:
                image, label = data[index]
                label = operator.index(label)
            except Exception as error:  # Pillow and the sets raise many types on broken files
                raise InputError(
                    f"{PREFIX}{name}: {where} cannot be read ({_reason(error)}): get its file again"
                ) from None
            if not isinstance(image, Image.Image | Path) or not 0 <= label < classes:
                raise InputError(
                    f"{PREFIX}{name}: {where} has label {label}, which is none of {classes} classes"
                )
            item_split = split if split in ("val", "test") else None
            yield Item(where, label, _reader(image), item_split)


def _reader(image: Image.Image | Path) -> Read:
    if isinstance(image, Path):
        return ImageFile(str(image))
    # The pixels of a palette image are not its colours.
    plain = {"P": "RGBA", "1": "L"}.get(image.mode)
    return Pixels(np.asarray(image.convert(plain) if plain else image))
