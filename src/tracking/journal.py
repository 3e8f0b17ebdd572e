"""What is kept on disk before anything is sent: the points of a run, its record, and its lock.

All of it lies in <main repository>/.cache, so that it outlives temporary workspaces, and is enough
to send later what a tracking server did not take.
"""

import json
import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from src.files import write_json, write_text


@dataclass(frozen=True)
class Point:
    """One value of one metric; `time` in milliseconds since 1970."""

    key: str
    value: float
    step: int
    time: int


def journal_path(root: Path, name: str) -> Path:
    """The journal of a run id, or of a fingerprint as long as its run has no id."""
    return root / ".cache" / "journal" / f"{name}.jsonl"


class Journal:
    """An append-only file with one point per line, {"key", "value", "step", "time"}.

    The same value of the same key at the same step is appended once, also across processes, so a
    resumed run may log its last steps again.
    """

    def __init__(self, path: Path):
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        # Unbuffered: a point is with the operating system when append returns, so it survives a
        # kill. Not fsynced: after a power cut the checkpoint is older than the points anyway.
        self._file = open(path, "ab", buffering=0)  # noqa: SIM115 - open for the whole run
        _cut_torn_line(path)
        self._values: dict[tuple[str, int], set[str]] = {}
        for point in self.read(0)[0]:
            self._values.setdefault((point.key, point.step), set()).add(repr(point.value))

    def append(self, metrics: Mapping[str, float], step: int) -> None:
        """Add the values of `metrics` at `step`; a value that differs from an earlier one of the
        same key and step is added with a warning. Raises OSError when the disk is full."""
        now = time.time_ns() // 1_000_000
        lines = []
        for key, value in metrics.items():
            value = float(value)
            known = self._values.setdefault((key, step), set())
            if repr(value) in known:  # as text: nan is equal to nan
                continue
            if known:
                warn(f"{key} at step {step} was {', '.join(sorted(known))}, now {value!r}")
            known.add(repr(value))
            lines.append(json.dumps({"key": key, "value": value, "step": step, "time": now}) + "\n")
        if lines:
            self._file.write("".join(lines).encode())

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
    """What this machine knows of the MLflow run of a fingerprint.

    `state` is running (also after a kill), failed, killed or finished; `position` is the number of
    bytes of the journal that the tracker has taken.
    """

    path: Path
    run_id: str
    experiment_id: str
    name: str
    stage: str
    state: str
    position: int = 0

    def save(self) -> None:
        fields = {key: value for key, value in vars(self).items() if key != "path"}
        write_json(self.path, fields)


def record_path(root: Path, fingerprint: str) -> Path:
    return root / ".cache" / "runs" / f"{fingerprint}.json"


def load_record(root: Path, fingerprint: str) -> Record | None:
    """The record of a fingerprint; None if there is none that can be read."""
    path = record_path(root, fingerprint)
    try:
        return Record(path, **json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


@contextmanager
def hold(root: Path, fingerprint: str) -> Iterator[None]:
    """Keep the journal, the record and the checkpoint of a fingerprint to this process; wait, and
    say for whom, while another one holds them."""
    from filelock import FileLock, Timeout

    path = root / ".cache" / "locks" / f"{fingerprint}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    holder = path.with_suffix(".pid")
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        pid = holder.read_text() if holder.exists() else "?"
        warn(f"process {pid} works on the same inputs; waiting until it ends", "")
        lock.acquire(poll_interval=0.5)
    try:
        write_text(holder, str(os.getpid()))
        yield
    finally:
        lock.release()


def warn(message: str, prefix: str = "tracking: ") -> None:
    """One line on stderr, in place of a progress bar that may stand there."""
    start = "\r\x1b[K" if sys.stderr.isatty() else ""
    print(f"{start}{prefix}{message}", file=sys.stderr, flush=True)
