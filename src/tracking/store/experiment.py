"""The MLflow experiment of the project: all clones log into the same one, whatever their folders
are called."""

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from src.plumbing import git, identity, workspace
from src.plumbing.errors import InputError
from src.tracking.journal.journal import warn

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Experiment

# Tags of an experiment: whose it is, whatever it is called on MLflow's pages.
PROJECT = "pyproject.name"
CHOSEN = "chosen.name"  # by MLFLOW_EXPERIMENT_NAME
LOOKED_AT = 100  # runs of an experiment, the newest, that may be this project's (choice)


def find(client: "MlflowClient", root: Path, artifacts: str | None, own: bool) -> str:
    """The id of the experiment: the one that MLFLOW_EXPERIMENT_NAME names; else the project's,
    which is made if need be, with its files in `artifacts` (None: where the server puts them).
    `own`: no other project uses the store. InputError if the experiment was deleted, or if
    pyproject.toml gives the project no name."""
    given = os.environ.get("MLFLOW_EXPERIMENT_ID", "0")  # 0 is "Default": nobody chose it
    # The user interface nests runs of one experiment only.
    if os.environ.get("MLFLOW_RUN_ID") and given not in ("", "0"):
        return given
    if chosen := os.environ.get("MLFLOW_EXPERIMENT_NAME"):
        return _chosen(client, chosen, artifacts)
    name = workspace.project_name(root)
    marked = _marked(client, PROJECT)
    # Without a name of its own the project is called by its folder, which may have moved.
    unnamed = own and not (root / workspace.NAMED_IN).exists()
    mine = [item for item in marked if unnamed or item.tags[PROJECT] == name]
    if found := _first_active(mine):
        return found.experiment_id
    by_name = client.get_experiment_by_name(name)
    _require_present([by_name, *mine])
    earlier = _earlier(client, root, is_shared=not own)
    if earlier is None and own:
        earlier = _first_active(marked)
    if earlier and (by_name or PROJECT in earlier.tags):
        warn(f"earlier runs are in the experiment {earlier.name}; new ones go to {name}")
    elif earlier:
        warn(f"the runs go on in the experiment {earlier.name}, which has those of this project")
        by_name = earlier
    if by_name is None:
        return _make(client, name, artifacts, {PROJECT: name})
    _mark(client, by_name, PROJECT, name)
    return by_name.experiment_id


def _chosen(client: "MlflowClient", name: str, artifacts: str | None) -> str:
    """The experiment of this name, or that was chosen by it and has another name by now."""
    by_name = client.get_experiment_by_name(name)
    if by_name and _first_active([by_name]):
        _mark(client, by_name, CHOSEN, name)
        return by_name.experiment_id
    mine = [item for item in _marked(client, CHOSEN) if item.tags[CHOSEN] == name]
    if found := _first_active(mine):
        warn(f"the runs go on in the experiment {found.name}, which was called {name}")
        return found.experiment_id
    _require_present([by_name, *mine])
    return _make(client, name, artifacts, {CHOSEN: name})


def _make(client: "MlflowClient", name: str, artifacts: str | None, tags: dict[str, str]) -> str:
    """The id of a new experiment, or of the one that another clone made a moment ago."""
    from mlflow.exceptions import MlflowException

    try:
        return client.create_experiment(name, artifacts, tags=tags)
    except MlflowException as error:
        is_there = error.error_code == "RESOURCE_ALREADY_EXISTS"
        found = client.get_experiment_by_name(name) if is_there else None
        if found is None:
            raise
        return found.experiment_id


def _marked(client: "MlflowClient", tag: str) -> list["Experiment"]:
    """The experiments that this code made or went on with, the oldest first; also deleted ones."""
    from mlflow.entities import ViewType

    return list(
        client.search_experiments(
            ViewType.ALL, filter_string=f"tags.`{tag}` LIKE '%'", order_by=["creation_time ASC"]
        )
    )


def _mark(client: "MlflowClient", found: "Experiment", tag: str, name: str) -> None:
    if found.tags.get(tag) != name:
        with suppress(Exception):  # a server may let nobody but the owner change it
            client.set_experiment_tag(found.experiment_id, tag, name)


def _first_active(found: Iterable["Experiment"]) -> "Experiment | None":
    return next((item for item in found if item.lifecycle_stage == "active"), None)


def _require_present(found: Iterable["Experiment | None"]) -> None:
    """InputError if one of them was deleted: its runs would be missing in silence."""
    for item in found:
        if item and item.lifecycle_stage == "deleted":
            raise InputError(
                f"the MLflow experiment {item.name} was deleted: bring it back with `mlflow "
                f"experiments restore -x {item.experiment_id}`, or set MLFLOW_EXPERIMENT_NAME to "
                "another name"
            )


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
