"""Which MLflow run a stage writes into.

By the local record alone, never by searching a shared server for a run that may be somebody
else's; only `evaluate` searches, for the run that trained a model which was made elsewhere.
"""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from src.plumbing.stage import Stage
from src.tracking.about import provenance
from src.tracking.journal import unsent
from src.tracking.journal.journal import Record, hold, load_record, record_elsewhere, warn
from src.tracking.journal.outbox import Outbox, run_to_be
from src.tracking.log import KIND, MODEL_MD5
from src.tracking.store import store

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run


def begin(
    stage: Stage, old: Record | None, kind: str, client: "MlflowClient", experiment_id: str
) -> Record:
    """The run of `old` if it did not finish, else a new one; a new one also if `old` is of another
    `kind` of machine (empty: any): the bits differ, and its points would be doubled."""
    root, fingerprint = stage.root, stage.fingerprint
    unsent.close_the_dead(root, client, experiment_id)
    run = store.stored_run(client, old.run_id) if old else None
    elsewhere = record_elsewhere(root, fingerprint, store.name(root))
    if elsewhere and elsewhere.state == "finished":
        elsewhere = None
    about = description(stage)
    if old and run and old.goes_on and kind in ("", run.data.tags.get(KIND, kind)):
        client.update_run(old.run_id, status="RUNNING")
        Outbox(root, old.run_id).forget_run()  # an earlier ending that was not sent
        store.write(client, old.run_id, about["tags"], about["params"])
        _copy(root, elsewhere, old.run_id)
        unsent.take_over(root, fingerprint, old.run_id)  # of a start by an address without a store
        old.state = "running"
        return old
    repeated = old if old and (run or old.state == "finished") else None
    if repeated:
        about["tags"]["repeat_of"] = repeated.run_id
        unsent.send_one(root, client, repeated, unsent.Sent())  # its record makes way
    elif old:
        _say_gone(old)
    record = unsent.make_run(root, client, experiment_id, fingerprint, about)
    if old is None:
        _copy(root, elsewhere, record.run_id)
    elif not repeated:
        unsent.take_over(root, old.run_id, record.run_id)
    return record


def description(stage: Stage) -> dict[str, Any]:
    """What the run of `stage` is to be, as `Outbox.describe_run` takes it."""
    name, params = provenance.run_name(stage), provenance.params(stage)
    return run_to_be(stage.name, name, params, provenance.tags(stage))


def restored_description(fingerprint: str, model_md5: str) -> dict[str, Any]:
    """The same for the run of a model that was trained elsewhere."""
    name, params, tags = provenance.restored_train(fingerprint)
    return run_to_be("train", name, params, {**tags, MODEL_MD5: model_md5}, ended=True)


def find(
    stage: Stage,
    old: Record | None,
    fingerprint: str,
    model_md5: str,
    client: "MlflowClient",
    experiment_id: str,
) -> Record:
    """The run that trained a model, for `stage` to write into: that of the record, else the newest
    with this fingerprint and model, else one in its place."""
    root, record = stage.root, old
    elsewhere = record_elsewhere(root, fingerprint, store.name(root))
    run = store.stored_run(client, old.run_id) if old else None
    if record is None or run is None:
        if old:
            _say_gone(old)
        identity = {"fingerprint": fingerprint, MODEL_MD5: model_md5}
        if run := store.newest_run(client, [experiment_id], identity):
            record = unsent.record_of(root, fingerprint, run, "train", "finished")
        else:
            waits = Outbox(root, fingerprint).run()  # a training without a store left its own
            about = waits or restored_description(fingerprint, model_md5)
            record = unsent.make_run(root, client, experiment_id, fingerprint, about)
            if old:
                unsent.take_over(root, old.run_id, record.run_id)
            else:
                _copy(root, elsewhere, record.run_id)
            run = client.get_run(record.run_id)
    tags = _experiment_names(run)
    mark, settings = f"{stage.name}.settings", provenance.settings(stage)
    if run.data.tags.get(mark, settings) == settings:
        store.write(client, run.info.run_id, {**tags, mark: settings}, {})
        return record
    store.write(client, run.info.run_id, tags, {})
    record.save()
    return _child(stage, run, provenance.name_beside(stage, run.data.tags[mark]), client)


def _child(stage: Stage, parent: "Run", name: str, client: "MlflowClient") -> Record:
    """The run of `stage` below the run of a model that was evaluated with other settings."""
    root, fingerprint = stage.root, stage.fingerprint
    with hold(root, fingerprint):
        record = load_record(root, fingerprint, store.name(root))
        if record and store.stored_run(client, record.run_id):
            return record
        tags = {**provenance.tags(stage), "mlflow.parentRunId": parent.info.run_id}
        about = run_to_be(stage.name, name, provenance.params(stage), tags, ended=True)
        return unsent.make_run(root, client, parent.info.experiment_id, fingerprint, about)


def _copy(root: Path, elsewhere: Record | None, run_id: str) -> None:
    """Give a run the points, files and tags of that in another store (the address was changed). The
    other one stays as it is, for the day when the address is changed back."""
    if elsewhere:
        unsent.take_over(root, elsewhere.run_id, run_id, move=False)
        place = f"the run {elsewhere.run_id} is in {elsewhere.store}"
        warn(f"{place}; {run_id} here gets its points, too")


def _say_gone(record: Record) -> None:
    warn(f"the run {record.run_id} is not in the store any more; its points go to another one")


def _experiment_names(run: "Run") -> dict[str, str]:
    """The tag that lists the DVC experiments which have this run's model, with the present one."""
    names = run.data.tags.get("dvc.exp_names", "").split(",")
    names.append(os.environ.get("DVC_EXP_NAME", ""))
    joined = ",".join(dict.fromkeys(name for name in names if name))
    return {"dvc.exp_names": joined} if joined else {}
