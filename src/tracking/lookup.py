"""Runs in the project's store, for the tools that look some up or mark them."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from src.plumbing.errors import InputError
from src.tracking.journal.journal import Record, load_record, record_elsewhere, warn
from src.tracking.journal.unsent import record_of
from src.tracking.log import DESCRIPTION, KIND
from src.tracking.store import pages, store
from src.tracking.store.address import reason

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

COMPARED = "## Compared"  # heads the part of a description that `describe_comparison` writes


def tags_of(root: Path, run_id: str) -> dict[str, str]:
    """The tags of a run; InputError if the store has none with this id, or does not answer."""
    return dict(_stored(root, run_id).data.tags)


def state_of(root: Path, run_id: str) -> str:
    """running, finished, failed or killed; InputError as for `tags_of`."""
    return str(_stored(root, run_id).info.status).lower()


def _stored(root: Path, run_id: str) -> "Run":
    try:
        run = store.stored_run(store.open_store(root)[0], run_id) if _has_store(root) else None
    except InputError:
        raise
    except Exception as error:  # whatever MLflow raises
        raise InputError(f"the store of the runs does not answer: {reason(error)}") from None
    if run is None:
        raise InputError(f"no commit, experiment or MLflow run is called '{run_id}'")
    return run


def _has_store(root: Path) -> bool:
    """Whether there is one: looking for a run must not make it."""
    file = store.sqlite_file(store.tracking_uri(root))
    return file is None or file.exists()


def _newest(root: Path, tags: Mapping[str, str]) -> "Run | None":
    """The newest run with these tags. Imports mlflow, which takes seconds; raises what it does."""
    if not _has_store(root):
        return None
    client, experiment_id = store.open_store(root)
    return store.newest_run(client, [experiment_id], tags)


def run_with(root: Path, fingerprint: str) -> str | None:
    """The id of the run with a fingerprint: that of the local record, else the newest one in the
    store. None if there is none, or the store does not answer."""
    if record := load_record(root, fingerprint, store.name(root)):
        return record.run_id
    try:
        run = _newest(root, {"fingerprint": fingerprint})
    except Exception as error:  # whatever MLflow raises
        warn(reason(error))
        return None
    return run.info.run_id if run else None


def recorded_run(root: Path, fingerprint: str, elsewhere: bool = False) -> dict[str, str] | None:
    """The known run of a fingerprint in the present store or, with `elsewhere`, in the one before:
    `name`, `state`, `run_id`, `store`, and its page's `address`, empty if no server shows it."""
    record = (record_elsewhere if elsewhere else load_record)(root, fingerprint, store.name(root))
    return _found(root, record) if record else None


def newest_run_with(root: Path, tags: Mapping[str, str]) -> dict[str, str] | None:
    """The newest run with these tags in the present store, as `recorded_run` gives it. Imports
    mlflow, which takes seconds; raises whatever MLflow raises."""
    run = _newest(root, tags)
    return _found(root, record_of(root, "", run, "", run.info.status.lower())) if run else None


def run_of_anyone(root: Path, tags: Mapping[str, str]) -> dict[str, str] | None:
    """The run with these tags in the present store, whoever made it and in whatever experiment:
    a finished one goes first, then the newest. Also its `user`, empty if it names none. Imports
    mlflow, which takes seconds; raises whatever MLflow raises."""
    if not _has_store(root):
        return None
    client = store.connect(root)
    experiments = [item.experiment_id for item in client.search_experiments()]
    run = store.newest_run(client, experiments, tags, "FINISHED")
    run = run or store.newest_run(client, experiments, tags)
    if run is None:
        return None
    found = _found(root, record_of(root, "", run, "", run.info.status.lower()))
    return {**found, "user": run.data.tags.get("mlflow.user", "")}


def _found(root: Path, record: Record) -> dict[str, str]:
    if record.store == store.name(root):
        base = pages.base_address(root)
    else:
        base = f"{record.store}/" if record.store.startswith("http") else ""
    return {
        "name": record.name,
        "state": record.state,
        "run_id": record.run_id,
        "address": pages.run_address(base, record.experiment_id, record.run_id),
        "store": record.store,
    }


def kind_of(root: Path, run_id: str) -> str:
    """The kind of machine that made a run; empty if it is not known."""
    try:
        return tags_of(root, run_id).get(KIND, "")
    except InputError:
        return ""


def kind_of_newest(folder: Path) -> str:
    """The same for the last training in the SQLite store of another folder."""
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{folder}/mlflow.db")
    everywhere = [item.experiment_id for item in client.search_experiments()]
    run = store.newest_run(client, everywhere, {"stage": "train"})
    return run.data.tags.get(KIND, "") if run else ""


def set_tag(root: Path, run_id: str, key: str, value: str) -> None:
    """Mark a run; a store that does not take it costs a line."""
    _write(root, f"the tag {key} is not set", lambda client: client.set_tag(run_id, key, value))


def describe_comparison(root: Path, run_id: str, markdown: str) -> bool:
    """Write `markdown` under a heading at the end of a run's description, in place of what stood
    there; whether it was written. A store that does not take it costs a line."""

    def write(client: "MlflowClient") -> None:
        before = client.get_run(run_id).data.tags.get(DESCRIPTION, "").partition(COMPARED)[0]
        text = f"{before.rstrip()}\n\n{COMPARED}\n\n{markdown}".lstrip()
        client.set_tag(run_id, DESCRIPTION, text)

    return _write(root, "the comparison is not written", write)


def _write(root: Path, trouble: str, act: Callable[["MlflowClient"], Any]) -> bool:
    try:
        act(store.open_store(root)[0])
        return True
    except Exception as error:  # whatever MLflow raises
        warn(f"{trouble}: {reason(error)}")
        return False
