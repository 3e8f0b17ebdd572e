"""A folder of class folders, or of train, val and test folders of class folders.

Files nested below a class folder, however deep, belong to that class. Names that begin with a dot
(`._x.jpg`, `.DS_Store`) are no samples, nor are files with another ending than a sample's.
"""

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from src.base.words import counted, either
from src.plumbing.errors import InputError
from src.preparation.sources.base import (
    SPLIT_NAMES,
    Files,
    Item,
    Read,
    Rejected,
    Source,
    data_folder,
    refuse_name,
    remark_on_twins,
    require_readable,
    text_of,
)
from src.preparation.sources.layout import Top, remark_on_levels, require_classes, what_lies_there

ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".7z", ".rar")  # by their last ending
DEEPEST = 200  # folders in each other (choice)
LOOSE = Rejected("it lies in no class folder", "move it into one, or out of there")
Parents = Sequence[tuple[str | None, Path]]  # of class folders, each after its split


def class_folders(params: Mapping[str, Any], files: Files) -> Source:
    """Samples of class folders in `prepare.path`. Train gives a missing val or test by hash."""
    root = data_folder(params["prepare.path"], "folder", "of class folders")
    parents = _parents(root)
    given = [split for split, _ in parents if split]
    left_out, tops = Counter[str](), dict[str, Top]()
    unusable: list[str] = []  # class folders
    loose = _loose([root, *(parent for split, parent in parents if split)], files, left_out)
    for split, parent in parents:
        learnt = set[str]()  # the last one is train, or the only one
        for folder in _folders(parent):
            if refused := _refuse_folder(folder):
                unusable.append(f"{text_of(folder.name)}: {refused.reason}, {refused.remedy}")
                continue
            top = tops.setdefault(folder.name, Top())
            for path, _ in walk(folder, files, left_out):
                top.add(path[len(os.fspath(folder)) + 1 :])  # a tenth of the time of relpath
                learnt.add(folder.name)
        if split in ("val", "test") and not _folders(parent):
            _require_none_without_class(parent, loose)
    classes = sorted(name for name, top in tops.items() if top.samples)
    empty = sorted(name for name, top in tops.items() if not top.samples)
    if len(learnt) < 2:
        why = [*unusable, what_lies_there(parent, files, may_be_set=not given)][0]
        without = f" with samples ({', '.join(map(repr, empty[:3]))} without)" if empty else ""
        raise InputError(
            f"{parent} must hold one folder per class, at least two; found {len(learnt)}"
            + (f"; {why}" if why else without)
        )
    require_classes(parent, tops)
    notes = {
        "given_splits": sorted(given),
        "files_left_out": left_out.total(),
        "files_left_out_by_ending": dict(sorted(left_out.items())),
        "classes_without_pictures": empty,
    }
    remarks = remark_on_twins(classes) + remark_on_levels(tops) + remark_on_others(left_out)
    if empty:
        shown = ", ".join(map(repr, empty[:5]))
        remarks.append(f"no class is made of folders without a sample: {shown}")
    items = _items(root, files, parents, loose, {name: label for label, name in enumerate(classes)})
    total = sum(top.samples for top in tops.values()) + len(unusable) + len(loose)
    return Source(classes, items, total, frozenset(given), notes=notes, remarks=remarks)


def _loose(places: Sequence[Path], files: Files, left_out: Counter[str]) -> list[Path]:
    """The samples beside class folders or split folders; other files there go into `left_out`."""
    beside = [path for place in places for path in sorted(place.iterdir()) if not _is_folder(path)]
    left_out.update(_ending(path.name) for path in beside if not _is_sample(path.name, files))
    for path in (path for place in places for path in place.iterdir()):
        if path.name.startswith(".") and _is_folder(path):  # a class there would vanish unseen
            left_out["hidden"] += _files_in(path)
    return [path for path in beside if _is_sample(path.name, files)]


def remark_on_others(left_out: Counter[str]) -> list[str]:
    """A line that names the endings of files that are no samples."""
    if not (count := left_out.total()):
        return []
    many = f"{counted(count, 'file')} {either(count, 'was', 'were')}"
    endings = ", ".join(f"{ending}: {n}" for ending, n in left_out.most_common(5))
    found = [f"{many} left out, by name no sample ({endings}{', ...' * (len(left_out) > 5)})"]
    if packed := sum(left_out[ending] for ending in ARCHIVES):
        are = f"{counted(packed, 'archive')} {either(packed, 'was', 'were')}"
        found.append(f"{are} not looked into: unpack what belongs to the data set")
    return found


def _require_none_without_class(parent: Path, loose: Sequence[Path]) -> None:
    """InputError for a val or test without class folders that holds samples."""
    if count := sum(path.parent == parent for path in loose):
        raise InputError(
            f"{parent} has no class folders, so nothing says the classes of its "
            f"{counted(count, 'sample')}: "
            "put them into class folders, or move it out of there (`python -m src.predict` takes "
            "it once a net is trained)"
        )


def _is_sample(name: str, files: Files) -> bool:
    return not name.startswith(".") and name.lower().endswith(files.suffixes)


def _items(
    root: Path,
    files: Files,
    parents: Parents,
    loose: Sequence[Path],
    label_of: Mapping[str, int],
) -> Iterator[Item]:
    for file in loose:
        yield Item(text_of(os.path.relpath(file, root)), -1, LOOSE)
    for split, parent in parents:
        for folder in _folders(parent):
            name = folder.relative_to(root).as_posix()
            if refused := _refuse_folder(folder):
                yield Item(text_of(name), -1, refused)
            elif folder.name in label_of:
                for path, read in walk(folder, files, Counter()):
                    name = text_of(os.path.relpath(path, root))
                    item_split = None if split == "train" else split
                    yield Item(name, label_of[folder.name], read, item_split)


def walk(
    folder: Path | str, files: Files, left_out: Counter[str], linked_folders: bool = False
) -> Iterator[tuple[str, Read]]:
    """Each file of a sample below `folder`, sorted by path, with how to read it; Rejected if it
    cannot be entered or named. `left_out` counts other files, by ending. Links to files are
    followed; to folders, which DVC would not look into, only with `linked_folders`."""
    above = [os.stat(parent) for parent in Path(folder).absolute().parents]
    yield from _walk(os.fspath(folder), files, left_out, above, linked_folders, DEEPEST)


def _walk(
    folder: str,
    files: Files,
    left_out: Counter[str],
    above: list[os.stat_result],
    linked_folders: bool,
    deeper: int,
) -> Iterator[tuple[str, Read]]:
    if not deeper:
        yield folder, Rejected(f"it lies more than {DEEPEST} folders deep", "move it up")
        return
    try:
        here = os.stat(folder)
        if any(os.path.samestat(here, parent) for parent in above):
            yield folder, Rejected("it is a link to a folder above it", "remove the link")
            return
        with os.scandir(folder) as scan:
            entries = sorted((entry.name, _is_folder(entry)) for entry in scan)
    except PermissionError:
        yield folder, Rejected("there is no permission to enter it", "`chmod u+rx` the folder")
        return
    except OSError as error:
        yield folder, Rejected("it cannot be entered", f"repair the folder ({error.strerror})")
        return
    for name, is_folder in entries:
        path = os.path.join(folder, name)
        if is_folder:
            if name.startswith("."):
                left_out["hidden"] += _files_in(path)
            elif refused := None if linked_folders else _refuse_folder(Path(path)):
                yield path, refused
            else:
                yield from _walk(path, files, left_out, [*above, here], linked_folders, deeper - 1)
        elif _is_sample(name, files):
            yield path, refuse_name(path) or files.reader(path)
        else:
            left_out[_ending(name)] += 1


def named_files(
    paths: Sequence[Path], kind: Files
) -> tuple[list[Path], list[tuple[Path, Rejected]]]:
    """The files that `paths` name, those in folders as `walk` finds them; and with the reason,
    names of which there is nothing and folders that cannot be entered."""
    files: list[Path] = []
    refused: list[tuple[Path, Rejected]] = []
    for path in paths:
        if path.is_dir():
            for name, read in walk(path, kind, Counter(), linked_folders=True):
                if isinstance(read, Rejected) and os.path.isdir(name):
                    refused.append((Path(name), read))
                else:  # a name that no table could hold does no harm here
                    files.append(Path(name))
        elif os.path.lexists(path):  # where a link leads nowhere, reading it says so
            files.append(path)
        else:
            refused.append((path, Rejected("it does not exist", "name files, or a folder")))
    return files, refused


def _refuse_folder(folder: Path) -> Rejected | None:
    """What is wrong with a folder of samples before anybody looks into it."""
    if folder.is_symlink():
        return Rejected(
            "it is a link to a folder, and DVC does not look into it", "put the folder itself there"
        )
    if folder.name.endswith("~") or folder.name == "__pycache__":  # .dvcignore
        return Rejected("DVC takes no notice of a folder of that name", "rename it")
    return refuse_name(folder.name)


def _ending(name: str) -> str:
    """What files that are left out are counted by."""
    suffix = os.path.splitext(name)[1].lower()
    return "hidden" if name.startswith(".") else text_of(suffix) or "no ending"


def _files_in(folder: str | Path) -> int:
    return sum(len(names) for _, _, names in os.walk(folder))


def _is_folder(entry: "os.DirEntry[str] | Path") -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads back to itself: reading it says so
        return False


def _folders(parent: Path) -> list[Path]:
    return sorted(
        item for item in parent.iterdir() if _is_folder(item) and not item.name.startswith(".")
    )


def _parents(root: Path) -> Parents:
    """The folders that hold class folders, each after its split: `root` after None, or its split
    folders, test and val first: what they hold is not learnt."""
    tops = _folders(root)
    _refuse_a_mixture(root, tops)
    if not tops or tops[0].name.lower() not in SPLIT_NAMES:
        return [(None, root)]
    for top in tops:
        if refused := _refuse_folder(top):
            raise InputError(f"{top} cannot be used: {refused.reason}: {refused.remedy}")
        require_readable(top)
    splits = {SPLIT_NAMES[top.name.lower()]: top for top in tops}
    if "train" not in splits:
        names = ", ".join(top.name for top in tops)
        raise InputError(
            f"{root} has split folders ({names}) but no folder train: add it, or rename those that "
            "are classes"
        )
    if len(splits) < len(tops):
        raise InputError(f"{root} has two folders for one split: keep one of them")
    return [(split, splits[split]) for split in ("test", "val", "train") if split in splits]


def _refuse_a_mixture(root: Path, tops: list[Path]) -> None:
    """InputError when some folders are named like splits and others are not: taken as classes,
    the splits would be learnt; taken as splits, samples would be lost."""
    splits = [top.name for top in tops if top.name.lower() in SPLIT_NAMES]
    others = [text_of(top.name) for top in tops if top.name.lower() not in SPLIT_NAMES]
    if not splits or not others:
        return
    shown = ", ".join(others[:3]) + (" ..." if len(others) > 3 else "")
    if "train" in [SPLIT_NAMES[name.lower()] for name in splits]:
        raise InputError(
            f"{root} has {shown} beside the split folders {', '.join(splits)}: move {shown} out of "
            f"it, or rename {', '.join(splits)} if these are classes too"
        )
    raise InputError(
        f"{root} has {', '.join(splits)} beside {shown}, and a folder of that name can be a split "
        f"or a class: rename {', '.join(splits)} if that is a class, or put the class folders for "
        "training into a folder train"
    )
