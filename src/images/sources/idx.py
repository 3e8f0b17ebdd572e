"""Images from raw idx files, as MNIST and its kin come: packed by gzip or not, read one by one.

torchvision's classes hold all images in memory, want unpacked files and import torch: 600 MB.
Format: two zero bytes, a type, the number of dimensions, each size as four bytes, the values, the
last dimension fastest, all big-endian (http://yann.lecun.com/exdb/mnist).
"""

import contextlib
import gzip
import math
import string
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

import numpy as np

from src.base.words import counted, either
from src.images.packing import Pixels
from src.plumbing.errors import InputError
from src.preparation.sources.base import Item, Source

TYPES: dict[int, "np.dtype[Any]"] = {0x08: np.dtype("u1"), 0x0C: np.dtype(">i4")}
MOST_PACKED = 1032  # values per byte that deflate can make (https://zlib.net/zlib_tech.html)


@dataclass(frozen=True)
class IdxSet:
    """Classes as torchvision names them, file name prefixes per split, ends of label files."""

    classes: tuple[str, ...]
    train: str = "train"
    test: str = "t10k"
    labels: str = "labels-idx1-ubyte"

    @property
    def files(self) -> dict[str, tuple[str, str]]:
        """The names of the files of images and of labels by split."""
        return {
            split: (f"{start}-images-idx3-ubyte", f"{start}-{self.labels}")
            for split, start in (("test", self.test), ("train", self.train))
        }


_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_DIGITS = tuple(f"{number} - {word}" for number, word in enumerate(_WORDS))
_CLOTHES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
_HIRAGANA = ("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo")
# Small letters that look like their capitals are one class with them.
_BALANCED = tuple(sorted(set(string.digits + string.ascii_letters) - set("cijklmopsuvwxyz")))
IDX_SETS = {
    "MNIST": IdxSet(_DIGITS),
    "FashionMNIST": IdxSet(_CLOTHES),
    "KMNIST": IdxSet(_HIRAGANA),
    "QMNIST": IdxSet(_DIGITS, "qmnist-train", "qmnist-test", "labels-idx2-int"),
    # Of its six ways to split, the one that its authors made for comparisons.
    "EMNIST": IdxSet(_BALANCED, "emnist-balanced-train", "emnist-balanced-test"),
}


def idx_source(name: str, root: Path) -> Source:
    """The set `name` of IDX_SETS from files in `root` or where torchvision keeps them below it. Val
    comes out of train by hash. InputError when a file is not there or not whole."""
    chosen = IDX_SETS[name]
    found = {
        split: [_find(name, root, file) for file in files] for split, files in chosen.files.items()
    }
    images = {split: path for split, (path, _) in found.items()}
    classes = list(chosen.classes)
    labels = {split: _labels(name, split, path, len(classes)) for split, (_, path) in found.items()}
    items, total = _items(name, images, labels), sum(map(len, labels.values()))
    return Source(classes, items, total, frozenset(images), published=True, in_memory=True)


def _find(name: str, root: Path, file: str) -> Path:
    kept = root / name / "raw" / file
    for place in (kept, root / file):
        for path in (place, place.with_name(f"{file}.gz")):
            if path.is_file():
                return path
    raise InputError(
        f"params.yaml: prepare.source torchvision:{name} needs {kept} or {root / file}, as it is "
        "or with .gz, and nothing is downloaded: put the files there, or set prepare.path to their "
        "folder"
    )


def _labels(name: str, split: str, path: Path, classes: int) -> np.ndarray:
    """The class indices (int64 N); of QMNIST's columns the first."""
    with _opened(name, path) as file:
        dtype, shape = _header(name, path, file)
        labels = np.frombuffer(_read(file, dtype.itemsize * math.prod(shape)), dtype)
        _end(name, path, file)
    labels = labels.reshape(shape).reshape(shape[0], -1)[:, 0].astype(np.int64)
    for index in np.flatnonzero((labels < 0) | (labels >= classes))[:1]:
        raise InputError(
            f"torchvision:{name}: {split}/{index:05d} has label {labels[index]}, which is none of "
            f"{classes} classes"
        )
    return labels


def _items(
    name: str, images: Mapping[str, Path], labels: Mapping[str, np.ndarray]
) -> Iterator[Item]:
    """One image after the other, the test split first: what it holds is not learnt."""
    for split, path in images.items():
        with _opened(name, path) as file:
            dtype, (count, *sides) = _header(name, path, file)
            if dtype != np.uint8 or len(sides) != 2:
                raise _not_whole(name, path, "it holds no images")
            if count != len(labels[split]):
                given = len(labels[split])
                there_are = f"there {either(given, 'is', 'are')} {counted(given, 'label')}"
                reason = f"it holds {counted(count, 'image')}, and {there_are}"
                raise _not_whole(name, path, reason)
            for index, label in enumerate(labels[split].tolist()):
                content = _read(file, math.prod(sides))
                image = Pixels(np.frombuffer(content, np.uint8).reshape(sides))
                item_split = "test" if split == "test" else None
                yield Item(f"{split}/{index:05d}", label, image, item_split)
            _end(name, path, file)


@contextlib.contextmanager
def _opened(name: str, path: Path) -> Iterator[IO[bytes]]:
    try:
        with open(path, "rb") as raw:
            yield cast(IO[bytes], gzip.GzipFile(fileobj=raw)) if path.suffix == ".gz" else raw
    except (gzip.BadGzipFile, zlib.error) as error:
        raise InputError(f"{path} cannot be unpacked ({error}): copy it again") from None
    except EOFError as error:
        raise _not_whole(name, path, str(error)) from None


def _header(name: str, path: Path, file: IO[bytes]) -> tuple["np.dtype[Any]", list[int]]:
    """The type of the values and the sizes; at least one, and no more than the file can hold."""
    start = _read(file, 4)
    if start[:2] != b"\0\0" or start[2] not in TYPES or not 1 <= start[3] <= 3:
        raise _not_whole(name, path, "it is no idx file of numbers")
    dtype = TYPES[start[2]]
    sizes = np.frombuffer(_read(file, 4 * start[3]), ">u4").tolist()
    if 0 in sizes:
        raise _not_whole(name, path, "it has a size of 0")
    # Before memory is taken for what a damaged header says.
    most = path.stat().st_size * (MOST_PACKED if path.suffix == ".gz" else 1)
    if dtype.itemsize * math.prod(sizes) > most:
        raise _not_whole(name, path, "it ends early")
    return dtype, sizes


def _read(file: IO[bytes], count: int) -> bytes:
    content = file.read(count)
    if len(content) < count:
        raise EOFError("it ends early")
    return content


def _end(name: str, path: Path, file: IO[bytes]) -> None:
    """Read on to the end, where gzip compares its checksum."""
    if file.read(1):
        raise _not_whole(name, path, "it goes on after the last value")


def _not_whole(name: str, path: Path, reason: str) -> InputError:
    return InputError(f"{path} is no file of torchvision:{name} ({reason}): copy it again")
