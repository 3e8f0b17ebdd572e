"""Which MLflow run a stage writes into.

By the local record alone, never by searching a shared server for a run that may be somebody
else's; only `evaluate` searches, for the run that trained a model which was made elsewhere.
"""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from src.plumbing.stage import Stage
from src.tracking.about import provenance
from src.tracking.journal import opening
from src.tracking.journal.journal import (
    Record,
    add_points,
    load_record,
    now,
    record_elsewhere,
    record_path,
    warn,
)
from src.tracking.journal.leftovers import Sent, close_the_dead, send_one, take_over
from src.tracking.journal.outbox import Outbox, add_waiting
from src.tracking.lookup import KIND
from src.tracking.store import store

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run


def begin(
    stage: Stage, old: Record | None, kind: str, client: "MlflowClient", experiment_id: str
) -> tuple[Record, str]:
    """The run of `old` if it did not finish, else a new one, as (record, status in MLflow). A run
    of another kind of machine than `kind` is not gone on with either: the bits differ, and so its
    points would be doubled; an empty `kind` asks for none."""
    opening.recover(stage.root, client)
    close_the_dead(stage.root, client)
    tags, params = provenance.tags(stage), provenance.params(stage)
    journal = stage.fingerprint  # the points of a start without a store
    run = store.stored_run(client, old.run_id) if old else None
    if old and (old.state == "finished" or _is_of_another(kind, run)):
        tags["repeat_of"] = old.run_id
        send_one(stage.root, client, old, Sent())  # its record makes way
    elif old:
        if run:
            client.update_run(old.run_id, status="RUNNING")
            Outbox(stage.root, old.run_id).forget_run()  # an earlier ending that was not sent
            store.write(client, old.run_id, tags, params)
            _copy_from_elsewhere(stage.root, stage.fingerprint, old.run_id, unless="finished")
            # Of a start by another address that led nowhere.
            take_over(stage.root, journal, old.run_id)
            old.state = "running"
            return old, "RUNNING"
        _say_gone(old)
        journal = old.run_id
    run = opening.open_run(
        stage.root, client, experiment_id, provenance.run_name(stage), tags, params
    )
    if old is None:
        _copy_from_elsewhere(stage.root, stage.fingerprint, run.info.run_id, unless="finished")
    take_over(stage.root, journal, run.info.run_id)
    return _record(stage.root, stage.fingerprint, run, stage.name, "running"), "RUNNING"


def _is_of_another(kind: str, run: "Run | None") -> bool:
    return bool(kind and run and run.data.tags.get(KIND, kind) != kind)


def description(stage: Stage) -> dict[str, Any]:
    """What the run of `stage` is to be, as `Outbox.describe_run` takes it."""
    return {
        "stage": stage.name,
        "name": provenance.run_name(stage),
        "params": provenance.params(stage),
        "tags": provenance.tags(stage),
        "start_time": now(),
        "state": "running",
    }


def restored_description(fingerprint: str, model_md5: str) -> dict[str, Any]:
    """The same for the run of a model that was trained elsewhere."""
    name, params, tags = provenance.restored_train(fingerprint)
    return {
        "stage": "train",
        "name": name,
        "params": params,
        "tags": {**tags, "model.md5": model_md5},
        "start_time": now(),
        "state": "finished",
        "end_time": now(),
    }


def find(
    stage: Stage,
    old: Record | None,
    fingerprint: str,
    model_md5: str,
    client: "MlflowClient",
    experiment_id: str,
) -> tuple[Record, str]:
    """The run that trained a model, for `stage` to write into, as (record, status in MLflow):
    that of the record, else the newest with this fingerprint and model, else one in its place."""
    record, run = old, store.stored_run(client, old.run_id) if old else None
    if record is None or run is None:
        if old:
            _say_gone(old)
        identity = {"fingerprint": fingerprint, "model.md5": model_md5}
        run = store.newest_run(client, experiment_id, identity)
        if run is None:
            name, params, tags = provenance.restored_train(fingerprint)
            whole = {**tags, **identity}
            run = opening.open_run(stage.root, client, experiment_id, name, whole, params)
            if old is None:
                _copy_from_elsewhere(stage.root, fingerprint, run.info.run_id)
            take_over(stage.root, old.run_id if old else fingerprint, run.info.run_id)
        record = _record(stage.root, fingerprint, run, "train", "finished")
    tags = _experiment_names(run)
    mark, settings = f"{stage.name}.settings", provenance.settings(stage)
    if run.data.tags.get(mark, settings) == settings:
        store.write(client, run.info.run_id, {**tags, mark: settings}, {})
        return record, run.info.status
    store.write(client, run.info.run_id, tags, {})
    record.save()
    return _child(stage, run, provenance.name_beside(stage, run.data.tags[mark]), client)


def _child(stage: Stage, parent: "Run", name: str, client: "MlflowClient") -> tuple[Record, str]:
    """The run of `stage` below the run of a model that was evaluated with other settings."""
    record = load_record(stage.root, stage.fingerprint, store.name(stage.root))
    run = store.stored_run(client, record.run_id) if record else None
    if record is None or run is None:
        tags = {**provenance.tags(stage), "mlflow.parentRunId": parent.info.run_id}
        params = provenance.params(stage)
        experiment_id = parent.info.experiment_id
        run = opening.open_run(stage.root, client, experiment_id, name, tags, params)
        record = _record(stage.root, stage.fingerprint, run, stage.name, "finished")
    return record, run.info.status


def _record(root: Path, fingerprint: str, run: "Run", stage: str, state: str) -> Record:
    info = run.info
    path = record_path(root, fingerprint)
    where = store.name(root)
    return Record(path, info.run_id, info.experiment_id, info.run_name, stage, state, store=where)


def _copy_from_elsewhere(root: Path, fingerprint: str, run_id: str, unless: str = "") -> None:
    """Give a run the points of the last one, and the files and tags that wait for that one, if it
    is in another store (the address of the store was changed) and its state is not `unless`. The
    other run, its record, journal and outbox stay as they are, for the day when the address is
    changed back."""
    other = record_elsewhere(root, fingerprint, store.name(root))
    if other and other.state != unless:
        add_points(root, other.run_id, run_id)
        add_waiting(root, other.run_id, run_id, move=False)
        warn(f"the run {other.run_id} is in {other.store}; {run_id} here gets its points, too")


def _say_gone(record: Record) -> None:
    warn(f"the run {record.run_id} is not in the store any more; its points go to another one")


def _experiment_names(run: "Run") -> dict[str, str]:
    """The tag that lists the DVC experiments which have this run's model, with the present one."""
    names = run.data.tags.get("dvc.exp_names", "").split(",")
    names.append(os.environ.get("DVC_EXP_NAME", ""))
    joined = ",".join(dict.fromkeys(name for name in names if name))
    return {"dvc.exp_names": joined} if joined else {}
