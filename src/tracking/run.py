"""The MLflow run of a stage. The tracker never stops the work.

`log_metrics` appends to the journal on disk, `log_image` to the outbox; a thread sends both
(src/tracking/journal/shipping.py), and the next stage that opens the run, or src.sync, the rest.
"""

import json
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from src.plumbing import identity
from src.plumbing.errors import InputError
from src.plumbing.hashes import md5_of
from src.plumbing.stage import Stage
from src.tracking import continuation
from src.tracking.about import description, provenance, system, uncommitted
from src.tracking.journal.journal import Record, hold, load_record, warn
from src.tracking.journal.outbox import Outbox
from src.tracking.journal.shipping import Shipper
from src.tracking.log import DESCRIPTION, MODEL_MD5, Log
from src.tracking.store import store
from src.tracking.store.address import reason

if TYPE_CHECKING:
    from mlflow import MlflowClient

LAST_SECONDS = 10.0  # for what a run that was asked to end still has to send (choice)
LONGEST = 8000  # characters of a description: MLflow's limit for a tag


@contextmanager
def start(
    stage: Stage, kind: str = "", afterwards: Callable[[], object] | None = None
) -> Iterator[Log]:
    """The run of a stage that begins, or goes on after it was killed, interrupted or failed; with
    `kind`, of this kind of machine only. Holds the lock of the stage's fingerprint in the block,
    also with tracking off. When that ended well and all was sent, which takes a while, it confirms
    the inputs once more and calls `afterwards`. Raises GateError if an input changed, InputError if
    the experiment was deleted in MLflow or keeps its files where none may be written, what the
    block and `afterwards` raise, and nothing else."""
    with hold(stage.root, stage.fingerprint):
        tracked = stage.params["machine.tracking"]
        with _own_run(stage, kind) if tracked else nullcontext(Log()) as log:
            yield log
        stage.confirm_inputs()
        if afterwards:
            afterwards()


@contextmanager
def _own_run(stage: Stage, kind: str) -> Iterator[Log]:
    old = load_record(stage.root, stage.fingerprint, store.name(stage.root))
    goes_on = old if old and old.goes_on else None
    run = StageRun(stage, stage.fingerprint, goes_on, own=True)
    run.connect(
        partial(continuation.begin, stage, old, kind), partial(continuation.description, stage)
    )
    with run.logging():
        if stage.name == "train":
            run.describe("")  # what changed can be read while it trains
        yield run


@contextmanager
def reopen(stage: Stage, fingerprint: str, model_md5: str) -> Iterator[Log]:
    """The run that trained the model with this fingerprint and md5, for `stage` to write into: by
    the local record, else the newest with both as tags, else a new one, tagged `restored`. Other
    data or params of `stage` on the same model open a child run. Holds the lock of `fingerprint`.
    Raises InputError as `start` does. A line on stderr says if the model in dvc.lock was not made
    from the inputs there."""
    if provenance.is_foreign_model():
        warn(
            f"{identity.MODEL} was not made from the inputs in dvc.lock, but from others: what "
            f"{stage.name} finds is noted in the run of those; `dvc repro --force train` makes one"
        )
    with hold(stage.root, fingerprint):
        if not stage.params["machine.tracking"]:
            yield Log()
            return
        old = load_record(stage.root, fingerprint, store.name(stage.root))
        run = StageRun(stage, fingerprint, old, own=False)
        run.connect(
            partial(continuation.find, stage, old, fingerprint, model_md5),
            partial(continuation.restored_description, fingerprint, model_md5),
        )
        with run.logging():
            yield run


class TrackedRun(Log):
    """A run in MLflow; while the store cannot be opened, all of it waits on disk. `own`: whether it
    begins and ends with this process, unlike that of `train` into which `evaluate` writes.
    `record`: None for a run that is to be made."""

    def __init__(self, root: Path, fingerprint: str, record: Record | None, own: bool):
        self.root, self.fingerprint, self.record, self.own = root, fingerprint, record, own
        self._described = False

    def connect(
        self,
        open_run: Callable[["MlflowClient", str], Record],
        describe: Callable[[], Mapping[str, Any]],
    ) -> None:
        """Open the store and the run in it: `open_run(client, experiment id)` returns its record.
        `describe()` says what the run is to be, for the day when the store can be opened."""
        client: MlflowClient | None = None
        trouble = ""  # why the store could not be opened
        try:
            client, experiment_id = store.open_store(self.root)
            store.require_folder(self.root, client, experiment_id)
            self.record = open_run(client, experiment_id)
            self.record.save()
        except InputError:
            raise
        except Exception as error:
            client, trouble = None, reason(error)
        outbox = Outbox(self.root, self.fingerprint)
        # `evaluate` leaves what a training said of its run as it is.
        if self.record is None and (self.own or not outbox.run()):
            self._try("keep the run", lambda: outbox.describe_run(describe()))
        # A run that has no id yet is known by its fingerprint, which this process holds.
        name = self.record.run_id if self.record else self.fingerprint
        self._shipper = Shipper(self.root, name, client, self.record, trouble)
        self._journal, self._outbox = self._shipper.journal, self._shipper.outbox

    @contextmanager
    def logging(self) -> Iterator[None]:
        """Keep the journal and the outbox and send from them while the block runs, then note how it
        ended. A run that this process opened gets samples of the machine, too."""
        self._patch = uncommitted.difference() if self.own else b""
        if self._patch:
            self._keep(uncommitted.ARTIFACT, self._patch)
        self._shipper.start()
        step = self._journal.next_step(system.PREFIX)
        samples = system.samples(self.root, self.log_metrics, step) if self.own else nullcontext()
        state = "killed"  # by KeyboardInterrupt, or by the signal that asks to terminate
        try:
            with samples:
                yield
            state = "finished"
        except Exception as error:
            state = "failed"
            if self.own and not self._described:
                self.describe(f"**Failed**: {reason(error)}")
            raise
        finally:
            # Whoever asked to terminate does not wait for a server that lets a call wait.
            end = threading.Thread(target=self._end, args=(state,), daemon=True)
            end.start()
            end.join(LAST_SECONDS if state == "killed" else None)
            if end.is_alive():
                self._shipper.warn_of_rest("the store does not answer")
            self._journal.close()

    def _end(self, state: str) -> None:
        self._shipper.stop()
        if self.own:
            self._try("note how the run ended", lambda: self._outbox.end_run(state))
        self._shipper.ship()
        if self.own and self.record:
            self.record.state = state
            self._try("note how the run ended", self.record.save)
        self._shipper.warn_of_rest()

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        what = f"note {', '.join(metrics)} at step {step}"
        self._try(what, lambda: self._journal.append(metrics, step))

    def log_image(self, name: str, png: bytes) -> None:
        self._keep(name, png)

    def log_artifact(self, path: Path | str, folder: str = "") -> None:
        path = Path(path)
        name = f"{folder}/{path.name}" if folder else path.name
        if not path.is_file():
            warn(f"cannot log {path}: there is no such file")
        elif self._shipper.call(
            lambda client, run_id: store.log_file(self.root, client, run_id, path, folder)
        ):
            self._outbox.discard(name)
        else:
            self._keep(name, path)

    def log_model(self, folder: Path) -> None:
        files = [folder / "model.json", folder / "model.safetensors"]
        try:
            from src.tracking.serving import serving

            with tempfile.TemporaryDirectory(dir=self.root / ".cache", prefix="model-") as target:
                serving.save(folder, Path(target), self.record.run_id if self.record else None)
                for file in sorted(path for path in Path(target).rglob("*") if path.is_file()):
                    below = file.parent.relative_to(target)
                    self.log_artifact(file, ("model" / below).as_posix())
        except Exception as error:
            warn(f"the model of the run cannot be served: {reason(error)}")
            for file in files:  # still there to look at
                self.log_artifact(file, "model")
        if files[1].is_file():
            self.set_tags({MODEL_MD5: md5_of(files[1])})

    def log_input(self, name: str, digest: str, context: str) -> None:
        if not self._shipper.call(
            lambda client, run_id: store.add_input(client, run_id, name, digest, context)
        ):
            self._try(f"keep {name}", lambda: self._outbox.add_input(name, digest, context))

    def set_tags(self, tags: Mapping[str, Any]) -> None:
        # By way of the disk: one that waits since the server was down must not come last.
        texts = {key: str(value) for key, value in tags.items()}
        self._try(f"keep the tags {', '.join(tags)}", lambda: self._outbox.add_tags(texts))
        self._shipper.call(self._outbox.send_tags)

    def describe(self, markdown: str) -> None:
        self._described = bool(markdown)
        try:
            text = self._description(markdown)
        except Exception as error:
            warn(f"cannot say what changed: {reason(error)}")
            text = markdown
        self.set_tags({DESCRIPTION: text[:LONGEST]})

    def _description(self, markdown: str) -> str:
        return markdown

    def _keep(self, name: str, content: bytes | Path) -> None:
        """Leave an artifact to the thread that sends."""
        self._try(f"keep {name}", lambda: self._outbox.add(name, content))

    def _try(self, what: str, act: Callable[[], object]) -> None:
        """Do something on disk; what cannot be done costs a line: the work may still end well."""
        try:
            act()
        except Exception as error:  # a full disk, or a name that leads elsewhere
            warn(f"cannot {what}: {reason(error)}")


class StageRun(TrackedRun):
    """The run that a stage writes into: its own, or that of the training with `fingerprint`."""

    def __init__(self, stage: Stage, fingerprint: str, record: Record | None, own: bool):
        super().__init__(stage.root, fingerprint, record, own)
        self.stage = stage

    def log_data(self, folder: str, splits: Sequence[str]) -> None:
        digest = self.stage.deps_md5[folder]
        for split in splits:
            context = split if self.own else f"{self.stage.name} {split}"
            self.log_input(f"{folder}:{split}", digest, context)
        if self.stage.name == "train":
            self._try(f"log what {folder} shows", lambda: self._log_for_people(Path(folder)))

    def _log_for_people(self, folder: Path) -> None:
        """The files of a packed data set but for the arrays and their tables."""
        splits = json.loads((folder / "meta.json").read_text(encoding="utf-8"))["shards"]
        tables = [f"{split}.csv" for split in splits]
        for path in sorted(folder.iterdir()):
            if path.is_file() and path.suffix != ".npy" and path.name not in tables:
                self.log_artifact(path, "data")

    def _description(self, markdown: str) -> str:
        """That of a run of train also says what changed and how to bring the result back."""
        run_id, stage = None, self.stage.name if self.own else "train"
        if self.record:
            run_id, stage = self.record.run_id, self.record.stage
        if stage != "train":
            return markdown
        if not self.own and (before := self._present_description()):
            return description.with_result(before, markdown)
        return description.of_training(self.stage, self.fingerprint, markdown, run_id, self._patch)

    def _present_description(self) -> str:
        """Empty if the run has none yet, or the store does not answer."""
        found = self._outbox.tags()  # what waits is newer than what the store has
        if DESCRIPTION not in found:
            self._shipper.call(lambda client, run: found.update(client.get_run(run).data.tags))
        return found.get(DESCRIPTION, "")
