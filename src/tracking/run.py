"""The MLflow run of a stage. The tracker never stops the work.

`log_metrics` appends to the journal on disk; a thread sends what is new every two seconds. Whatever
MLflow raises ends in one line on stderr, and the journal keeps the points.
"""

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from src.errors import InputError
from src.stage import Stage
from src.tracking import continuation, store
from src.tracking.address import reason
from src.tracking.journal import (
    Journal,
    Point,
    Record,
    hold,
    journal_path,
    load_record,
    warn,
)

if TYPE_CHECKING:
    from mlflow import MlflowClient

INTERVAL = 2.0  # seconds between two shipments
PAUSE = 30.0  # seconds until the next attempt after a failed one (choice)
BATCH = 1000  # points per call: MLflow's limit
NOTE_LENGTH = 8000  # characters: MLflow's limit for a tag


class Run:
    """What a stage may tell the tracker. This one, for `machine.tracking: false`, drops it all."""

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """Note values such as {"train/loss": 0.3} at a step. Takes microseconds, never raises."""

    def log_artifact(self, path: Path | str, folder: str = "") -> None:
        """Copy a file into the run, below `folder`. Not for a loop: it waits for the server."""

    def log_input(self, name: str, digest: str, context: str) -> None:
        """Name a data set that the run read: `digest` its md5 as DVC writes it, `context` what it
        was read for (training, validation, test)."""

    def set_tags(self, tags: Mapping[str, Any]) -> None:
        """Set tags; values become text."""

    def describe(self, markdown: str) -> None:
        """The description at the head of the run's page."""


@contextmanager
def start(stage: Stage) -> Iterator[Run]:
    """The run of a stage that begins, or goes on after it was killed, interrupted or failed.

    Holds the lock of the stage's fingerprint until the block ends, also with tracking off. Raises
    InputError if the experiment was deleted in MLflow, nothing else.
    """
    with hold(stage.root, stage.fingerprint):
        if not stage.params["machine.tracking"]:
            yield Run()
            return
        old = load_record(stage.root, stage.fingerprint, store.name(stage.root))
        goes_on = old if old and old.state != "finished" else None
        run = TrackedRun(stage.root, stage.fingerprint, goes_on, own=True)
        run.connect(partial(continuation.begin, stage, old))
        with run.logging():
            yield run


@contextmanager
def reopen(stage: Stage, fingerprint: str, model_md5: str) -> Iterator[Run]:
    """The run that trained the model with this fingerprint and md5, for `stage` to write into.

    The local record knows it, else the newest run with both as tags; else a run of its own, tagged
    `restored`, takes its place. Other data or params of `stage` on the same model open a child run.
    Holds the lock of `fingerprint`; raises as `start` does.
    """
    with hold(stage.root, fingerprint):
        if not stage.params["machine.tracking"]:
            yield Run()
            return
        old = load_record(stage.root, fingerprint, store.name(stage.root))
        run = TrackedRun(stage.root, fingerprint, old, own=False)
        run.connect(partial(continuation.find, stage, old, fingerprint, model_md5))
        with run.logging():
            yield run


class TrackedRun(Run):
    """A run in MLflow; while the store cannot be opened it only keeps points.

    `own`: whether the run ends with this process. `evaluate` writes into the run of `train` and
    does not change how that one ended.
    """

    def __init__(self, root: Path, fingerprint: str, record: Record | None, own: bool):
        self.root, self.fingerprint, self.record, self.own = root, fingerprint, record, own
        self._client: MlflowClient | None = None
        self._trouble = ""  # why calls fail; empty while the store answers
        self._pause_until = 0.0  # by time.monotonic()
        self._told = 0  # how many waiting points the last line on stderr named
        self._ends = False  # whether the status in MLflow is to be set at the end
        self._lock = threading.Lock()  # one call at a time
        self._stop = threading.Event()

    def connect(self, open_run: Callable[["MlflowClient", str], tuple[Record, str]]) -> None:
        """Open the store and the run in it: `open_run(client, experiment id)` returns the run's
        record and its status in MLflow."""
        try:
            client, experiment_id = store.open_store(self.root)
            self.record, status = open_run(client, experiment_id)
            self.record.save()
            self._ends = self.own or (self.record.state == "finished" and status != "FINISHED")
            self._client = client
        except InputError:
            raise
        except Exception as error:
            self._trouble = reason(error)

    @contextmanager
    def logging(self) -> Iterator[None]:
        """Keep the journal and send from it while the block runs, then note how it ended."""
        # A run that has no id yet is known by its fingerprint, which this process holds.
        name = self.record.run_id if self.record else self.fingerprint
        self._journal = Journal(journal_path(self.root, name))
        if self.record:  # a journal that was deleted begins anew
            self.record.position = min(self.record.position, self._journal.path.stat().st_size)
        if self._trouble:
            self._tell(self._trouble)
        shipper = threading.Thread(target=self._ship_until_stopped, daemon=True)
        shipper.start()
        state = "killed"  # by KeyboardInterrupt, or by the signal that asks to terminate
        try:
            yield
            state = "finished"
        except Exception:
            state = "failed"
            raise
        finally:
            self._stop.set()
            shipper.join()
            self._end(state)
            self._journal.close()

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        try:
            self._journal.append(metrics, step)
        except Exception as error:  # a full disk, say: the training may still end well
            warn(f"cannot note {', '.join(metrics)} at step {step}: {reason(error)}")

    def log_artifact(self, path: Path | str, folder: str = "") -> None:
        self._call(lambda client, run_id: client.log_artifact(run_id, str(path), folder or None))

    def log_input(self, name: str, digest: str, context: str) -> None:
        self._call(lambda client, run_id: store.add_input(client, run_id, name, digest, context))

    def set_tags(self, tags: Mapping[str, Any]) -> None:
        self._call(lambda client, run_id: store.write(client, run_id, tags, {}))

    def describe(self, markdown: str) -> None:
        self.set_tags({"mlflow.note.content": markdown[:NOTE_LENGTH]})

    def _call(self, act: Callable[["MlflowClient", str], object], retry: bool = False) -> bool:
        """Do something with (client, run id); whether it worked. A server that let a call wait for
        seconds and then failed gets a pause, unless `retry`: five pictures shall not take minutes.
        """
        if self._client is None or self.record is None:
            return False
        if not retry and time.monotonic() < self._pause_until:
            return False
        started = time.monotonic()
        try:
            with self._lock:
                act(self._client, self.record.run_id)
            self._trouble = ""
            return True
        except Exception as error:
            if not self._trouble:
                self._trouble = reason(error)
                self._tell(self._trouble)
            if time.monotonic() - started > INTERVAL:
                self._pause_until = time.monotonic() + PAUSE
            return False

    def _ship_until_stopped(self) -> None:
        while not self._stop.wait(PAUSE if self._trouble else INTERVAL):
            self._ship()

    def _ship(self) -> None:
        """Send what the journal has beyond the record's position."""
        while self.record:
            points, position = self._journal.read(self.record.position, BATCH)
            if position == self.record.position:
                return
            if not self._call(partial(_send_points, self.record, points, position), retry=True):
                return

    def _end(self, state: str) -> None:
        self._ship()
        waiting = self._waiting()
        if self._ends:
            status = state.upper()
            self._call(lambda client, run_id: client.set_terminated(run_id, status), not waiting)
        if self.own and self.record:
            self.record.state = state
            try:
                self.record.save()
            except OSError as error:
                warn(reason(error))
        if waiting and waiting != self._told:
            self._tell("the store did not take everything")

    def _waiting(self) -> int:
        return len(self._journal.read(self.record.position if self.record else 0)[0])

    def _tell(self, trouble: str) -> None:
        self._told = self._waiting()
        journal = self._journal.path.relative_to(self.root).as_posix()
        warn(f"{trouble}; {self._told} points wait in {journal}")


def _send_points(
    record: Record, points: list[Point], position: int, client: "MlflowClient", run_id: str
) -> None:
    from mlflow.entities import Metric

    if points:
        metrics = [Metric(point.key, point.value, point.time, point.step) for point in points]
        client.log_batch(run_id, metrics=metrics)
    # A kill between the two sends the batch again: MLflow stores the same point of time once.
    record.position = position
    record.save()
