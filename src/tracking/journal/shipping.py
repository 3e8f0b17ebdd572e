"""What a run sends: the points of its journal and what waits in its outbox, every two seconds and
at the end, from a thread of its own. Whatever MLflow raises ends in one line on stderr, and what
was not taken stays on disk."""

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from src.base.words import counted, either
from src.tracking.journal.journal import Journal, Point, Record, journal_path, warn
from src.tracking.journal.outbox import Outbox
from src.tracking.store.address import reason

if TYPE_CHECKING:
    from mlflow import MlflowClient

INTERVAL = 2.0  # seconds between two shipments
PAUSE = 30.0  # seconds until the next attempt after a failed one (choice)
BATCH = 1000  # points per call: MLflow's limit


class Shipper:
    """Sends for one run. `client`: None while the store cannot be opened, for the reason `trouble`;
    then nothing is sent. At most one call at a time."""

    def __init__(
        self,
        root: Path,
        name: str,
        client: "MlflowClient | None",
        record: Record | None,
        trouble: str = "",
    ):
        self.root, self.client, self.record = root, client, record
        self.journal, self.outbox = Journal(journal_path(root, name)), Outbox(root, name)
        if record:  # a journal that was deleted begins anew
            record.position = min(record.position, self.journal.path.stat().st_size)
        self._trouble = trouble  # why calls fail; empty while the store answers
        self._pause_until = 0.0  # by time.monotonic()
        self._named = (0, 0)  # how many waiting points and files the last line on stderr named
        self._refused: set[Path] = set()  # what was tried in vain: it goes last
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._ship_until_stopped, daemon=True)

    def start(self) -> None:
        if self._trouble:
            self._warn(self._trouble)
        self._thread.start()

    def stop(self) -> None:
        """End the thread. `ship` may be called after that."""
        self._stop.set()
        self._thread.join()

    def call(self, act: Callable[["MlflowClient", str], object], retry: bool = False) -> bool:
        """Do something with (client, run id); whether it worked. A server that fails after seconds
        gets a pause, unless `retry`: five files shall not take minutes."""
        if self.client is None or self.record is None:
            return False
        if not retry and time.monotonic() < self._pause_until:
            return False
        started = time.monotonic()
        try:
            with self._lock:
                act(self.client, self.record.run_id)
            self._trouble = ""
            return True
        except Exception as error:
            if not self._trouble:
                self._trouble = reason(error)
                self._warn(self._trouble)
            if time.monotonic() - started > INTERVAL:
                self._pause_until = time.monotonic() + PAUSE
            return False

    def ship(self) -> bool:
        """Send the points beyond the record's position, then what waits in the outbox, until
        something fails; whether nothing did."""
        try:
            return self._ship()
        except Exception as error:  # of this disk: `call` takes what MLflow raises
            if not self._trouble:
                self._trouble = reason(error)
                warn(f"cannot read what waits: {self._trouble}")
            return False

    def _ship(self) -> bool:
        while self.record:
            points, position = self.journal.read(self.record.position, BATCH)
            if position == self.record.position:
                break
            if not self.call(partial(_send_points, self.record, points, position), retry=True):
                return False
        for item in sorted(self.outbox.items(), key=lambda item: item in self._refused):
            if not self.call(partial(self.outbox.send, item), retry=True):
                self._refused.add(item)
                return False
        return True

    def waiting(self) -> tuple[int, int]:
        """How many points and how many files the store has not taken; tags are not counted."""
        position = self.record.position if self.record else 0
        return len(self.journal.read(position)[0]), len(self.outbox.files())

    def warn_of_rest(self, trouble: str = "the store did not take everything") -> None:
        """One line if something waits that no line has named yet."""
        with suppress(OSError):  # one line was said of that
            waiting = self.waiting()
            if any(waiting) and waiting != self._named:
                self._warn(trouble)

    def _ship_until_stopped(self) -> None:
        while not self._stop.wait(PAUSE if self._trouble else INTERVAL):
            self.ship()

    def _warn(self, trouble: str) -> None:
        self._named = points, files = self.waiting()
        journal = self.journal.path.relative_to(self.root).as_posix()
        outbox = self.outbox.path.relative_to(self.root).as_posix()
        more = f", {counted(files, 'file')} in {outbox}" if files else ""
        wait = f"{counted(points, 'point')} {either(points, 'waits', 'wait')}"
        warn(f"{trouble}; {wait} in {journal}{more}")


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
