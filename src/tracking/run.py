"""The MLflow run of a stage. The tracker never stops the work.

`log_metrics` appends to the journal on disk, `log_picture` writes to the outbox beside it; a thread
sends what is new every two seconds (src/tracking/journal/shipping.py). Whatever MLflow raises ends in one
line on stderr. What it did not take waits on disk and is sent by the next stage that opens the run,
or by src.sync.
"""

import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from src.plumbing import process
from src.plumbing.errors import InputError
from src.plumbing.stage import Stage
from src.tracking import continuation
from src.tracking.about import notes, system, uncommitted
from src.tracking.journal import opening, recorded
from src.tracking.journal.journal import Journal, Record, hold, journal_path, load_record, now, warn
from src.tracking.journal.outbox import Outbox
from src.tracking.journal.shipping import Shipper
from src.tracking.store import store
from src.tracking.store.address import reason
from src.tracking.untracked import Run

if TYPE_CHECKING:
    from mlflow import MlflowClient

NOTE_LENGTH = 8000  # characters: MLflow's limit for a tag


@contextmanager
def start(stage: Stage, kind: str = "") -> Iterator[Run]:
    """The run of a stage that begins, or goes on after it was killed, interrupted or failed; with
    `kind`, of this kind of machine only.

    Holds the lock of the stage's fingerprint until the block ends, also with tracking off. Raises
    InputError if the experiment was deleted in MLflow, nothing else.
    """
    with hold(stage.root, stage.fingerprint):
        if not stage.params["machine.tracking"]:
            yield Run()
            return
        old = load_record(stage.root, stage.fingerprint, store.name(stage.root))
        if old and old.state == "finished" and recorded.is_lost(stage, old.dvc):
            old.state = "killed"
        goes_on = old if old and old.state != "finished" else None
        run = TrackedRun(stage, stage.fingerprint, goes_on, own=True)
        run.connect(
            partial(continuation.begin, stage, old, kind), partial(continuation.description, stage)
        )
        with run.logging():
            if stage.name == "train":
                run.describe("")  # what changed can be read while it trains
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
        run = TrackedRun(stage, fingerprint, old, own=False)
        run.connect(
            partial(continuation.find, stage, old, fingerprint, model_md5),
            partial(continuation.restored_description, fingerprint, model_md5),
        )
        with run.logging():
            yield run


class TrackedRun(Run):
    """A run in MLflow; while the store cannot be opened it only keeps what it is told.

    `own`: whether the run ends with this process. `evaluate` writes into the run of `train` and
    does not change how that one ended.
    """

    def __init__(self, stage: Stage, fingerprint: str, record: Record | None, own: bool):
        self.stage, self.root, self.fingerprint = stage, stage.root, fingerprint
        self.record, self.own = record, own
        self._client: MlflowClient | None = None
        self._trouble = ""  # why the store could not be opened
        self._described = False
        self._ends = own  # whether the status in MLflow is to be set at the end

    def connect(
        self,
        open_run: Callable[["MlflowClient", str], tuple[Record, str]],
        describe: Callable[[], dict[str, Any]],
    ) -> None:
        """Open the store and the run in it: `open_run(client, experiment id)` returns the run's
        record and its status in MLflow. `describe()` tells what the run is to be, for the day when
        the store can be opened."""
        self._describe = describe
        try:
            client, experiment_id = store.open_store(self.root)
            self.record, status = open_run(client, experiment_id)
            self.record.save()
            opening.forget(self.root, self.record.fingerprint)
            self._ends = self.own or (self.record.state == "finished" and status != "FINISHED")
            self._client = client
        except InputError:
            raise
        except Exception as error:
            self._trouble = reason(error)

    @contextmanager
    def logging(self) -> Iterator[None]:
        """Keep the journal and the outbox and send from them while the block runs, then note how it
        ended. A run that this process opened gets samples of the machine, too."""
        # A run that has no id yet is known by its fingerprint, which this process holds.
        name = self.record.run_id if self.record else self.fingerprint
        self._journal = Journal(journal_path(self.root, name))
        self._outbox = Outbox(self.root, name)
        if self.record is None:
            self._try_to_keep("the run", self._describe_run)
        if self.record:  # a journal that was deleted begins anew
            self.record.position = min(self.record.position, self._journal.path.stat().st_size)
        self._shipper = Shipper(
            self.root, self._client, self.record, self._journal, self._outbox, self._trouble
        )
        if self.own and (difference := uncommitted.difference()):
            self._keep("provenance/uncommitted.diff", difference)
        self._shipper.start()
        step = self._journal.next_step(system.PREFIX)
        sampler = system.Sampler(self.root, self.log_metrics, step) if self.own else nullcontext()
        state = "killed"  # by KeyboardInterrupt, or by the signal that asks to terminate
        try:
            with sampler:
                yield
            state = "finished"
        except Exception as error:
            state = "failed"
            if self.own and not self._described:
                self.describe(f"**Failed**: {reason(error)}")
            raise
        finally:
            self._shipper.stop()
            self._end(state)
            self._journal.close()

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        try:
            self._journal.append(metrics, step)
        except Exception as error:  # a full disk, say: the training may still end well
            warn(f"cannot note {', '.join(metrics)} at step {step}: {reason(error)}")

    def log_picture(self, name: str, png: bytes) -> None:
        self._keep(name, png)

    def log_artifact(self, path: Path | str, folder: str = "") -> None:
        path = Path(path)
        name = f"{folder}/{path.name}" if folder else path.name
        if not path.is_file():
            warn(f"cannot log {path}: there is no such file")
        elif self._shipper.call(
            lambda client, run_id: client.log_artifact(run_id, str(path), folder or None)
        ):
            self._outbox.discard(name)
        else:
            self._keep(name, path)

    def log_model(self, folder: Path) -> None:
        files = [folder / "model.json", folder / "model.safetensors"]
        try:
            from src.tracking.serving import serving

            with tempfile.TemporaryDirectory(dir=self.root / ".cache", prefix="model-") as target:
                run_id = self.record.run_id if self.record else None
                serving.save(folder, Path(target), run_id)
                self._log_folder(Path(target), "model")
        except Exception as error:
            warn(f"the model of the run cannot be served: {reason(error)}")
            for file in files:  # still there to look at
                self.log_artifact(file, "model")

    def _log_folder(self, path: Path, folder: str) -> None:
        files = [file for file in path.rglob("*") if file.is_file()]
        names = {file: f"{folder}/{file.relative_to(path).as_posix()}" for file in files}
        sent = self._shipper.call(
            lambda client, run_id: client.log_artifacts(run_id, str(path), folder)
        )
        for file, name in names.items():
            if sent:
                self._outbox.discard(name)
            else:
                self._keep(name, file)

    def log_input(self, name: str, digest: str, context: str) -> None:
        if not self._shipper.call(
            lambda client, run_id: store.add_input(client, run_id, name, digest, context)
        ):
            self._try_to_keep(name, lambda: self._outbox.add_input(name, digest, context))

    def set_tags(self, tags: Mapping[str, Any]) -> None:
        # By way of the disk: one that waits since the server was down must not come last.
        try:
            self._outbox.add_tags({key: str(value) for key, value in tags.items()})
            self._shipper.call(self._outbox.send_tags)
        except Exception as error:
            warn(f"cannot keep the tags {', '.join(tags)}: {reason(error)}")

    def describe(self, markdown: str) -> None:
        self._described = bool(markdown)
        of_train = self.record is None or self.record.stage == "train"
        if of_train and self.stage.name != "overfit-check":
            try:
                markdown = notes.train_note(self.stage, self.fingerprint, markdown)
            except Exception as error:
                warn(f"cannot tell what changed: {reason(error)}")
        self.set_tags({"mlflow.note.content": markdown[:NOTE_LENGTH]})

    def _keep(self, name: str, content: bytes | Path) -> None:
        """Leave an artifact to the thread that sends."""
        self._try_to_keep(name, lambda: self._outbox.add(name, content))

    def _try_to_keep(self, name: str, keep: Callable[[], None]) -> None:
        try:
            keep()
        except Exception as error:  # a full disk, or a name that leads elsewhere
            warn(f"cannot keep {name}: {reason(error)}")

    def _describe_run(self) -> None:
        """Keep what the run is to be. `evaluate` leaves that of a training as it is."""
        kept = self._outbox.described_run()
        if self.own or not kept:
            start = {"start_time": kept["start_time"]} if kept else {}
            self._outbox.describe_run(**{**self._describe(), **start})

    def _end(self, state: str) -> None:
        sent = self._shipper.ship()
        if self._ends and not self._shipper.call(
            lambda client, run_id: client.set_terminated(run_id, state.upper()), sent
        ):
            end = {"state": state, "end_time": now()}
            self._try_to_keep("how the run ended", lambda: self._outbox.describe_run(**end))
        if self.own and self.record:
            self.record.state, self.record.dvc = state, process.own_dvc()
            self._try_to_keep("how the run ended", self.record.save)
        self._shipper.tell_the_rest()
