"""What the tracker has not taken yet of a run: <main repository>/.cache/waiting/<run>.

Files, tags, names of data sets, how the run ended and, as long as the store has no run, what it is
to be. It outlives the process: whatever opens the run next, or src.sync, sends what waits.
"""

import json
import shutil
import threading
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from src.base.files import write_bytes
from src.tracking.journal.journal import now
from src.tracking.store import store

if TYPE_CHECKING:
    from mlflow import MlflowClient

# Beside the folder of files, where no file of a run can have its name.
TAGS, INPUTS, RUN = "tags.json", "inputs.json", "run.json"


class Outbox:
    """What waits for a run id, or for a fingerprint as long as its run has no id. Adding takes a
    write to disk and is possible beside `send`, which talks to the tracker."""

    def __init__(self, root: Path, name: str):
        self.root, self.path = root, _path(root, name)
        self._files = self.path / "files"
        self._tags, self._inputs, self._run = (self.path / name for name in (TAGS, INPUTS, RUN))
        self._lock = threading.Lock()  # never held while something is sent

    def add(self, name: str, content: bytes | Path) -> None:
        """Keep the artifact `name` (examples/epoch_005.png) in place of one that still waits.
        ValueError for a name that leads out of the run; OSError when the disk is full."""
        parts = PurePosixPath(name).parts
        if not parts or name.startswith("/") or ".." in parts:
            raise ValueError(f"{name!r} is no name of an artifact")
        data = content.read_bytes() if isinstance(content, Path) else content
        with self._lock:
            write_bytes(self._files / name, data)

    def discard(self, name: str) -> None:
        """Forget an artifact: a newer one of this name was sent."""
        with self._lock:
            (self._files / name).unlink(missing_ok=True)

    def add_tags(self, tags: Mapping[str, str]) -> None:
        """Keep tags, each in place of an earlier value that still waits."""
        with self._lock:
            _write(self._tags, {**self.tags(), **tags})

    def tags(self) -> dict[str, str]:
        """The tags that wait."""
        return dict(_read(self._tags, {}))

    def add_input(self, name: str, digest: str, context: str) -> None:
        """Keep the name of a data set."""
        with self._lock:
            _write(self._inputs, [*_read(self._inputs, []), [name, digest, context]])

    def describe_run(self, about: Mapping[str, Any]) -> None:
        """Keep what the run of a fingerprint is to be: `stage`, `name`, `params`, `tags`, `state`,
        `start_time` and, if it has ended, `end_time` (milliseconds). An earlier start stays: by it
        the run is found in the store if this process dies before the store has answered."""
        start = {key: self.run()[key] for key in ("start_time",) if key in self.run()}
        _write(self._run, {**about, **start})

    def end_run(self, state: str) -> None:
        """Keep how the run ended: finished, failed or killed."""
        _write(self._run, {**self.run(), "state": state, "end_time": now()})

    def run(self) -> dict[str, Any]:
        """What `describe_run` and `end_run` kept."""
        return dict(_read(self._run, {}))

    def forget_run(self) -> None:
        """Forget that: the run goes on."""
        self._run.unlink(missing_ok=True)

    def items(self) -> list[Path]:
        """What waits: how the run ended, then the tags, then the data sets, then the files."""
        ended = [self._run] if "end_time" in self.run() else []
        return ended + [path for path in (self._tags, self._inputs) if path.exists()] + self.files()

    def files(self) -> list[Path]:
        """The files that wait, by name."""
        try:
            found = [path for path in self._files.rglob("*") if path.is_file()]
        except OSError:  # removed meanwhile
            return []
        # A process that was killed while it wrote left .<name>.<pid>.tmp.
        return sorted(path for path in found if not path.name.endswith(".tmp"))

    def send(self, item: Path, client: "MlflowClient", run_id: str) -> None:
        """Send one of `items` and forget it, unless it was replaced meanwhile."""
        try:
            before = _state(item)
        except FileNotFoundError:  # sent by the other thread
            return
        if item == self._run:
            ended = self.run()
            client.set_terminated(run_id, ended["state"].upper(), ended["end_time"])
        elif item == self._tags:
            store.write(client, run_id, self.tags(), {})
        elif item == self._inputs:
            for name, digest, context in _read(item, []):
                store.add_input(client, run_id, name, digest, context)
        else:
            folder = item.parent.relative_to(self._files).as_posix()
            store.log_file(self.root, client, run_id, item, "" if folder == "." else folder)
        with self._lock:
            if item.exists() and _state(item) == before:
                item.unlink()

    def send_tags(self, client: "MlflowClient", run_id: str) -> None:
        """Send the tags that wait."""
        self.send(self._tags, client, run_id)


def run_to_be(
    stage: str, name: str, params: Mapping[str, str], tags: Mapping[str, str], ended: bool = False
) -> dict[str, Any]:
    """What a run is to be that begins now, and has `ended` too, for `Outbox.describe_run`."""
    return {
        "stage": stage,
        "name": name,
        "params": params,
        "tags": tags,
        "start_time": now(),
        **({"state": "finished", "end_time": now()} if ended else {"state": "running"}),
    }


def without_run(root: Path) -> list[str]:
    """The fingerprints of runs that no store has; what waits for others lies under their run id."""
    # A fingerprint has 64 hexadecimal digits (sha256), a run id of MLflow 32.
    names = sorted(path.name for path in _path(root, "").glob("?" * 64))
    return [name for name in names if Outbox(root, name).run()]


def add_waiting(root: Path, source: str, target: str, move: bool) -> None:
    """Give one outbox what waits in another one, but not what its run is; `move`: and empty that
    one. May be called again when the process died in it."""
    old, new = _path(root, source), _path(root, target)
    if not old.exists():
        return
    tags = {**_read(new / TAGS, {}), **_read(old / TAGS, {})}
    inputs = _read(new / INPUTS, [])
    inputs += [item for item in _read(old / INPUTS, []) if item not in inputs]
    shutil.copytree(old, new, dirs_exist_ok=True, ignore=shutil.ignore_patterns(RUN))
    if tags:
        _write(new / TAGS, tags)
    if inputs:
        _write(new / INPUTS, inputs)
    if move:
        shutil.rmtree(old)


def _path(root: Path, name: str) -> Path:
    return root / ".cache" / "waiting" / name


def _state(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_ino, status.st_mtime_ns


def _read(path: Path, otherwise: Any) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return otherwise


def _write(path: Path, value: Any) -> None:
    # Not write_json: it rounds floats, and these are texts already.
    write_bytes(path, json.dumps(value, ensure_ascii=False).encode(), durable=True)
