"""Where runs are kept: the server that MLFLOW_TRACKING_URI names, else a file in the main
repository. Only `MlflowClient` is used: the fluent API has one active run per process, which
`mlflow run` fills with a run of its own."""

import json
import logging
import os
import re
import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing, suppress
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from src.base.eager import absent
from src.plumbing.errors import InputError
from src.tracking.journal.journal import warn
from src.tracking.store import experiment, files
from src.tracking.store.address import public

if TYPE_CHECKING:
    from filelock import FileLock
    from mlflow import MlflowClient
    from mlflow.entities import Run

LOCK_SECONDS = 5.0  # how long to wait for one who keeps a SQLite file locked (choice)
HOST_ONLY = re.compile(r"\w[\w.-]*(:\d+)?(/.*)?")
# What MLflow reads from the environment when it is imported; what the user has set goes first.
CLIENT_SETTINGS = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",  # the default of 7 blocks each call for four minutes
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",  # seconds without an answer (choice; default 120)
    "MLFLOW_LOGGING_LEVEL": "WARNING",  # no lines about tables being created
    "MLFLOW_DISABLE_TELEMETRY": "true",  # no stage opens a connection that nobody asked for
}


class StoreError(Exception):
    """The store cannot be opened: one line says why. The work goes on without it."""


def tracking_uri(root: Path) -> str:
    """MLFLOW_TRACKING_URI if it is set, else the SQLite file <root>/mlflow.db. A relative SQLite
    path means `root`, not the temporary workspace of an experiment, with which it would vanish."""
    uri = os.environ.get("MLFLOW_TRACKING_URI") or local_uri(root)
    scheme, path = _sqlite(uri)
    return f"{scheme}{_encoded(root)}/{path}" if scheme and not path.startswith("/") else uri


def local_uri(root: Path) -> str:
    """The URI of the SQLite file that is the store when nothing else is said."""
    return f"sqlite:///{_encoded(root)}/mlflow.db"


def sqlite_file(uri: str) -> Path | None:
    """The file that MLflow opens for the address of a store; None if the store is no such file."""
    scheme, path = _sqlite(uri)
    return Path(unquote(path.partition("?")[0])) if scheme else None


def name(root: Path) -> str:
    """The store as records and people know it: its address without credentials, and relative to
    the project if it lies there, so that a project that was moved still knows its runs."""
    uri = tracking_uri(root)
    file = sqlite_file(uri)
    if file is None:
        return public(uri)
    return f"sqlite:///{file.relative_to(root.resolve()) if _own_file(root) else file}"


def _own_file(root: Path) -> Path | None:
    """The SQLite file of the store, if it lies in the project, which it follows then."""
    file = sqlite_file(tracking_uri(root))
    return file if file and file.is_relative_to(root.resolve()) else None


def files_folder(root: Path) -> Path | None:
    """The folder for the files of new experiments; None where a server has its own."""
    uri = tracking_uri(root)
    return files.folder_of(root, uri, sqlite_file(uri))


def _sqlite(uri: str) -> tuple[str, str]:
    """`sqlite:///` and the path of an address, encoded, with its query; empty if it is another."""
    found = re.match(r"(sqlite(?:\+\w+)?:///)(.+)", uri, re.S)
    return (found[1], found[2]) if found else ("", "")


def _encoded(root: Path) -> str:
    path = str(root.resolve())
    for special in "%?#":  # MLflow decodes the path of this URI; others may stand as they are
        path = path.replace(special, f"%{ord(special):02X}")
    return path


def open_store(root: Path) -> tuple["MlflowClient", str]:
    """A client of the store and the id of the project's experiment, both made if need be.
    InputError if the experiment was deleted; else as for `connect`."""
    client = connect(root)
    follow(root)
    folder = files_folder(root)
    artifacts, own = folder.as_uri() if folder else None, _own_file(root) is not None
    with _lock(root):
        return client, experiment.find(client, root, artifacts, own)


def follow(root: Path) -> None:
    """Let a store in the project, if there is one, name its folders where the project is now."""
    if (file := _own_file(root)) and file.is_file():
        # One that can only be read is still shown, and one that is broken told elsewhere.
        with _lock(root), suppress(sqlite3.Error):
            if before := files.bring_along(root, file):
                warn(f"the project was at {before}: its runs have their files here now")


def require_folder(root: Path, client: "MlflowClient", experiment_id: str) -> None:
    """InputError if the files of new runs would go where they would be lost, or not be ours."""
    found = client.get_experiment(experiment_id)
    if line := files.trouble(root, files_folder(root), found.artifact_location):
        raise InputError(
            f"{line}, as the MLflow experiment {found.name} wants: name a server that keeps files "
            "with MLFLOW_TRACKING_URI, or a new experiment with MLFLOW_EXPERIMENT_NAME"
        )


def log_file(root: Path, client: "MlflowClient", run_id: str, path: Path, folder: str) -> None:
    """Copy a file into a run, below `folder`; all files of runs are written here. StoreError if
    that would be in a folder that is not ours (src/tracking/store/files.py)."""
    # Below the folder of the experiment: <run id>/artifacts.
    location = _folder_of_run(client, run_id).removesuffix(f"/{run_id}/artifacts")
    if line := files.trouble(root, files_folder(root), location):
        raise StoreError(line)
    client.log_artifact(run_id, str(path), folder or None)


@lru_cache(maxsize=64)
def _folder_of_run(client: "MlflowClient", run_id: str) -> str:
    return str(client.get_run(run_id).info.artifact_uri)


def connect(root: Path) -> "MlflowClient":
    """A client of the store, which is made if need be: 1.4 s of CPU for the import, 4 s more for a
    new SQLite file. StoreError if the file cannot be opened, and what MLflow raises."""
    uri = tracking_uri(root)
    if "://" not in uri and not uri.startswith("databricks"):
        hint = f", did you mean http://{public(uri)}?" if HOST_ONLY.fullmatch(public(uri)) else ""
        raise StoreError(
            "MLFLOW_TRACKING_URI must begin like http://, https://, sqlite:/// or postgresql://, "
            f"got {public(uri)}{hint}"
        )
    if file := sqlite_file(uri):
        with _lock(root):  # its tables may be in the making
            _try_file(file)
    for name, value in CLIENT_SETTINGS.items():
        os.environ.setdefault(name, value)
    with absent("pandas"):  # MLflow can do without (mlflow-skinny has none): 0.6 s of CPU
        from mlflow import MlflowClient

    logging.getLogger("urllib3").setLevel(logging.ERROR)  # a line for each failed connection
    # Of four processes that opened a fresh SQLite store at once, three died in its migrations.
    with _lock(root):
        return MlflowClient(tracking_uri=tracking_uri(root))


def _lock(root: Path) -> "FileLock":
    from filelock import FileLock

    path = root / ".cache" / "locks" / "store.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    return FileLock(path)


def _try_file(file: Path) -> None:
    """StoreError if a SQLite file cannot be opened: MLflow would try for minutes, and print each
    attempt. Makes the file if there is none, as MLflow would."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        if file.is_dir():
            raise StoreError(f"{file} is a folder, not a SQLite file")
        # Not read-only: what a killed process left half written could not be rolled back.
        with closing(sqlite3.connect(file, timeout=LOCK_SECONDS)) as connection:
            connection.execute("SELECT count(*) FROM sqlite_master")
    except (FileExistsError, NotADirectoryError):
        raise StoreError(f"{file} cannot be made: its folder is a file") from None
    except OSError as error:
        raise StoreError(f"{file} cannot be made: {error.strerror}") from None
    except sqlite3.Error as error:
        raise StoreError(f"{file} cannot be opened: {error}") from None


def create_run(
    client: "MlflowClient", experiment_id: str, name: str, tags: Mapping[str, Any], start_time: int
) -> "Run":
    """A new run, below that of `mlflow run` if this is part of it; `start_time` in milliseconds."""
    parent = os.environ.get("MLFLOW_RUN_ID")
    nested = {"mlflow.parentRunId": parent, **tags} if parent else dict(tags)
    return client.create_run(experiment_id, start_time, nested, run_name=name)


def write(
    client: "MlflowClient", run_id: str, tags: Mapping[str, Any], params: Mapping[str, str]
) -> None:
    """Set tags and params of a run in one call; at most 100 of each (MLflow's limit)."""
    from mlflow.entities import Param, RunTag

    client.log_batch(
        run_id,
        tags=[RunTag(key, str(value)) for key, value in tags.items()],
        params=[Param(key, value) for key, value in params.items()],
    )


def add_input(client: "MlflowClient", run_id: str, name: str, digest: str, context: str) -> None:
    """Name a data set (its digest at most 36 characters) as an input of a run."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    source = json.dumps({"uri": name})
    dataset = Dataset(name=name, digest=digest, source_type="local", source=source)
    tags = [InputTag("mlflow.data.context", context)]
    client.log_inputs(run_id, datasets=[DatasetInput(dataset, tags)])


def stored_run(client: "MlflowClient", run_id: str) -> "Run | None":
    """A run that can be written to; None if the store has none with this id, or a deleted one."""
    from mlflow import MlflowException

    try:
        run = client.get_run(run_id)
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return None
        raise
    return run if run.info.lifecycle_stage == "active" else None


def newest_run(
    client: "MlflowClient", experiment_ids: Sequence[str], tags: Mapping[str, str], status: str = ""
) -> "Run | None":
    """The run that began last among those of these experiments with all these tags and, if it is
    given, with this status (FINISHED)."""
    wanted = " and ".join(f"tags.`{key}` = '{value}'" for key, value in tags.items())
    wanted += f" and attributes.status = '{status}'" if status else ""
    order = ["attributes.start_time DESC"]
    found = client.search_runs(list(experiment_ids), wanted, order_by=order, max_results=1)
    return found[0] if found else None
