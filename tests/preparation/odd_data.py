"""Odd folders and tables of images, drawn from a seed: layouts, formats, names and accidents of
people who prepare data, mixed at random."""

import io
import os
import random
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

CLASS_NAMES = (
    *("cat", "dog", "Cat", "no", "NULL", "007", " a ", "naïve café", "kāfijas tase", "猫", "-x"),
    *("a,b", 'say "hi"', "it's", "1e5", "train station", "x.jpg", "o" * 120, "emoji 🐈", "100%"),
)
FORMATS = (".png", ".jpg", ".JPEG", ".bmp", ".webp", ".tif", ".gif")
MODES = ("RGB", "L", "RGBA", "P", "LA", "1")
# Folders of one data set, as people call them; refused where nobody can know what they are.
SPLITS = (
    ("train", "val", "test"),
    ("Training", "Validation", "Testing"),
    ("TRAIN", "TEST"),
    ("train", "dev", "test"),
    ("train", "valid"),
)
NO_SPLITS = (("fold1", "fold2"), ("2023", "2024"), ("site A", "site B", "site C"))


@dataclass
class Odd:
    """What was drawn. `files`: by their paths; `refusals`: patterns, one of which a refusal must
    be like; it may be accepted all the same unless `must_refuse`."""

    rng: random.Random
    classes: list[str]
    params: dict[str, object]
    files: dict[str, bytes] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)
    empty: list[str] = field(default_factory=list)  # folders
    rows: list[list[str]] | None = None  # of a table
    traits: list[str] = field(default_factory=list)
    refusals: list[str] = field(default_factory=list)
    must_refuse: bool = False

    def refuse(self, pattern: str, always: bool = True) -> None:
        self.refusals.append(pattern)
        self.must_refuse |= always

    @property
    def is_strict(self) -> bool:
        return self.params["on_bad"] == "fail"

    def some_image(self) -> str:
        return self.rng.choice([name for name in self.files if name.lower().endswith(FORMATS)])


def image(rng: random.Random, suffix: str, mode: str = "RGB", side: int = 12) -> bytes:
    """The bytes of an image file; no two are alike."""
    pixels = np.frombuffer(rng.randbytes(side * side * 3), np.uint8).reshape(side, side, 3)
    buffer = io.BytesIO()
    picture = Image.fromarray(pixels).convert(mode)
    form = Image.registered_extensions()[suffix.lower()]
    try:
        picture.save(buffer, form)
    except OSError:  # the format has no such mode
        picture.convert("RGB").save(buffer, form)
    return buffer.getvalue()


def draw(seed: int) -> Odd:
    """The data set of a seed."""
    rng = random.Random(seed)
    classes = rng.sample(CLASS_NAMES, rng.randint(2, 4))
    bad, leak = rng.choice(("fail", "skip")), rng.choice(("fail", "drop"))
    odd = Odd(rng, classes, {"on_bad": bad, "on_leak": leak, "channels": rng.choice((1, 3))})
    layout = rng.choice(LAYOUTS)
    odd.traits.append(layout.__name__)
    layout(odd)
    for accident in rng.sample(ACCIDENTS, rng.randint(0, 3)):
        if odd.files and accident(odd) is not False:
            odd.traits.append(accident.__name__)
    return odd


def write(odd: Odd, root: Path) -> None:
    """Put the files below `root`."""
    for name, content in odd.files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    for name in odd.empty:
        (root / name).mkdir(parents=True, exist_ok=True)
    for name, target in odd.links.items():
        os.symlink(target, root / name)


def _fill(odd: Odd, place: str = "", count: int = 30, nested: bool = False) -> None:
    suffixes = odd.rng.sample(FORMATS, odd.rng.randint(1, 3))
    for label, name in enumerate(odd.classes):
        for number in range(count):
            suffix, mode = odd.rng.choice(suffixes), odd.rng.choice(MODES)
            below = f"{odd.rng.choice('xyz')}{label}/" if nested else ""
            path = f"{place}{name}/{below}{number}{suffix}"
            odd.files[path] = image(odd.rng, suffix, mode)


def class_folders(odd: Odd) -> None:
    _fill(odd)


def nested_folders(odd: Odd) -> None:
    _fill(odd, nested=True)


def split_folders(odd: Odd) -> None:
    for split in odd.rng.choice(SPLITS):
        _fill(odd, f"{split}/", count=30 if split.lower().startswith("train") else 12)


def folders_that_may_be_splits(odd: Odd) -> None:
    for split in odd.rng.choice(NO_SPLITS):
        _fill(odd, f"{split}/", 8)
    odd.refuse("all hold|the same")


def wrapper_folder(odd: Odd) -> None:
    _fill(odd, "Dataset/")
    odd.refuse("prepare.path=.*Dataset")


def flat_files(odd: Odd) -> None:
    for name in odd.classes:
        for number in range(8):
            odd.files[f"{name}_{number}.png"] = image(odd.rng, ".png")
    odd.refuse("folder per class")


def an_archive(odd: Odd) -> None:
    _fill(odd, count=5)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in odd.files.items():
            archive.writestr(name, content)
    odd.files = {"images.zip": buffer.getvalue()}
    odd.refuse("unpack|unzip")


def table(odd: Odd) -> None:
    _fill(odd, "images/")
    odd.rows = [["path", "label", "site"]]
    for number, path in enumerate(odd.files):
        odd.rows.append([path, path.split("/")[1], f"site {number // 2}"])
    if odd.rng.random() < 0.3:
        odd.params["csv_group_column"] = "site"


LAYOUTS: tuple[Callable[[Odd], None], ...] = (
    *(class_folders, class_folders, nested_folders, split_folders, split_folders),
    *(folders_that_may_be_splits, wrapper_folder, flat_files, an_archive, table, table, table),
)


def cut_file(odd: Odd) -> bool | None:
    if odd.traits[0] in ("an_archive",):
        return False
    path = odd.some_image()
    odd.files[path] = odd.files[path][:20]
    odd.refuse("cannot be used", odd.is_strict)
    return None


def empty_file(odd: Odd) -> bool | None:
    if odd.traits[0] in ("an_archive",):
        return False
    odd.files[odd.some_image()] = b""
    odd.refuse("cannot be used", odd.is_strict)
    return None


def other_files(odd: Odd) -> None:
    top = next(iter(odd.files)).rpartition("/")[0]
    for name in ("Thumbs.db", ".DS_Store", "notes.txt", "README"):
        odd.files[f"{top}/{name}" if top else name] = b"nothing to see"


def phone_photos(odd: Odd) -> bool | None:
    if odd.rows or odd.traits[0] in ("an_archive",):
        return False
    top = next(iter(odd.files)).rpartition("/")[0]
    for number in range(3):
        odd.files[f"{top}/IMG_{number}.HEIC".lstrip("/")] = b"\0\0\0\x18ftypheic" + bytes(100)
    odd.refuse("(?i)heic", odd.is_strict)
    return None


def copies(odd: Odd) -> bool | None:
    """An image twice: in one class, in two classes or in two splits."""
    if odd.traits[0] in ("an_archive",):
        return False
    first, second = odd.some_image(), odd.some_image()
    if Path(first).suffix != Path(second).suffix or first == second:
        return False
    odd.files[second] = odd.files[first]
    odd.refuse("the same", False)
    return None


def constant_images(odd: Odd) -> bool | None:
    if odd.traits[0] in ("an_archive",):
        return False
    for shade in range(3):
        buffer, path = io.BytesIO(), odd.some_image()
        Image.new("L", (9, 9), 100 + shade).save(
            buffer, Image.registered_extensions()[Path(path).suffix.lower()]
        )
        odd.files[path] = buffer.getvalue()
    odd.refuse("the same", False)  # shades may be equal after JPEG
    return None


def tiny_images(odd: Odd) -> bool | None:
    if odd.traits[0] in ("an_archive",):
        return False
    path = odd.some_image()
    odd.files[path] = image(odd.rng, Path(path).suffix, side=1)
    odd.refuse("the same", False)
    return None


def few_bits(odd: Odd) -> bool | None:
    """16 bits a pixel, of which 12 are in use."""
    if odd.rows or odd.traits[0] in ("an_archive", "flat_files"):
        return False
    top = next(iter(odd.files)).rpartition("/")[0]
    for number in range(3):
        values = np.frombuffer(odd.rng.randbytes(200), np.uint16).reshape(10, 10) >> 4
        buffer = io.BytesIO()
        Image.fromarray(values).save(buffer, "PNG")
        odd.files[f"{top}/microscope {number}.png"] = buffer.getvalue()
    odd.refuse("16|bits|range", False)
    return None


def rare_class(odd: Odd) -> bool | None:
    if odd.traits[0] not in ("class_folders", "nested_folders"):
        return False
    odd.files["once/only.png"] = image(odd.rng, ".png")
    odd.refuse("no sample of class", odd.is_strict)
    odd.refuse("no sample of class", False)
    return None


def empty_folder(odd: Odd) -> bool | None:
    if odd.rows or odd.traits[0] not in ("class_folders", "nested_folders"):
        return False
    odd.empty.append("nothing yet")
    return None


def hidden_folders(odd: Odd) -> bool | None:
    """Of an editor, and a class whose name begins with a dot."""
    if odd.rows or odd.traits[0] in ("an_archive", "flat_files"):
        return False
    top = next(iter(odd.files)).split("/")[0]
    for name in (f"{top}/.ipynb_checkpoints/1.png", ".hidden/2.png"):
        odd.files[name] = image(odd.rng, ".png")
    return None


def link_to_nowhere(odd: Odd) -> bool | None:
    if odd.rows or odd.traits[0] in ("an_archive", "flat_files"):
        return False
    top = next(iter(odd.files)).rpartition("/")[0]
    odd.links[f"{top}/gone.png"] = "nowhere.png"
    odd.refuse("cannot be used", odd.is_strict)
    return None


def split_among_classes(odd: Odd) -> bool | None:
    """A folder `test` of unlabelled images beside the classes."""
    if odd.traits[0] not in ("class_folders", "nested_folders"):
        return False
    for number in range(4):
        odd.files[f"test/{number}.png"] = image(odd.rng, ".png")
    odd.refuse("test")
    return None


def missing_endings(odd: Odd) -> bool | None:
    """The table names images without their endings."""
    if not odd.rows:
        return False
    for row in odd.rows[1:]:
        row[0] = row[0].rpartition(".")[0]
    odd.refuse("prepare.csv_path_pattern")
    return None


def rows_without_files(odd: Odd) -> bool | None:
    if not odd.rows:
        return False
    odd.rows += [["images/lost.png", odd.classes[0], "a"], ["../out.png", odd.classes[0], "b"]]
    odd.refuse("cannot be used", odd.is_strict)
    return None


def rows_without_labels(odd: Odd) -> bool | None:
    if not odd.rows:
        return False
    odd.rows[1 + odd.rng.randrange(len(odd.rows) - 1)][1] = ""
    odd.refuse("cannot be used", odd.is_strict)
    return None


def labels_that_are_quantities(odd: Odd) -> bool | None:
    if not odd.rows:
        return False
    for row in odd.rows[1:]:
        row[1] = f"{odd.rng.random():.3f}"
    odd.refuse("quantit|no sample of class|cannot be used")
    return None


def two_labels_for_one(odd: Odd) -> bool | None:
    if not odd.rows:
        return False
    row = odd.rng.choice(odd.rows[1:])
    odd.rows.append([row[0], odd.rng.choice(odd.classes), row[2]])
    odd.refuse("cannot be used", False)
    return None


ACCIDENTS: tuple[Callable[[Odd], bool | None], ...] = (
    *(cut_file, empty_file, other_files, phone_photos, copies, constant_images, tiny_images),
    *(few_bits, rare_class, empty_folder, hidden_folders, link_to_nowhere, split_among_classes),
    *(missing_endings, rows_without_files, rows_without_labels, labels_that_are_quantities),
    *(two_labels_for_one,),
)
