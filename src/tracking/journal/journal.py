"""What is kept on disk before anything is sent: the points of a run, its record, and its lock.

It lies in <main repository>/.cache, so it outlives temporary workspaces and can be sent later.
"""

import hashlib
import json
import os
import re
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, fields
from pathlib import Path

from src.base.files import write_json
from src.plumbing import locks

COPIED = "copied"


@dataclass(frozen=True)
class Point:
    """One value of one metric; `time` in milliseconds since 1970."""

    key: str
    value: float
    step: int
    time: int


def now() -> int:
    """Milliseconds since 1970, as MLflow counts time."""
    return time.time_ns() // 1_000_000


def journal_path(root: Path, name: str) -> Path:
    """The journal of a run id, or of a fingerprint as long as its run has no id."""
    return root / ".cache" / "journal" / f"{name}.jsonl"


class Journal:
    """An append-only file, a point per line: {"key", "value", "step", "time"}. A value of a key at
    a step is there once, also across processes: a resumed run may log its last steps again."""

    def __init__(self, path: Path):
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        # Unbuffered: a point is with the operating system when append returns, so it survives a
        # kill. Not fsynced: what a power cut takes, the training notes again from its checkpoint.
        self._file = open(path, "ab", buffering=0)  # noqa: SIM115 - open for the whole run
        _cut_torn_line(path)
        self._lock = threading.Lock()
        self._values: dict[tuple[str, int], set[str]] = {}
        self._remember(self.read(0)[0])

    def append(self, metrics: Mapping[str, float], step: int) -> None:
        """Add the values of `metrics` at `step`; a value that differs from an earlier one of the
        same key and step is added with a warning. Raises OSError when the disk is full; then none
        of them is there, and they may be added again."""
        time_of_point = now()
        with self._lock:  # the loop and the thread that samples the machine
            new = []
            for key, value in metrics.items():
                known = self._values.get((key, step), set())
                if repr(float(value)) in known:  # as text: nan is equal to nan
                    continue
                if known:
                    warn(f"{key} at step {step} was {', '.join(sorted(known))}, now {value!r}")
                new.append(Point(key, float(value), step, time_of_point))
            self._write("".join(json.dumps(vars(point)) + "\n" for point in new).encode())
            self._remember(new)

    def _remember(self, points: list[Point]) -> None:
        for point in points:
            self._values.setdefault((point.key, point.step), set()).add(repr(point.value))

    def _write(self, data: bytes) -> None:
        """Add whole lines or nothing: a disk that fills up takes the first part of them."""
        size = os.fstat(self._file.fileno()).st_size
        try:
            while data:
                data = data[self._file.write(data) :]
        except OSError:
            os.ftruncate(self._file.fileno(), size)
            raise

    def next_step(self, prefix: str) -> int:
        """The step after the last one of the keys that begin with `prefix`; 0 if there is none."""
        return max((step + 1 for key, step in self._values if key.startswith(prefix)), default=0)

    def read(self, position: int, limit: int | None = None) -> tuple[list[Point], int]:
        """The points from byte `position` on, at most `limit`, and the position behind them."""
        points: list[Point] = []
        if not self.path.exists():  # deleted while the run goes on
            return points, position
        with open(self.path, "rb") as file:
            file.seek(position)
            for line in file:
                if not line.endswith(b"\n"):  # being written
                    break
                position += len(line)
                if point := _parse(line):
                    points.append(point)
                if len(points) == limit:
                    break
        return points, position

    def close(self) -> None:
        self._file.close()


def add_points(root: Path, source: str, target: str) -> None:
    """Add the points of one journal to another one that is not being written; each once."""
    old, new = journal_path(root, source), journal_path(root, target)
    if not old.exists():
        return
    with open(new, "ab") as file:
        _cut_torn_line(new)
        known = set(new.read_bytes().splitlines(keepends=True))
        lines = old.read_bytes().splitlines(keepends=True)
        file.writelines(line for line in lines if line.endswith(b"\n") and line not in known)


def _cut_torn_line(path: Path) -> None:
    """Cut what a crash left behind the last whole line."""
    content = path.read_bytes()
    whole = content.rfind(b"\n") + 1
    if whole < len(content):
        os.truncate(path, whole)


def _parse(line: bytes) -> Point | None:
    """The point on a line; None for one that a power cut or a full disk spoilt."""
    try:
        return Point(**json.loads(line))
    except (ValueError, TypeError):
        return None


@dataclass
class Record:
    """What this machine knows of the MLflow run of a fingerprint. `state`: running (also after a
    kill), failed, killed or finished, or copied: it is not finished, and in the hands of the
    project that this is a copy of; `position`: the bytes of the journal that the tracker has;
    `store`: `store.name` of where the run is; `project`: the folder of the project that made it."""

    path: Path
    run_id: str
    experiment_id: str
    name: str
    stage: str
    state: str
    position: int = 0
    store: str = ""
    project: str = field(default="", compare=False)

    @property
    def fingerprint(self) -> str:
        return self.path.stem

    @property
    def goes_on(self) -> bool:
        """Whether the next process with this fingerprint writes into the run."""
        return self.state not in ("finished", COPIED)

    def settle(self) -> None:
        """Find out whose the run is: a project that was moved keeps its runs; of one that was
        copied with `cp` the original does, unless the store was copied, too."""
        here = self.path.parents[2].resolve()
        before = Path(self.project or here)
        is_copy = (before / self.path.relative_to(self.path.parents[2])).is_file()
        if before == here or re.match("sqlite:///[^/]", self.store) or not is_copy:
            self.project = str(here)
        elif self.goes_on:
            self.state = COPIED

    def save(self) -> None:
        """Write it to `path`. A record of another store that is there is kept beside it."""
        other = _read_record(self.path, self.path)
        if other and other.store and other.store != self.store:
            os.replace(self.path, _aside(self.path, other.store))
        values = {key: value for key, value in vars(self).items() if key != "path"}
        write_json(self.path, values, durable=True)


def record_path(root: Path, fingerprint: str) -> Path:
    return root / ".cache" / "runs" / f"{fingerprint}.json"


def records(root: Path, store: str) -> list[Record]:
    """The records of all runs in `store`."""
    files = sorted((root / ".cache" / "runs").glob("*.json"))
    # <fingerprint>.json, or <fingerprint>-<store>.json while another store's is in use.
    found = [_read_record(file, record_path(root, file.stem.split("-")[0])) for file in files]
    return [record for record in found if record and record.store in ("", store)]


def load_record(root: Path, fingerprint: str, store: str) -> Record | None:
    """The record of a fingerprint's run in `store`; None if there is none that can be read."""
    record = _last_record(root, fingerprint)
    if record and record.store in ("", store):  # written before records named their store
        record.store = store
        return record
    path = record_path(root, fingerprint)
    return _read_record(_aside(path, store), path)


def finished_since(root: Path, fingerprint: str, time: float) -> bool:
    """Whether the last run, in whatever store, ended well after `time` (seconds since 1970)."""
    record = _last_record(root, fingerprint)
    return bool(record and record.state == "finished" and record.path.stat().st_mtime >= time)


def record_elsewhere(root: Path, fingerprint: str, store: str) -> Record | None:
    """The last record of a fingerprint, if its run is in another store than `store`."""
    record = _last_record(root, fingerprint)
    return record if record and record.store not in ("", store) else None


def _last_record(root: Path, fingerprint: str) -> Record | None:
    path = record_path(root, fingerprint)
    return _read_record(path, path)


def _aside(path: Path, store: str) -> Path:
    """Where the record of a store is kept while that of another one is in use."""
    return path.with_name(f"{path.stem}-{hashlib.sha256(store.encode()).hexdigest()[:8]}.json")


def _read_record(file: Path, path: Path) -> Record | None:
    """The record in `file`, to be saved to `path`."""
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
        known = {item.name for item in fields(Record)}  # earlier versions wrote others, too
        record = Record(path, **{key: value for key, value in values.items() if key in known})
        record.settle()
        return record
    except (OSError, ValueError, TypeError, AttributeError):
        return None


def lock_path(root: Path, fingerprint: str) -> Path:
    return root / ".cache" / "locks" / f"{fingerprint}.lock"


def hold(root: Path, fingerprint: str) -> AbstractContextManager[None]:
    """Keep the journal, the record and the checkpoint of a fingerprint to this process; wait, and
    say for whom, while another one holds them."""
    return locks.hold(lock_path(root, fingerprint), "works on the same inputs")


def warn(message: str) -> None:
    """One line on stderr, in place of a progress bar that may stand there."""
    start = "\r\x1b[K" if sys.stderr.isatty() else ""
    print(f"{start}tracking: {message}", file=sys.stderr, flush=True)
