"""Where a result comes from: `python -m src.where [EXPERIMENT|REV|RUN ID]`, default: the workspace.

Goes from a dvc.lock (of the workspace, or of any experiment or commit, without a checkout) to the
metrics and to the MLflow runs that made them. A run is found by what it is: the fingerprint of its
stage in that dvc.lock, first among the local records, then in MLflow.
"""

import argparse
import json
import re
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from src.answer import STAGES, Answer, render
from src.experiments import stored
from src.plumbing import command, dvc_files, git, identity, params, workspace
from src.plumbing.errors import InputError
from src.plumbing.identity import METRICS
from src.tracking import lookup
from src.tracking.journal import journal
from src.tracking.store import pages, store

RUN_ID = re.compile(r"[0-9a-f]{32}")
MODEL = "models/model.safetensors"
MODEL_TAG = "model.md5"  # of a run of train: what it gave, which its fingerprint does not say


@dataclass(frozen=True)
class Target:
    """What was asked for: a commit (`rev`; an experiment is one), or the workspace (rev None)."""

    title: str
    rev: str | None = None
    experiment: str | None = None
    run_id: str | None = None  # the MLflow run, if that was asked for

    def read(self, path: str) -> str | None:
        """The text of a file of the project; None if it is not there."""
        if self.rev is not None:
            return git.output("show", f"{self.rev}:./{path}")
        return workspace.read_here(path)


def resolve(name: str | None) -> Target:
    """The target that a name on the command line means; InputError if it means nothing or more
    than one thing. An experiment goes before a branch of the same name."""
    if name is None:
        return Target("workspace")
    known = git.experiments()
    named = [item for item in known if item.name == name]
    # The same name may stand under several commits; the one under HEAD is what `make table` shows.
    named = [item for item in named if item.baseline == git.head()] or named
    if len(named) > 1:
        revs = ", ".join(item.rev[:7] for item in named)
        raise InputError(f"{len(named)} experiments are called {name}: give one of {revs}")
    if named:
        title = f"experiment {name} ({named[0].rev[:7]}) on {_commit(named[0].baseline)}"
        return Target(title, named[0].rev, name)
    rev = git.output("rev-parse", "--verify", "--quiet", "--end-of-options", name + "^{commit}")
    if rev is not None:
        return Target(_commit(rev.strip()), rev.strip())
    if state := git.queue_state(name):
        raise InputError(f"experiment {name} {state}")
    if trouble := _without_result(name):
        raise InputError(trouble)
    branches = (
        git.output("for-each-ref", "--format=%(refname:short)", "refs/heads", "refs/tags") or ""
    )
    hint = params.did_you_mean(name, [item.name for item in known] + branches.split())
    raise InputError(f"no experiment or commit is called '{name}'{hint or '; see `make table`'}")


def _without_result(name: str) -> str:
    """What MLflow tells of an experiment that has no result: a failed one leaves nothing in git.
    Empty if no run has its name."""
    with suppress(Exception):  # whatever MLflow raises: the name then counts as unknown
        root = workspace.main_repository()
        if run := _search(root, {"dvc.exp_name": name}):
            what = f"is {run['address']}" if run["address"] else f"has the id {run['run_id']}"
            return f"{name} left no result in git; its run {run['name']} ({run['state']}) {what}"
    return ""


def _commit(rev: str) -> str:
    subject = (git.output("log", "-1", "--format=%s", rev) or "").strip()
    return f'commit {rev[:7]} "{subject if len(subject) <= 40 else subject[:39] + "…"}"'


def find_target(name: str | None, root: Path) -> Target:
    """As `resolve`, also for an MLflow run: the commit whose dvc.lock has its fingerprint and its
    model."""
    if name and RUN_ID.fullmatch(name) and git.output("cat-file", "-t", name) is None:
        return _of_run(name, root)
    return resolve(name)


def _of_run(run_id: str, root: Path) -> Target:
    tags = lookup.tags_of(root, run_id)
    stage, fingerprint = tags.get("stage", ""), tags.get("fingerprint", "")
    if stage == "overfit-check":  # it declares fewer params: many trainings have the same
        raise InputError(
            f"run {run_id} is an overfit-check: name its training's run, or the commit"
        )
    other, found = "", []
    for rev, _, text in stored.locks():
        stages = stored.stages_of(text) or {}
        if stage in stages and stored.fingerprint(stages[stage]) == fingerprint:
            if gave(tags, stages["train"]):
                found.append((_settings_alike(tags, stages), rev))
            other = other or rev[: stored.SHORT]
    if found:
        _, rev = max(found, key=lambda item: item[0])
        return Target(f"run {run_id} ({rev[: stored.SHORT]})", rev, run_id=run_id)
    if other:
        raise InputError(
            f"run {run_id} gave another model than any commit or experiment here, also than "
            f"{other}, which has its inputs: commit the dvc.lock of that run, or name {other}"
        )
    state = lookup.state_of(root, run_id)
    if state != "finished":
        raise InputError(f"run {run_id} is {state}: it has no result")
    raise InputError(
        f"no commit or experiment here has the inputs of run {run_id}: commit dvc.lock after "
        "`dvc repro`, or take a run that `dvc exp run` made"
    )


def _settings_alike(tags: Mapping[str, str], stages: stored.Stages) -> int:
    """How many settings of an evaluation are those whose figures a run of train has: the same model
    may have been evaluated with others, too."""
    settings = tags.get("evaluate.settings", "").split()
    given = stages.get("evaluate", {}).get("params", {})
    return sum(f"{key}={value}".lower() in settings for key, value in given.items())


def gave(tags: Mapping[str, str], train: Mapping[str, Any]) -> bool:
    """Whether a run with these tags gave the model of an entry of train; so it is for one that does
    not tell. Trainings of the same inputs differ in bits on another kind of machine."""
    return MODEL_TAG not in tags or tags[MODEL_TAG] == train["outs"].get(MODEL)


def locked(target: Target) -> tuple[str, dict[str, dict[str, Any]]]:
    """The text of a target's dvc.lock and the entries in it by stage; InputError if it cannot be
    read, or has no trained network."""
    lock = target.read("dvc.lock")
    if lock is None:
        raise InputError(f"{target.title}: there is no dvc.lock yet; `make repro` makes it")
    try:
        found = {name: identity.locked_stage(lock, name) for name in dvc_files.STAGES}
    except (yaml.YAMLError, AttributeError, KeyError, TypeError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{target.title}: dvc.lock cannot be read ({reason})") from None
    if found["train"] is None:
        raise InputError(f"{target.title}: dvc.lock has no entry of train; `make repro` makes it")
    return lock, {name: entry for name, entry in found.items() if entry is not None}


def find(target: Target, root: Path) -> Answer:
    """The metrics and runs of a target; InputError if its dvc.lock has no trained network."""
    lock, entries = locked(target)
    prints = {name: identity.fingerprint_from_lock(lock, name) for name in STAGES}
    answer = Answer(target.title, target.rev, store.name(root))
    metrics, evaluate = target.read(METRICS), entries.get("evaluate")
    if metrics is not None and identity.metrics_belong(metrics, entries["train"], evaluate):
        answer.metrics = json.loads(metrics)
    else:
        answer.missing["metrics"] = f"no {METRICS} of this network: `dvc repro` makes it"
    for name, fingerprint in prints.items():
        run, trouble = _find_run(root, fingerprint) if fingerprint else (None, "")
        if run:
            answer.runs[name] = run
        else:
            answer.missing[name] = trouble or "none here: it ran elsewhere, or with tracking off"
    # Figures by other settings of `evaluate` have a run of their own, noted where that of train is.
    own = identity.fingerprint_from_lock(lock, "evaluate") or ""
    noted = [journal.load_record(root, name or "", answer.store) for name in (own, prints["train"])]
    if own and (noted[0] or not noted[1]) and (run := _find_run(root, own)[0]):
        answer.runs["evaluate"] = run
    if target.rev is None:
        answer.changed = identity.changed_inputs(lock)
    answer.ui = pages.server_address() or pages.running_address(root)
    return answer


def _find_run(root: Path, fingerprint: str) -> tuple[dict[str, str] | None, str]:
    """The run with a fingerprint, or why there is none. That of the present store goes first, known
    from its record or found there; then the one in a store that was in use before."""
    here, trouble = store.name(root), ""
    record = journal.load_record(root, fingerprint, here)
    if record and record.run_id:
        return _recorded(record, pages.base_address(root), here), ""
    try:
        if run := _search(root, {"fingerprint": fingerprint}):
            return run, ""
    except Exception as error:  # whatever MLflow raises for a server that is down or foreign
        shown = isinstance(error, InputError | store.StoreError)
        trouble = f"MLflow does not answer ({error if shown else type(error).__name__})"
    record = journal.record_elsewhere(root, fingerprint, here)
    if record and record.run_id:
        server = record.store + "/" if record.store.startswith("http") else ""
        return _recorded(record, server, record.store), ""
    return None, trouble


def _recorded(record: journal.Record, base: str, where: str) -> dict[str, str]:
    return _run(record.name, record.state, record.experiment_id, record.run_id, base, where)


def _search(root: Path, tags: dict[str, str]) -> dict[str, str] | None:
    """The newest run with these tags. Imports mlflow, which takes seconds."""
    if (file := store.sqlite_file(store.tracking_uri(root))) and not file.exists():
        return None  # looking for a run must not create a store
    client, experiment_id = store.open_store(root)
    found = store.newest_run(client, experiment_id, tags)
    if not found:
        return None
    info = found.info
    state, base = info.status.lower(), pages.base_address(root)
    return _run(info.run_name, state, info.experiment_id, info.run_id, base, store.name(root))


def _run(
    name: str, state: str, experiment_id: str, run_id: str, base: str, where: str
) -> dict[str, str]:
    """`base`: the address of the server, ending in a slash; empty if none shows the store."""
    page = f"{base}#/experiments/{experiment_id}/runs/{run_id}{pages.TRAINING_VIEW}" if base else ""
    return {"name": name, "state": state, "run_id": run_id, "address": page, "store": where}


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m src.where", description=(__doc__ or "").split("\n")[0]
    )
    names = "EXPERIMENT|REV|RUN ID"
    parser.add_argument("name", nargs="?", metavar=names, help="default: the workspace")
    parser.add_argument("--json", action="store_true", help="print everything as JSON")
    arguments = parser.parse_args()
    workspace.require_project()
    root = workspace.main_repository()
    target = find_target(arguments.name, root)
    answer = find(target, root)
    text = render(answer, target.experiment)
    print(json.dumps(asdict(answer), indent=2) if arguments.json else text)


if __name__ == "__main__":
    sys.exit(command.guarded(main))
