"""The MLflow run of a tool that looks at the workspace, such as lr_find: one call when it is done.

Its files stay on disk in any case, so a store that does not answer costs a line and nothing else.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from src.errors import InputError
from src.tracking import provenance, store, uncommitted
from src.tracking.address import reason
from src.tracking.journal import now, warn


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
    """Log what a tool found as a finished run and return its id; None if the store did not take it.

    `metrics`: a value per step; `data`: md5 of the data sets that were read, by path. Raises
    InputError if the experiment was deleted in MLflow, nothing else.
    """
    from mlflow.entities import Metric

    try:
        client, experiment_id = store.open_store(root)
        tags = {**provenance.tool_tags(tool, data), "mlflow.note.content": note}
        moment = now()
        run_id = store.create_run(client, experiment_id, name, tags, moment).info.run_id
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
            client.log_text(run_id, difference.decode(), "provenance/uncommitted.diff")
        client.set_terminated(run_id, "FINISHED")
        return run_id
    except InputError:
        raise
    except Exception as error:  # whatever MLflow raises
        warn(f"no run of {tool}: {reason(error)}")
        return None
