"""The MLflow experiment of the project: all clones log into the same one, whatever their folders
are called."""

import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from src.plumbing import git, identity, workspace
from src.plumbing.errors import InputError
from src.tracking.journal.journal import warn

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Experiment

PROJECT = "pyproject.name"  # tag of an experiment: whose it is, whatever it is called
LOOKED_AT = 100  # runs of an experiment, the newest, that may be this project's (choice)


def find(client: "MlflowClient", root: Path, artifacts: str | None) -> str:
    """The id of the experiment: the one that MLFLOW_EXPERIMENT_NAME names; else the project's,
    which is made if need be, with its files in `artifacts` (None: where the server puts them).
    InputError if it was deleted, or if pyproject.toml gives the project no name."""
    given = os.environ.get("MLFLOW_EXPERIMENT_ID", "0")  # 0 is "Default": nobody chose it
    # The user interface nests runs of one experiment only.
    if os.environ.get("MLFLOW_RUN_ID") and given not in ("", "0"):
        return given
    if chosen := os.environ.get("MLFLOW_EXPERIMENT_NAME"):
        return _by_name(client, chosen) or _make(client, chosen, artifacts)
    name = workspace.project_name(root)
    if marked := _marked(client, name):
        return marked
    found = _by_name(client, name)
    earlier = _earlier(client, root, is_shared=artifacts is None)
    if earlier and found:
        warn(f"earlier runs are in the experiment {earlier.name}; new ones go to {name}")
    elif earlier:
        warn(f"the runs go on in the experiment {earlier.name}, which has those of this project")
        found = earlier.experiment_id
    if found is None:
        return _make(client, name, artifacts, {PROJECT: name})
    with suppress(Exception):  # a server may let nobody but the owner change it
        client.set_experiment_tag(found, PROJECT, name)
    return found


def _make(
    client: "MlflowClient", name: str, artifacts: str | None, tags: dict[str, str] | None = None
) -> str:
    """The id of a new experiment, or of the one that another clone made a moment ago."""
    from mlflow.exceptions import MlflowException

    try:
        return client.create_experiment(name, artifacts, tags=tags)
    except MlflowException as error:
        found = _by_name(client, name) if error.error_code == "RESOURCE_ALREADY_EXISTS" else None
        if found is None:
            raise
        return found


def _marked(client: "MlflowClient", name: str) -> str | None:
    """The experiment that this code made for a project, or that it went on with."""
    order = ["creation_time ASC"]
    for item in client.search_experiments(
        filter_string=f"tags.`{PROJECT}` LIKE '%'", order_by=order
    ):
        if item.tags[PROJECT] == name:
            return str(item.experiment_id)
    return None


def _by_name(client: "MlflowClient", name: str) -> str | None:
    found = client.get_experiment_by_name(name)
    if found and found.lifecycle_stage == "deleted":
        raise InputError(
            f"the MLflow experiment {name} was deleted: bring it back with `mlflow experiments "
            f"restore -x {found.experiment_id}`, or set MLFLOW_EXPERIMENT_NAME to another name"
        )
    return found.experiment_id if found else None


def _earlier(client: "MlflowClient", root: Path, is_shared: bool) -> "Experiment | None":
    """The project's experiment from the days when it was named after the folder of a clone: the one
    with the training of dvc.lock; else the one that is named after this folder and, on a server,
    has a run of a commit of this repository. Not the one that is named after the project."""
    others = ("Default", workspace.project_name(root))
    known = {
        item.experiment_id: item
        for item in client.search_experiments()
        if PROJECT not in item.tags and item.name not in others
    }
    with suppress(InputError, OSError, UnicodeDecodeError):  # no dvc.lock, or one in conflict
        entry = identity.locked_stage((root / "dvc.lock").read_text(encoding="utf-8"), "train")
        if entry and known:
            wanted = f"tags.fingerprint = '{identity.fingerprint_of(entry)}'"
            for run in client.search_runs(list(known), wanted, max_results=1):
                return known[run.info.experiment_id]
    for number in [key for key, item in known.items() if item.name == root.resolve().name]:
        if not is_shared or any(
            _is_commit(run.data.tags.get("git.commit", ""), root)
            for run in client.search_runs([number], max_results=LOOKED_AT)
        ):
            return known[number]
    return None


def _is_commit(rev: str, root: Path) -> bool:
    with suppress(InputError):  # git is not installed
        return bool(rev) and git.output("cat-file", "-e", f"{rev}^{{commit}}", folder=root) == ""
    return False
