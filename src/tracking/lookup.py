"""Runs in the project's store, for the tools that look some up or mark them."""

from pathlib import Path
from typing import Any

from src.plumbing.errors import InputError
from src.tracking.journal import journal
from src.tracking.journal.journal import warn
from src.tracking.store import store
from src.tracking.store.address import reason

KIND = "machine.kind"  # what must be equal for the same bits; train sets it


NOTE = "mlflow.note.content"  # the description of a run
COMPARED = "## Compared"  # heads the part of it that `set_note` writes


def tags_of(root: Path, run_id: str) -> dict[str, str]:
    """The tags of a run; InputError if the store has none with this id, or does not answer."""
    return dict(_run(root, run_id).data.tags)


def state_of(root: Path, run_id: str) -> str:
    """running, finished, failed or killed; InputError as for `tags_of`."""
    return str(_run(root, run_id).info.status).lower()


def _run(root: Path, run_id: str) -> Any:
    file = store.sqlite_file(store.tracking_uri(root))
    try:
        run = None
        if not file or file.exists():  # looking for a run must not create a store
            run = store.stored_run(store.open_store(root)[0], run_id)
    except InputError:
        raise
    except Exception as error:  # whatever MLflow raises
        raise InputError(f"the store of the runs does not answer: {reason(error)}") from None
    if run is None:
        raise InputError(f"no commit, experiment or MLflow run is called '{run_id}'")
    return run


def run_with(root: Path, fingerprint: str) -> str | None:
    """The id of the run with a fingerprint: that of the local record, else the newest one in the
    store. None if there is none, or the store does not answer."""
    record = journal.load_record(root, fingerprint, store.name(root))
    if record:
        return record.run_id
    try:
        client, experiment_id = store.open_store(root)
        run = store.newest_run(client, experiment_id, {"fingerprint": fingerprint})
    except Exception as error:  # whatever MLflow raises
        warn(reason(error))
        return None
    return run.info.run_id if run else None


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
    order = ["attributes.start_time DESC"]
    runs = client.search_runs(everywhere, "tags.stage = 'train'", order_by=order, max_results=1)
    return runs[0].data.tags.get(KIND, "") if runs else ""


def set_tag(root: Path, run_id: str, key: str, value: str) -> None:
    """Mark a run; a store that does not take it costs a line."""
    try:
        client, _ = store.open_store(root)
        client.set_tag(run_id, key, value)
    except Exception as error:  # whatever MLflow raises
        warn(f"the tag {key} is not set: {reason(error)}")


def set_note(root: Path, run_id: str, markdown: str) -> bool:
    """Write `markdown` under a heading at the end of a run's description, in place of what stood
    there; whether it was written. A store that does not take it costs a line."""
    try:
        client, _ = store.open_store(root)
        before = client.get_run(run_id).data.tags.get(NOTE, "").partition(COMPARED)[0].rstrip()
        client.set_tag(run_id, NOTE, f"{before}\n\n{COMPARED}\n\n{markdown}".lstrip())
    except Exception as error:  # whatever MLflow raises
        warn(f"the note is not written: {reason(error)}")
        return False
    return True


def known_run(root: Path, fingerprint: str) -> str | None:
    """As `run_with`, without making a store where there is none yet."""
    file = store.sqlite_file(store.tracking_uri(root))
    return None if file and not file.exists() else run_with(root, fingerprint)
