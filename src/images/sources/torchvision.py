"""Images from a data set of torchvision.datasets whose files lie on the disk already.

Nothing is downloaded, and nothing is written into the folder of the files: DVC hashes it.
"""

import inspect
import operator
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from src.images.packing import ImageFile, Pixels
from src.images.sources.idx import IDX_SETS, idx_source
from src.images.sources.torchvision_sets import SETS, Set
from src.plumbing.errors import InputError
from src.plumbing.params import did_you_mean
from src.preparation.sources.base import Item, Read, Source

PREFIX = "torchvision:"


def torchvision_source(params: Mapping[str, Any]) -> Source:
    """The set of torchvision.datasets that `prepare.source` names, from the files in
    `prepare.path`. Its own splits are given ones; val comes out of train by hash where it has none.
    InputError for a name that is no such set, or when the files are not there or not whole."""
    name, root = params["prepare.source"].removeprefix(PREFIX), Path(params["prepare.path"])
    if name in IDX_SETS:
        return idx_source(name, root)
    if name not in SETS:
        raise _unknown(name)
    chosen = SETS[name]
    _require_files(name, chosen, root)
    opened = _open(name, chosen, root)
    classes = _classes(name, chosen, opened)
    given = frozenset(opened) if "train" in opened else frozenset[str]()
    items, total = _items(name, opened, len(classes)), sum(map(len, opened.values()))
    return Source(classes, items, total, given, published=True, in_memory=not _loads_files(name))


def _unknown(name: str) -> InputError:
    from torchvision import datasets

    if name in datasets.__all__:
        return InputError(
            f"params.yaml: prepare.source {PREFIX}{name} gives no images with one class each, in "
            "splits that share them: set folder for images in class folders, or torchvision: "
            f"with one of {', '.join([*IDX_SETS, *SETS])}"
        )
    hint = did_you_mean(name, [*IDX_SETS, *SETS]) or f": set one of {', '.join([*IDX_SETS, *SETS])}"
    return InputError(
        f"params.yaml: prepare.source {PREFIX}{name} is no data set of torchvision{hint}"
    )


def _require_files(name: str, chosen: Set, root: Path) -> None:
    for file in chosen.files:
        if not (root / file).exists():
            raise InputError(
                f"params.yaml: prepare.source {PREFIX}{name} needs {root / file} and nothing is "
                "downloaded: put the files there, or set prepare.path to their folder"
            )


def _open(name: str, chosen: Set, root: Path) -> dict[str, Any]:
    """The data set of each split."""
    from torchvision import datasets

    create = getattr(datasets, name)
    # Some classes download unless told not to, and some know no such argument.
    known = inspect.signature(create).parameters
    offline: dict[str, Any] = {"download": False} if "download" in known else {}
    # They give the path instead of the image, and workers read the files.
    by_path: dict[str, Any] = {"loader": Path} if _loads_files(name) else {}
    try:
        return {
            split: create(str(root), **arguments, **offline, **by_path)
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
