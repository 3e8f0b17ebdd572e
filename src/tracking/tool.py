"""The MLflow run of a tool that looks at the workspace, such as lr_find: one call when it is done.

Its files stay on disk in any case, so a store that does not answer costs a line and nothing else.
"""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from src.plumbing.errors import InputError
from src.tracking.about import provenance, uncommitted
from src.tracking.journal.journal import now, warn
from src.tracking.store import store
from src.tracking.store.address import reason

if TYPE_CHECKING:
    from mlflow import MlflowClient


def log_run(
    root: Path,
    tool: str,
    name: str,
    params: Mapping[str, str],
    metrics: Mapping[str, Sequence[float]],
    data: Mapping[str, str],
    files: Sequence[Path],
    note: str,
) -> str | None:
    """Log what a tool found as a finished run and return its id; None if the store did not take
    all of it.

    `metrics`: a value per step; `data`: md5 of the data sets that were read, by path. Raises
    InputError if the experiment was deleted in MLflow, nothing else.
    """
    what = f"no run of {tool}"
    try:
        client, experiment_id = store.open_store(root)
        tags = {**provenance.tool_tags(tool, data), "mlflow.note.content": note}
        moment = now()
        run_id = store.create_run(client, experiment_id, name, tags, moment).info.run_id
        what = f"the run {run_id} of {tool} lacks a part"
        with _failed_if_not_whole(client, run_id):
            _fill(client, run_id, tool, moment, params, metrics, data, files)
            client.set_terminated(run_id, "FINISHED")
        return run_id
    except InputError:
        raise
    except Exception as error:  # whatever MLflow raises
        warn(f"{what}: {reason(error)}")
        return None


@contextmanager
def _failed_if_not_whole(client: "MlflowClient", run_id: str) -> Iterator[None]:
    """End a run that the block could not fill: nobody would go on with it."""
    try:
        yield
    except BaseException as error:
        with suppress(Exception):  # a store that did not take the rest may not take this
            state = "FAILED" if isinstance(error, Exception) else "KILLED"
            client.set_terminated(run_id, state)
        raise


def _fill(
    client: "MlflowClient",
    run_id: str,
    tool: str,
    moment: int,
    params: Mapping[str, str],
    metrics: Mapping[str, Sequence[float]],
    data: Mapping[str, str],
    files: Sequence[Path],
) -> None:
    """What `log_run` was given, into the run that it opened at `moment`."""
    from mlflow.entities import Metric

    store.write(client, run_id, {}, params)
    points = [
        Metric(key, float(value), moment, step)
        for key, values in metrics.items()
        for step, value in enumerate(values)
    ]
    for start in range(0, len(points), 1000):  # MLflow's limit for a call
        client.log_batch(run_id, metrics=points[start : start + 1000])
    for path, md5 in data.items():
        store.add_input(client, run_id, path, md5, tool)
    for file in files:
        client.log_artifact(run_id, str(file))
    if difference := uncommitted.difference():
        artifact = PurePosixPath(uncommitted.ARTIFACT)
        with tempfile.TemporaryDirectory() as folder:
            # Not as a text: the files of the workspace may be in any encoding.
            (Path(folder) / artifact.name).write_bytes(difference)
            client.log_artifact(run_id, f"{folder}/{artifact.name}", str(artifact.parent))
