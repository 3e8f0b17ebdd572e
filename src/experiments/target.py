"""What a name on a command line means: an experiment, a commit, an MLflow run or the workspace."""

import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from src.experiments import stored
from src.plumbing import dvc_files, git, identity, params, workspace
from src.plumbing.errors import InputError
from src.tracking import lookup
from src.tracking.journal.journal import warn
from src.tracking.log import MODEL_MD5
from src.tracking.store.address import reason

RUN_ID = re.compile(r"[0-9a-f]{32}")
MODEL = "models/model.safetensors"


@dataclass(frozen=True)
class Target:
    """What was named: a commit (`rev`; an experiment is one), or the workspace (rev None)."""

    title: str
    rev: str | None = None
    experiment: str | None = None
    run_id: str | None = None  # the MLflow run, if that was named

    def read(self, path: str) -> str | None:
        """The text of a file of the project; None if it is not there."""
        if self.rev is not None:
            return git.output("cat-file", "blob", f"{self.rev}:./{path}")
        return workspace.read_here(path)

    def locked(self) -> tuple[str, stored.Stages]:
        """dvc.lock as text, and its entries by stage. InputError if unreadable or without a net."""
        lock = self.read("dvc.lock")
        if lock is None:
            raise InputError(f"{self.title}: there is no dvc.lock yet; `make repro` makes it")
        try:
            names = dict.fromkeys([*dvc_files.STAGES, *identity.locked_names(lock)])
            found = {name: identity.locked_stage(lock, name) for name in names}
        except InputError as error:
            raise InputError(f"{self.title}: {error}") from None
        if found["train"] is None:
            raise InputError(f"{self.title}: dvc.lock has no entry of train; `make repro` makes it")
        return lock, {name: entry for name, entry in found.items() if entry is not None}


def find_target(name: str | None, root: Path) -> Target:
    """The target that a name on the command line means, None the workspace. InputError if it means
    nothing or more than one thing. An MLflow run means the commit whose dvc.lock has its
    fingerprint and its model; `root`: the main repository, in whose store it is looked up."""
    if name and RUN_ID.fullmatch(name) and git.output("cat-file", "-t", name) is None:
        return _of_run(name, root)
    return resolve(name)


def resolve(name: str | None) -> Target:
    """As `find_target`, without MLflow's run ids; an experiment goes before a branch so named."""
    if name is None:
        return Target("workspace")
    known = git.experiments()
    named = [item for item in known if item.name == name]
    # The same name may stand under several commits; the one under HEAD is what `make table` shows.
    named = [item for item in named if item.baseline == git.head()] or named
    if len(named) > 1:
        revs = ", ".join(item.rev[: stored.SHORT] for item in named)
        raise InputError(f"{len(named)} experiments are called {name}: give one of {revs}")
    if named:
        [found] = named
        title = f"experiment {name} ({found.rev[: stored.SHORT]}) on {_commit(found.baseline)}"
        return Target(title, found.rev, name)
    rev = git.output("rev-parse", "--verify", "--quiet", "--end-of-options", name + "^{commit}")
    if rev is not None:
        return Target(_commit(rev.strip()), rev.strip())
    if state := git.queue_state(name):
        raise InputError(f"experiment {name} {state}")
    if trouble := _without_result(name):
        raise InputError(trouble)
    refs = git.output("for-each-ref", "--format=%(refname:short)", "refs/heads", "refs/tags") or ""
    hint = params.did_you_mean(name, [item.name for item in known] + refs.split())
    raise InputError(f"no experiment or commit is called '{name}'{hint or '; see `make table`'}")


def _without_result(name: str) -> str:
    """What MLflow knows about an experiment that has no result: a failed one leaves nothing in git.
    Empty if no run has its name."""
    with suppress(Exception):  # whatever MLflow raises: the name then counts as unknown
        if run := lookup.newest_run_with(workspace.main_repository(), {"dvc.exp_name": name}):
            what = f"is {run['address']}" if run["address"] else f"has the id {run['run_id']}"
            return f"{name} left no result in git; its run {run['name']} ({run['state']}) {what}"
    return ""


def _commit(rev: str) -> str:
    subject = (git.output("log", "-1", "--format=%s", rev) or "").strip()
    short = subject if len(subject) <= 40 else subject[:39] + "…"
    return f'commit {rev[: stored.SHORT]} "{short}"'


def _of_run(run_id: str, root: Path) -> Target:
    tags = lookup.tags_of(root, run_id)
    stage, fingerprint = tags.get("stage", ""), tags.get("fingerprint", "")
    if stage == "overfit-check":  # it declares fewer params: many trainings have the same
        raise InputError(
            f"run {run_id} is an overfit-check: name its training's run, or the commit"
        )
    other, found = "", []
    for rev, _, lock in stored.locks():
        stages = stored.stages_of(lock)
        if stage in stages and identity.fingerprint_of(stages[stage]) == fingerprint:
            if has_model(tags, stages["train"]):
                found.append((_equal_settings(tags, stages), rev))
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


def _equal_settings(tags: Mapping[str, str], stages: stored.Stages) -> int:
    """How many settings of evaluate, of these entries, are those whose metrics a run of train has:
    the same model may have been evaluated with other ones, too."""
    settings = tags.get("evaluate.settings", "").split()
    given = stages.get("evaluate", {}).get("params", {})
    return sum(f"{key}={value}".lower() in settings for key, value in given.items())


def has_model(tags: Mapping[str, str], train: identity.Entry) -> bool:
    """Whether a run with these tags made the model of an entry of train; true for a run without
    that tag. Trainings of the same inputs differ in bits on another kind of machine."""
    return MODEL_MD5 not in tags or tags[MODEL_MD5] == train["outs"].get(MODEL)


def run_of(root: Path, train: identity.Entry) -> str | None:
    """The run id for the inputs and model of an entry of train; None without a run or an answer."""
    fingerprint = identity.fingerprint_of(train)
    run_id = lookup.run_with(root, fingerprint)
    if run_id is None:
        return None
    try:
        if has_model(lookup.tags_of(root, run_id), train):
            return run_id
        wanted = {"fingerprint": fingerprint, MODEL_MD5: train["outs"].get(MODEL, "")}
        run = lookup.newest_run_with(root, wanted)
    except Exception as error:  # whatever MLflow raises
        warn(reason(error))
        return None
    return run["run_id"] if run else None
