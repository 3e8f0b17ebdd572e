"""Where pictures come from: each source lists its classes and its items, in a fixed order.

A source is a function of the `prepare` params that returns a Source; SOURCES is the table.
"""

import io
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from src.data.shapes import CLASS_NAMES, draw_shape
from src.errors import InputError

PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff")
SPLIT_FOLDERS = {
    "train": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
}


@dataclass(frozen=True)
class Item:
    """One picture: `name` (its path in the source), class index `label`, the `split` that the
    source gives it (None: by the hash of its content), and `read()` -> (content, picture)."""

    name: str
    label: int
    read: Callable[[], tuple[bytes, Image.Image]]
    split: str | None = None


@dataclass(frozen=True)
class Source:
    """`given`: the splits that the source itself fills; no picture comes into them by hash.
    `published`: others test on these splits too, so that they stay whole: a picture that a given
    split also has is left out of the other one. The items come in the order test, val, train."""

    classes: list[str]
    items: Iterator[Item]
    given: frozenset[str] = frozenset()
    published: bool = False
    notes: dict[str, Any] = field(default_factory=dict)


def open_source(params: Mapping[str, Any]) -> Source:
    """The source that `prepare.source` names; InputError when it cannot be read."""
    return SOURCES[params["prepare.source"].partition(":")[0]](params)


def _digits(params: Mapping[str, Any]) -> Source:
    """scikit-learn's handwritten digits: 1,797 pictures of 8 x 8 pixels, grey levels 0..16."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    pictures = (digits.images * (255 / 16)).round().astype("uint8")

    def read(index: int) -> tuple[bytes, Image.Image]:
        return pictures[index].tobytes(), Image.fromarray(pictures[index])

    items = (
        Item(f"digits/{index:04d}", int(label), lambda index=index: read(index))  # type: ignore[misc]
        for index, label in enumerate(digits.target)
    )
    return Source([str(digit) for digit in range(10)], items)


def _synthetic(params: Mapping[str, Any]) -> Source:
    """Coloured shapes, drawn from their class and number alone."""
    count, size = params["prepare.synthetic_classes"], params["prepare.size"]
    per_class = params["prepare.synthetic_pictures"]

    def read(label: int, number: int) -> tuple[bytes, Image.Image]:
        picture = draw_shape(label, number, size)
        return picture.tobytes(), picture

    items = (
        Item(
            f"{CLASS_NAMES[label]}/{number:05d}",
            label,
            lambda label=label, number=number: read(label, number),  # type: ignore[misc]
        )
        for label in range(count)
        for number in range(per_class)
    )
    return Source(list(CLASS_NAMES[:count]), items)


def _folder(params: Mapping[str, Any]) -> Source:
    """A folder of class folders, or of train, val and test folders of class folders. What is
    missing of val and test is taken from train by hash."""
    root = Path(params["prepare.path"])
    if not root.is_dir():
        raise InputError(
            f"params.yaml: prepare.path must be a folder of class folders for prepare.source "
            f"folder, got '{root}'"
        )
    tops = _folders(root)
    _refuse_a_mixture(root, tops)
    if tops and tops[0].name.lower() in SPLIT_FOLDERS:
        parents = [(SPLIT_FOLDERS[top.name.lower()], top) for top in tops]
        if "train" not in [split for split, _ in parents]:
            raise InputError(f"{root} has split folders but no folder train")
        given = [split for split, _ in parents]
        if len(given) != len(set(given)):
            raise InputError(f"{root} has two folders for one split: keep one of them")
    else:
        parents, given = [(None, root)], []  # type: ignore[list-item]
    folders = [folder for _, parent in parents for folder in _folders(parent)]
    for folder in folders:
        _require_writable_name(folder)
    classes = sorted({folder.name for folder in folders})
    if len(classes) < 2:
        raise InputError(
            f"{root} must hold one folder per class, at least two; found {len(classes)}"
        )
    label_of = {name: label for label, name in enumerate(classes)}
    ignored: list[str] = []
    items = [
        # What is missing of val and test comes out of the train folder, by hash.
        Item(
            path.relative_to(root).as_posix(),
            label_of[folder.name],
            _reader(path),
            None if split == "train" else split,
        )
        for split, parent in parents
        for folder in _folders(parent)
        for path in _pictures(folder, ignored)
    ]
    notes = {"given_splits": sorted(given), "files_left_out": len(ignored)}
    return Source(classes, iter(items), frozenset(given), notes=notes)


def _torchvision(params: Mapping[str, Any]) -> Source:
    from src.data.source_torchvision import torchvision_source

    return torchvision_source(params)


def _folders(parent: Path) -> list[Path]:
    return sorted(
        item for item in parent.iterdir() if item.is_dir() and not item.name.startswith(".")
    )


def _refuse_a_mixture(root: Path, tops: list[Path]) -> None:
    """InputError when some folders are named like splits and others are not: taken as classes,
    the splits would be learnt; taken as splits, pictures would be lost."""
    splits = [top.name for top in tops if top.name.lower() in SPLIT_FOLDERS]
    others = [top.name for top in tops if top.name.lower() not in SPLIT_FOLDERS]
    if not splits or not others:
        return
    shown = ", ".join(others[:3]) + (" ..." if len(others) > 3 else "")
    if "train" in [name.lower() for name in splits]:
        raise InputError(
            f"{root} has {shown} beside the split folders {', '.join(splits)}: move {shown} out of "
            f"it, or rename {', '.join(splits)} if these are classes too"
        )
    raise InputError(
        f"{root} has {', '.join(splits)} beside {shown}, and a folder of that name can be a split "
        f"or a class: rename {', '.join(splits)} if that is a class, or put the class folders for "
        "training into a folder train"
    )


def _require_writable_name(path: Path) -> None:
    """InputError for a name that the tables of the packed data set cannot hold."""
    name = os.fsencode(path)
    try:
        name.decode("utf-8")
    except UnicodeDecodeError:
        raise InputError(f"the name {name!r} is not UTF-8: rename it") from None
    if b"\r" in name:  # Python 3.11 writes it into a CSV without the quotes it needs
        raise InputError(f"the name {name!r} has a carriage return in it: rename it")


def _pictures(folder: Path, ignored: list[str]) -> list[Path]:
    """The picture files below a class folder, sorted by path; other files go to `ignored`."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    pictures = [
        path
        for path in files
        if path.suffix.lower() in PICTURE_SUFFIXES and not path.name.startswith(".")
    ]
    for path in pictures:
        _require_writable_name(path)
    ignored += [path.name for path in set(files) - set(pictures)]
    return pictures


def _reader(path: Path) -> Callable[[], tuple[bytes, Image.Image]]:
    def read() -> tuple[bytes, Image.Image]:
        try:
            content = path.read_bytes()
            picture = Image.open(io.BytesIO(content))
            picture.load()
        except Exception as error:  # Pillow raises many types on broken files, not all OSError
            # Pillow names the file object, which says nothing to a person.
            reason = re.sub(r" <_io\.BytesIO[^>]*>", "", " ".join(str(error).split()))
            reason = reason or type(error).__name__
            raise InputError(f"{path} cannot be read as a picture ({reason}): remove it") from None
        return content, picture

    return read


SOURCES: dict[str, Callable[[Mapping[str, Any]], Source]] = {
    "digits": _digits,
    "synthetic": _synthetic,
    "folder": _folder,
    "torchvision": _torchvision,
}
