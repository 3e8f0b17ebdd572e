"""The MLflow run of a tool that looks at the workspace, such as lr_find: one call at its end."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from src.tracking.about import provenance
from src.tracking.journal.journal import hold
from src.tracking.journal.outbox import run_to_be
from src.tracking.journal.unsent import make_run
from src.tracking.run import TrackedRun


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
    """Log what a tool found as a run and return its id; None as long as no store has it. `metrics`:
    a value per step; `data`: md5 of the data sets that were read, by path. What the store does not
    take waits for src.sync. Raises only InputError, if the experiment was deleted in MLflow."""
    about = run_to_be(tool, name, dict(params), provenance.tool_tags(tool, data))
    # No other run is the same: it is not gone on with.
    fingerprint = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()
    run = TrackedRun(root, fingerprint, None, own=True)
    with hold(root, fingerprint):
        run.connect(
            lambda client, experiment_id: make_run(root, client, experiment_id, fingerprint, about),
            lambda: about,
        )
        with run.logging():
            for key, values in metrics.items():
                for step, value in enumerate(values):
                    run.log_metrics({key: value}, step)
            for path, md5 in data.items():
                run.log_input(path, md5, tool)
            for file in files:
                run.log_artifact(file)
            run.describe(note)
    return run.record.run_id if run.record else None
