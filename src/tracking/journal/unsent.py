"""What waits on this machine for the tracker, sent later; and runs whose process is gone.

All is found on disk: a record per fingerprint, a journal and an outbox per run, and what a run is
to be. Whoever holds a fingerprint's lock writes into its run, so those are left alone.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from src.base.words import counted
from src.plumbing import locks
from src.tracking.journal.journal import (
    COPIED,
    Record,
    add_points,
    journal_path,
    lock_path,
    record_path,
    records,
)
from src.tracking.journal.outbox import Outbox, add_waiting, without_run
from src.tracking.journal.shipping import Shipper
from src.tracking.store import store
from src.tracking.store.address import reason

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

FAILURES = 3  # of runs one after the other, before the store counts as gone (choice)


@dataclass
class Sent:
    """What `send_all` did: `points` and `files` that the store took, `runs` that got some, `made`:
    new to the store, `closed`: whose process is gone, `busy`: left to theirs, `trouble`: a line for
    each run that lacks something, `failures`: how many of the last ones were refused."""

    runs: int = 0
    made: int = 0
    points: int = 0
    files: int = 0
    closed: int = 0
    busy: int = 0
    trouble: list[str] = field(default_factory=list)
    failures: int = 0


def send_all(root: Path) -> Sent:
    """Send all that waits for the present store. Raises what `store.open_store` raises. A server
    gets the time that MLflow gives it: one too slow for a stage is not too slow for ever."""
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "120")
    client, experiment_id = store.open_store(root)
    sent = Sent()
    for fingerprint in without_run(root):
        with locks.try_hold(lock_path(root, fingerprint)) as free:
            if not free:
                sent.busy += 1
                continue
            with _each_on_its_own(sent, f"the run of {fingerprint[:8]}"):
                record = make_run(root, client, experiment_id, fingerprint)
                sent.made += 1
                send_one(root, client, record, sent)
    for record in records(root, store.name(root)):
        with locks.try_hold(lock_path(root, record.fingerprint)) as free:
            if free:
                with _each_on_its_own(sent, f"run {record.run_id}"):
                    send_one(root, client, record, sent)
            elif _waits(root, record):
                sent.busy += 1
    return sent


@contextmanager
def _each_on_its_own(sent: Sent, name: str) -> Iterator[None]:
    """What the store refuses of one run is that one's trouble; several refusals are the store's."""
    try:
        yield
        sent.failures = 0
    except Exception as error:
        sent.trouble.append(f"{name}: {reason(error)}")
        sent.failures += 1
        if sent.failures >= FAILURES:
            raise


def close_the_dead(root: Path, client: "MlflowClient", experiment_id: str) -> None:
    """Mark the store's runs whose process is gone as killed; one that fails waits for next time."""
    with suppress(Exception):  # whatever MLflow raises
        for fingerprint in without_run(root):
            with locks.try_hold(lock_path(root, fingerprint)) as free:
                # It was killed between the answer of the store and its record.
                if free and _find_made(root, client, experiment_id, fingerprint):
                    make_run(root, client, experiment_id, fingerprint)
        for record in records(root, store.name(root)):
            if record.state == "running":
                with locks.try_hold(lock_path(root, record.fingerprint)) as free:
                    if free:
                        _close(client, record)


def make_run(
    root: Path,
    client: "MlflowClient",
    experiment_id: str,
    fingerprint: str,
    about: Mapping[str, Any] | None = None,
) -> Record:
    """Make the run that `about` describes (see `Outbox.describe_run`; None: as described before),
    and give it what waits for its fingerprint. If this dies half way, the next call finds the same
    run in the store and does the rest."""
    outbox = Outbox(root, fingerprint)
    if about is not None:
        outbox.describe_run(about)
    about = outbox.run()
    run = _find_made(root, client, experiment_id, fingerprint)
    if run is None:
        tags = {**about["tags"], "fingerprint": fingerprint}
        run = store.create_run(client, experiment_id, about["name"], tags, about["start_time"])
    else:
        client.update_run(run.info.run_id, status="RUNNING", name=about["name"])
    run_id = run.info.run_id
    store.write(client, run_id, about["tags"], about["params"])
    record = record_of(root, fingerprint, run, about["stage"], about["state"])
    record.save()
    if "end_time" in about:
        Outbox(root, run_id).describe_run({key: about[key] for key in ("state", "end_time")})
    take_over(root, fingerprint, run_id)
    return record


def _find_made(
    root: Path, client: "MlflowClient", experiment_id: str, fingerprint: str
) -> "Run | None":
    """The run that was made for a fingerprint without a record: known by when it was to begin."""
    start = int(Outbox(root, fingerprint).run()["start_time"])
    wanted = f"tags.fingerprint = '{fingerprint}' and attributes.start_time = {start}"
    found = client.search_runs([experiment_id], wanted, max_results=1)
    return found[0] if found else None


def record_of(root: Path, fingerprint: str, run: "Run", stage: str, state: str) -> Record:
    """A new record of a run in the present store."""
    info, path = run.info, record_path(root, fingerprint)
    where = store.name(root)
    record = Record(path, info.run_id, info.experiment_id, info.run_name, stage, state, store=where)
    record.settle()
    return record


def take_over(root: Path, name: str, run_id: str, move: bool = True) -> None:
    """Give a run what waits under another name, such as a fingerprint that had no run; `move`: and
    leave none there. May be called again when the process died in it."""
    add_points(root, name, run_id)
    add_waiting(root, name, run_id, move)
    if move:
        journal_path(root, name).unlink(missing_ok=True)


def send_one(root: Path, client: "MlflowClient", record: Record, sent: Sent) -> None:
    """Send what waits for one run, and close it if its process is gone."""
    if not _waits(root, record):
        return
    if store.stored_run(client, record.run_id) is None:
        if record.state == "running":
            _close(client, record)
        if _waits(root, record):
            sent.trouble.append(f"run {record.run_id} is not in the store any more")
        return
    shipper = Shipper(root, record.run_id, client, record)
    before = shipper.waiting()
    try:
        whole = shipper.ship()
        after = shipper.waiting()
        sent.points += before[0] - after[0]
        sent.files += before[1] - after[1]
        sent.runs += before != after
        if not whole:
            wait = f"{counted(after[0], 'point')} and {counted(after[1], 'file')} wait"
            sent.trouble.append(f"run {record.run_id}: {wait}")
        elif record.state == "running":
            sent.closed += 1
            _close(client, record)
    finally:
        shipper.journal.close()


def _waits(root: Path, record: Record) -> bool:
    if record.state == COPIED:
        return False
    journal = journal_path(root, record.run_id)
    points = journal.exists() and journal.stat().st_size > record.position
    return bool(points or Outbox(root, record.run_id).items() or record.state == "running")


def _close(client: "MlflowClient", record: Record) -> None:
    if store.stored_run(client, record.run_id):  # it may have been deleted there
        client.set_terminated(record.run_id, "KILLED")
    record.state = "killed"
    record.save()
