"""What waits on this machine for the tracker, sent later; and runs whose process is gone.

Everything is found on disk: a record per fingerprint, a journal and an outbox per run, and, for a
run that no store has yet, what it is to be. Whoever holds a fingerprint's lock writes into its run,
so those are left alone.
"""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from src import process
from src.tracking import store
from src.tracking.journal import Journal, Record, journal_path, lock_path, record_path, records
from src.tracking.outbox import Outbox, add_waiting, outboxes
from src.tracking.shipping import Shipper

if TYPE_CHECKING:
    from mlflow import MlflowClient

FINGERPRINT_LENGTH = 64  # hexadecimal digits of a sha256; a run id of MLflow has 32


@dataclass
class Sent:
    """What `send` did: `points` and `files` that the store took, `runs` that got some, `made`: runs
    that the store did not have before, `closed`: whose process is gone, `busy`: left to theirs,
    `trouble`: a line for each run that did not get everything."""

    runs: int = 0
    made: int = 0
    points: int = 0
    files: int = 0
    closed: int = 0
    busy: int = 0
    trouble: list[str] = field(default_factory=list)


def send(root: Path) -> Sent:
    """Send all that waits for the present store. Raises what `store.open_store` raises.

    Nothing waits for this: a server gets the time to answer that MLflow would give it, so that one
    that is too slow for a stage is not too slow for ever.
    """
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "120")
    client, experiment_id = store.open_store(root)
    sent = Sent()
    for fingerprint in _unborn(root):
        with process.try_hold(lock_path(root, fingerprint)) as free:
            if not free:
                sent.busy += 1
                continue
            record = _create(root, client, experiment_id, fingerprint)
            sent.made += 1
            _send_one(root, client, record, sent)
    for record in records(root, store.name(root)):
        with process.try_hold(lock_path(root, record.fingerprint)) as free:
            if free:
                _send_one(root, client, record, sent)
            elif _waits(root, record):
                sent.busy += 1
    return sent


def close_the_dead(root: Path, client: "MlflowClient") -> None:
    """Say of each run in the present store whose process is gone that it was killed."""
    for record in records(root, store.name(root)):
        if record.state == "running":
            with process.try_hold(lock_path(root, record.fingerprint)) as free:
                if free:
                    _close(client, record)


def _send_one(root: Path, client: "MlflowClient", record: Record, sent: Sent) -> None:
    """Send what waits for one run, and say how it ended if the store does not know yet."""
    if not _waits(root, record):
        return
    if store.stored_run(client, record.run_id) is None:
        sent.trouble.append(f"run {record.run_id} is not in the store any more")
        return
    journal, outbox = Journal(journal_path(root, record.run_id)), Outbox(root, record.run_id)
    record.position = min(record.position, journal.path.stat().st_size)
    shipper = Shipper(root, client, record, journal, outbox, "")
    before = shipper.waiting()
    try:
        whole = shipper.ship()
        after = shipper.waiting()
        sent.points += before[0] - after[0]
        sent.files += before[1] - after[1]
        sent.runs += before != after
        if not whole:
            sent.trouble.append(f"run {record.run_id}: {after[0]} points and {after[1]} files wait")
            return
        if record.state == "running":
            sent.closed += 1
            _close(client, record)
        elif end := outbox.described_run():
            client.set_terminated(record.run_id, end["state"].upper(), end["end_time"])
            outbox.forget_run()
    finally:
        journal.close()


def _waits(root: Path, record: Record) -> bool:
    outbox = Outbox(root, record.run_id)
    journal = journal_path(root, record.run_id)
    points = journal.exists() and journal.stat().st_size > record.position
    return bool(points or outbox.items() or outbox.described_run() or record.state == "running")


def _close(client: "MlflowClient", record: Record) -> None:
    client.set_terminated(record.run_id, "KILLED")
    record.state = "killed"
    record.save()


def _unborn(root: Path) -> list[str]:
    """The fingerprints of runs that no store has; what waits for others lies under their run id."""
    return [
        name
        for name in outboxes(root)
        if len(name) == FINGERPRINT_LENGTH and Outbox(root, name).described_run()
    ]


def _create(root: Path, client: "MlflowClient", experiment_id: str, fingerprint: str) -> Record:
    """Make the run that was not to be had when its stage ran, and give it what waits."""
    about = Outbox(root, fingerprint).described_run()
    run = client.create_run(
        experiment_id, about["start_time"], dict(about["tags"]), run_name=about["name"]
    )
    run_id = run.info.run_id
    store.write(client, run_id, {}, about["params"])
    record = Record(
        record_path(root, fingerprint), run_id, experiment_id, about["name"], about["stage"],
        about["state"], store=store.name(root),
    )  # fmt: skip
    points = journal_path(root, fingerprint)
    if points.exists():
        points.rename(journal_path(root, run_id))
    add_waiting(root, fingerprint, run_id, move=True)
    if "end_time" in about:
        ending = {"state": about["state"], "end_time": about["end_time"]}
        Outbox(root, run_id).describe_run(**ending)
    record.save()
    return record
