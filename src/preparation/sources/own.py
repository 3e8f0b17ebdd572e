"""The samples of src/yours/source.py, for `prepare.source: own`.

They wait in a scratch database until they are read: so the classes are known first, the order is
that of their names, and a sample that no worker could be sent is found before the work begins.
"""

import os
import pickle
import re
import sqlite3
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from src.base.files import scratch_database
from src.plumbing.errors import GateError, InputError
from src.preparation.sources.base import (
    Files,
    Item,
    Read,
    Rejected,
    Source,
    is_url,
    refuse_name,
    remark_on_twins,
    text_of,
    through_a_link,
)
from src.preparation.targets import require_one_class

FILE = "src/yours/source.py"
SPLITS = ("test", "val", "train")  # what the first two hold is not learnt
NO_LABEL = Rejected(f"{FILE} gives it no label", "correct it there, or move the file away")
NO_TEXT = re.compile("[\r\ud800-\udfff]")  # what the tables of the packed data set cannot hold


@dataclass(frozen=True)
class Sample:
    """What `own_source` yields. `content`: the path of a file below `prepare.path`, or what the
    kind of sample takes without a file. `label`: the name of its class; where it is empty, the
    sample cannot be used, see prepare.on_bad. `split`: train, val or test; None, and train, leave
    it to the hash whether it goes to a val or test that no sample names. `group` (a patient, a
    scene): its samples stay in one split. `name`: what reports call it, and what the samples are
    sorted by; that of a file is its path below `prepare.path`."""

    content: Any
    label: str
    split: str | None = None
    group: str | None = None
    name: str | None = None


def own_samples(
    params: Mapping[str, Any],
    load: Callable[[], Any],
    files: Files,
    without_file: Callable[[Any], Read],
) -> Source:
    """The samples of the function that `load` imports, sorted by name. `files` and `without_file`
    read the two sorts of content. InputError, with file and line, for what is wrong there."""
    root, total = Path(params["prepare.path"]), 0
    database = scratch_database()
    database.execute(
        "CREATE TABLE samples (name TEXT PRIMARY KEY, label TEXT, split TEXT, grouped TEXT, "
        "read BLOB)"
    )
    for total, sample in enumerate(_yielded(load, params), start=1):
        name, read = _named(sample, total, root, files, without_file)
        _require_valid(sample, name)
        is_labelled = bool(sample.label.strip())
        read = read if is_labelled or isinstance(read, Rejected) else NO_LABEL
        label = sample.label if is_labelled else None
        row = (name, label, sample.split or "train", sample.group, _pickled(read, name))
        try:
            database.execute("INSERT INTO samples VALUES (?, ?, ?, ?, ?)", row)
        except sqlite3.IntegrityError:
            raise _wrong(f"{name} comes twice: a sample has one name and one label") from None
    counts: dict[str, int] = dict(
        database.execute(
            "SELECT label, count(*) FROM samples WHERE label IS NOT NULL GROUP BY label"
        )
    )
    classes = sorted(counts)
    if len(classes) < 2:
        none = "none of them has a label" if total else "there are none"
        found = f"all samples are of class {classes[0]!r}" if classes else none
        raise _wrong(f"it must yield samples of at least two classes, and {found}")
    require_one_class(counts, f"{FILE}: the label of own_source")
    given = {split for (split,) in database.execute("SELECT DISTINCT split FROM samples")}
    given -= {"train"}
    sql = "SELECT EXISTS (SELECT 1 FROM samples WHERE grouped IS NOT NULL)"
    (grouped,) = database.execute(sql).fetchone()
    return Source(
        classes,
        _items(database, {name: label for label, name in enumerate(classes)}),
        total,
        frozenset(given),
        grouped=bool(grouped),
        notes={"given_splits": sorted(given)},
        remarks=remark_on_twins(classes),
    )


def _items(database: sqlite3.Connection, label_of: Mapping[str, int]) -> Iterator[Item]:
    sql = "SELECT name, label, grouped, read FROM samples WHERE split = ? ORDER BY name"
    for split in SPLITS:  # one after the other, so that no sort carries what is read
        given = None if split == "train" else split
        for name, label, group, read in database.execute(sql, (split,)):
            with _told_in_one_line(name):
                content = pickle.loads(read)
            yield Item(name, label_of.get(label, -1), content, given, group)


def _yielded(load: Callable[[], Any], params: Mapping[str, Any]) -> Iterator[Any]:
    with _told_in_one_line():
        own_source = load()
        if not callable(own_source):
            raise InputError(f"{FILE} must have a function own_source(params)")
        found = own_source(params)
        if not isinstance(found, Iterable):
            raise _wrong(f"it must yield samples, got a {type(found).__name__}")
        yield from found


@contextmanager
def _told_in_one_line(sample: str = "") -> Iterator[None]:
    """InputError, with the line of src/yours/source.py, for what its code raises while `sample` is
    at work."""
    try:
        yield
    except (InputError, GateError, MemoryError):
        raise
    except Exception as error:
        lines = [
            frame.lineno
            for frame in traceback.extract_tb(error.__traceback__)
            if frame.filename.endswith(FILE)
        ]
        said = " ".join(str(error).split())[:200]
        if isinstance(error, SyntaxError) and (error.filename or "").endswith(FILE):
            lines, said = [error.lineno], error.msg
        at = f":{lines[-1]}" if lines else f": {sample}" if sample else ""
        raise InputError(f"{FILE}{at}: {type(error).__name__}: {said}") from None


def _named(
    sample: Any, number: int, root: Path, files: Files, without_file: Callable[[Any], Read]
) -> tuple[str, Read]:
    """What reports call a sample, and what reads it."""
    if not isinstance(sample, Sample):
        raise _wrong(f"it must yield Sample(...), got a {type(sample).__name__}")
    if not isinstance(sample.content, str | os.PathLike):
        if sample.name is None:
            raise _wrong(f"its sample {number} is no path of a file, and needs a name")
        return sample.name, without_file(sample.content)
    path = os.fspath(sample.content)
    if is_url(path):
        raise _wrong(f"{path} is an address, and nothing is downloaded: fetch it into prepare.path")
    inside = os.path.relpath(path, root)
    if inside == os.curdir or inside.split(os.sep)[0] == os.pardir:
        raise _wrong(
            f"{text_of(path)} does not lie in prepare.path ({root}), and DVC would not see an edit "
            "of it: set prepare.path to the folder of all that is read"
        )
    name = inside if sample.name is None else sample.name
    if refused := refuse_name(inside):
        return text_of(name), refused
    if through_a_link(str(root), os.path.dirname(inside)):
        return name, Rejected(
            "its path leads through a link to a folder, and DVC does not look into it",
            "put the folder itself there",
        )
    if not os.path.isfile(path):
        return name, Rejected(f"{FILE} names it, and there is no such file", "correct it there")
    return name, files.reader(path)


def _require_valid(sample: Sample, name: str) -> None:
    """InputError for a name, label, group or split that cannot be one."""
    values = {"name": name, "label": sample.label, "group": sample.group}
    for field, value in values.items():
        if value is None and field == "group":
            continue
        is_empty = isinstance(value, str) and not value.strip() and field != "label"
        if not isinstance(value, str) or is_empty or NO_TEXT.search(value):
            of = f" of {name}" if field != "name" else ""
            hint = " (several labels: this project trains one class a sample)"
            raise _wrong(
                f"the {field}{of} must be a text that is not empty, got {str(value)[:50]!r}, a "
                f"{type(value).__name__}{hint if isinstance(value, list | tuple | set) else ''}"
            )
    if sample.split not in (None, *SPLITS):
        raise _wrong(f"the split of {name} must be train, val, test or None, got {sample.split!r}")


def _pickled(read: Read, name: str) -> bytes:
    try:
        return pickle.dumps(read, pickle.HIGHEST_PROTOCOL)
    except Exception as error:  # each type has its own way to refuse
        said = " ".join(str(error).split())[:100]
        raise _wrong(
            f"{name} cannot be pickled for a worker process ({said}): give functools.partial of a "
            "function of the module in place of a lambda or an inner function, and no open file"
        ) from None


def _wrong(said: str) -> InputError:
    return InputError(f"{FILE}: own_source: {said}")
