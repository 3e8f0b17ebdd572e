"""A run is made once, also when the process dies between the store's answer and its record.

Before the store is asked, a note on disk says when the run is to begin; whoever opens a run of this
fingerprint next finds the one that was made by that time, to the millisecond.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from src.base.files import write_json
from src.plumbing import locks
from src.tracking.journal.journal import Record, lock_path, now, record_path
from src.tracking.journal.outbox import Outbox
from src.tracking.store import store

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

OWN_RUN = ("overfit-check", "train")  # the stages that open a run and end with it


def open_run(
    root: Path,
    client: "MlflowClient",
    experiment_id: str,
    name: str,
    tags: Mapping[str, Any],
    params: Mapping[str, str],
    start: int | None = None,
) -> "Run":
    """A new run with these tags, one of which is `fingerprint`; or the one that was begun. `start`:
    when it began, in milliseconds, None for now. Whoever has saved its record calls `forget`."""
    fingerprint = str(tags["fingerprint"])
    run = _begun(root, client, fingerprint)
    if run is None:
        start = now() if start is None else start
        place = {"store": store.name(root), "experiment": experiment_id, "start_time": start}
        write_json(_note(root, fingerprint), place, durable=True)
        run = store.create_run(client, experiment_id, name, tags, start)
    else:
        client.update_run(run.info.run_id, status="RUNNING", name=name)
    store.write(client, run.info.run_id, tags, params)
    return run


def forget(root: Path, fingerprint: str) -> None:
    _note(root, fingerprint).unlink(missing_ok=True)


def recover(root: Path, client: "MlflowClient") -> None:
    """Give each run that ends with its stage and was begun by a process which is gone a record, so
    that it can be closed. One whose stage went on without it stays: what waits for it leads to it.
    """
    for note in _note(root, "").parent.glob("*.json"):
        fingerprint = note.stem
        if Outbox(root, fingerprint).described_run():
            continue
        with locks.try_hold(lock_path(root, fingerprint)) as free:
            run = _begun(root, client, fingerprint) if free else None
            if run and run.data.tags.get("stage") in OWN_RUN:
                info, stage = run.info, run.data.tags["stage"]
                Record(
                    record_path(root, fingerprint), info.run_id, info.experiment_id, info.run_name,
                    stage, "running", store=store.name(root),
                ).save()  # fmt: skip
                forget(root, fingerprint)


def _begun(root: Path, client: "MlflowClient", fingerprint: str) -> "Run | None":
    """The run that the present store made for the note of a fingerprint."""
    try:
        note = json.loads(_note(root, fingerprint).read_text(encoding="utf-8"))
        place, experiment, start = note["store"], note["experiment"], note["start_time"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if place != store.name(root):
        return None
    wanted = f"tags.fingerprint = '{fingerprint}' and attributes.start_time = {int(start)}"
    found = client.search_runs([experiment], wanted, max_results=1)
    return found[0] if found else None


def _note(root: Path, fingerprint: str) -> Path:
    return root / ".cache" / "runs" / "opening" / f"{fingerprint}.json"
