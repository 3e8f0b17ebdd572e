"""What lies in a folder that is no folder of class folders: one line that names the way out.

A mistake here is not seen later: splits, people or copies taken for classes train without an error.
"""

import os
import tarfile
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from src.plumbing.errors import InputError
from src.preparation.sources.base import SPLIT_NAMES, Files, how_to_unpack, splits_in, text_of

TABLES = (".csv", ".tsv")
IDX = ("-ubyte", "-ubyte.gz")  # of MNIST and its kin
ARRAYS = (
    *(".npy", ".npz", ".mat", ".h5", ".hdf5", ".pkl", ".pickle", ".tfrecord", ".lmdb"),
    *(".mdb", ".rec", ".bin", ".pt"),
)
PEEKED = 64  # members of a tar file that tell a shard from an archive (choice)


@dataclass
class Top:
    """A folder that is taken for a class: how many samples lie in it, how many of them in none of
    its folders, and the names of the folders that the others lie in."""

    samples: int = 0
    direct: int = 0
    below: set[str] = field(default_factory=set)

    def add(self, path: str) -> None:
        """Note a sample, by its path from here."""
        *folders, _ = path.split(os.sep)
        self.samples += 1
        self.direct += not folders
        self.below.update(folders)

    @property
    def is_nested(self) -> bool:
        return 2 * self.direct < self.samples


def require_classes(root: Path, tops: Mapping[str, Top]) -> None:
    """InputError if folders with samples, by name, are named like splits or hold the same folders:
    then they are splits, people, folds or copies, and the classes lie below them."""
    tops = {name: top for name, top in tops.items() if top.samples}
    named = {name: splits for name in tops if (splits := splits_in(name))}
    said = set().union(*named.values())
    if 2 * len(named) >= len(tops) and "train" in said and len(said) > 1:
        raise InputError(
            f"{root} holds {_some(named)}, named like splits and not like classes: rename them "
            "train, val and test, and a class that is called so to something else"
        )
    nested = {name: top.below for name, top in tops.items() if top.is_nested}
    counts = Counter(name for below in nested.values() for name in below)
    shared = {name for name, count in counts.items() if count > 1}
    if len(shared) > 1 and 2 * len(shared) >= len(counts):
        holders = [name for name, below in nested.items() if len(below & shared) > 1]
        first = sorted(holders)[0]
        line = f"{root}: {_some(holders)} hold the same folders ({_some(shared)})"
        if "train" in {SPLIT_NAMES.get(name.lower()) for name in shared}:
            raise InputError(f"{line}, which are splits: put those on top, as train/{first}")
        raise InputError(
            f"{line}, so these look like the classes: rename splits to train, val and test; or set "
            f"prepare.path={text_of(root / first)} to use one alone; if {text_of(first)} is a "
            "class, move its files up into it; for people, folds or sites see prepare.source=own"
        )
    for name, below in sorted(nested.items()):
        copies = below & tops.keys()
        if len(copies) > 1 and 2 * len(copies) >= len(below):
            raise InputError(
                f"{root}: {text_of(name)} holds folders of the same names as those beside it "
                f"({_some(copies)}): move it out of there, or set prepare.path="
                f"{text_of(root / name)}"
            )


def remark_on_levels(tops: Mapping[str, Top]) -> list[str]:
    """A line if folders below a class folder could be meant as classes."""
    trees = [name for name, top in sorted(tops.items()) if top.is_nested and len(top.below) > 1]
    if not trees:
        return []
    first = trees[0]
    more = f"; {len(trees)} class folders hold folders" if len(trees) > 1 else ""
    return [
        f"folders below a class folder make no classes: {text_of(first)} is one class with all "
        f"that lies in {_some(tops[first].below)}{more}"
    ]


def what_lies_there(folder: Path, files: Files, may_be_set: bool = True) -> str:
    """What a folder without class folders holds and how to read it; empty if it tells nothing.
    `may_be_set`: prepare.path can name a folder below it, which is not so in a split folder."""
    samples, first = Counter[str](), dict[str, Path]()  # by folder; of other files, by ending
    for where, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(name for name in names if not name.startswith(".")):
            if name.lower().endswith(files.suffixes):
                samples[os.path.relpath(where, folder)] += 1
            else:
                first.setdefault(_ending(name.lower()), Path(where, name))
    if inside := _where_classes_lie(samples):
        place = text_of(folder / inside)
        way = f"set prepare.path={place}" if may_be_set else f"move them up into {text_of(folder)}"
        return f"its class folders lie in {place}: {way}"
    # Archives first: a table beside one names what lies in it.
    for path in sorted(first.values(), key=lambda path: path.suffix.lower() in (*TABLES, *ARRAYS)):
        if known := _how_to_read(path, folder, bool(samples)):
            return f"{text_of(path)} lies there: {known}"
    if count := samples["."]:
        return (
            f"{count} sample{'s'[: count != 1]} of no class lie in {text_of(folder)} itself: put "
            "those of each class into a folder with its name; for classes in a table set "
            "prepare.source=csv, for those in the names of the files prepare.source=own"
        )
    if samples:
        return ""
    if not first:
        return "there is no file in it"
    return f"of its files ({_some(first)}) none is a sample by its name"


def _ending(name: str) -> str:
    stem, ending = os.path.splitext(name)
    if name.endswith(IDX):
        return IDX[0]
    packed = ending in (".gz", ".bz2", ".xz")
    return (os.path.splitext(stem)[1] if packed else "") + ending or "no ending"


def _where_classes_lie(samples: Iterable[str]) -> str | None:
    """The folder that holds several folders with samples, below others that are alone; `samples`:
    the paths of the folders with samples."""
    above: tuple[str, ...] = ()
    paths = [() if path == "." else tuple(path.split(os.sep)) for path in samples]
    while True:
        inner = {path[len(above)] for path in paths if len(path) > len(above)}
        if len(inner) != 1:
            return os.path.join(*above) if above and inner else None
        above = (*above, *inner)


def _how_to_read(path: Path, folder: Path, samples: bool) -> str:
    """The source or command for a file that holds samples of several classes, or names them."""
    name = path.name.lower()
    if name.endswith(".parquet"):
        return "set prepare.source=parquet"
    if name.endswith(".tar") and _is_shard(path):
        return "it is a WebDataset shard: set prepare.source=webdataset"
    if name.endswith(".arrow"):
        return (
            "save it as Parquet with datasets.load_from_disk(FOLDER).to_parquet(FILE) and set "
            "prepare.source=parquet"
        )
    if unpack := how_to_unpack(path):
        return f"{unpack}, and move it away"
    if name.endswith(IDX):
        return "set prepare.source=torchvision:MNIST, or the one of its kin that it is"
    if name.endswith(TABLES) and samples:
        return f"set prepare.source=csv and prepare.csv_file={text_of(path.relative_to(folder))}"
    if name.endswith((*TABLES, *ARRAYS)):
        return "for arrays write own_source in src/yours/source.py and set prepare.source=own"
    return ""


def _is_shard(path: Path) -> bool:
    """Whether a tar file holds a label beside each sample, under the same name."""
    try:
        with tarfile.open(path, "r:") as tar:
            members = [member.name for member, _ in zip(tar, range(PEEKED), strict=False)]
    except (tarfile.TarError, OSError):
        return False
    stems = {os.path.splitext(name)[0] for name in members}
    labelled = {os.path.splitext(name)[0] for name in members if name.endswith((".cls", ".json"))}
    return 2 * len(labelled) > len(stems)


def _some(names: Iterable[str]) -> str:
    """The first names."""
    names = [text_of(name) for name in sorted(set(names))]
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
