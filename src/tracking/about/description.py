"""The description of a training's run: what changed, its result, how to bring the result back."""

import os
import shlex
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from src.base.files import write_text
from src.plumbing import identity, overrides, params
from src.plumbing.errors import InputError
from src.plumbing.stage import Stage
from src.tracking.about import provenance, uncommitted
from src.tracking.store import store

SHOWN = 20  # changes, and paths, that a line names (choice); the tag `changed` has more
COMMIT = 12  # digits of a commit: unique, and git takes them
UNKNOWN = "RUN_ID"  # stands for the id of a run as long as no store gave it one
CHANGED, UNCHANGED, FIRST = "**Changed**", "**Nothing changed**", "**First training**"
BRING_BACK, NO_COMMIT = "Bring this result back:", "Not in a git repository"


@dataclass(frozen=True)
class Origin:
    """What a result was made from. `commit`: HEAD, empty outside git; `experiment`: DVC's name, if
    it is known while it runs; `overrides`: the params that are not those of the commit (lr=0.003);
    `uncommitted`: the other inputs that are not."""

    commit: str
    experiment: str = ""
    overrides: tuple[str, ...] = ()
    uncommitted: tuple[str, ...] = ()


@dataclass(frozen=True)
class Patch:
    """The patch that the run `run_id` has, less files `left_out`; `command`: how to call MLflow."""

    run_id: str
    left_out: tuple[str, ...] = ()
    command: str = "mlflow"


def of_training(
    stage: Stage, fingerprint: str, result: str = "", run_id: str | None = None, patch: bytes = b""
) -> str:
    """The description for the training with this fingerprint, as `stage` (train itself, or evaluate
    with its result) finds it. `patch`: of `uncommitted.difference`, in the run `run_id`."""
    entry = provenance.train_entry(stage, fingerprint)
    origin = find_origin()
    changed = changed_line(provenance.changes("train", entry), origin.commit) if entry else ""
    found = None
    if uncommitted.can_be_applied(patch):
        local = store.tracking_uri(stage.root) == store.local_uri(stage.root)
        command = f"MLFLOW_TRACKING_URI={store.name(stage.root)} mlflow" if local else "mlflow"
        found = Patch(run_id or UNKNOWN, tuple(uncommitted.files_left_out(patch)), command)
    return _paragraphs(changed, result, how_to_bring_back(origin, found))


def with_result(description: str, result: str) -> str:
    """A description of `of_training` with another result in it."""
    changed, _, rest = description.partition("\n\n")
    if not changed.startswith((CHANGED, UNCHANGED, FIRST)):
        changed, rest = "", description
    ends = [at for mark in (BRING_BACK, NO_COMMIT) if (at := rest.find(mark)) >= 0]
    return _paragraphs(changed, result, rest[min(ends, default=len(rest)) :])


def _paragraphs(*parts: str) -> str:
    """The parts that are not empty, with a gap between them."""
    return "\n\n".join(part.strip("\n") for part in parts if part.strip())


def changed_line(changes: Sequence[str] | None, commit: str) -> str:
    """What differs from the dvc.lock of `commit`; `changes` is None if that has no training."""
    where = f"commit `{commit[:COMMIT]}`" if commit else "the last commit"
    if changes is None:
        return f"{FIRST}: {where} has none to compare with."
    if not changes:
        return f"{UNCHANGED} against {where}: this is the baseline."
    return f"{CHANGED} against {where}: {_listed(changes)}"


def how_to_bring_back(origin: Origin, patch: Patch | None = None) -> str:
    """The commands that give the same result again, and what they lack for that. `patch`: None if
    the run has none that can be applied."""
    if origin.experiment:  # it holds the code and the params, committed or not
        return _commands(f"dvc exp apply {shlex.quote(origin.experiment)}")
    if not origin.commit:
        return f"{NO_COMMIT}: no commit brings this result back."
    checkout = f"git checkout {origin.commit[:COMMIT]}"
    listed = f"\n\n**Not committed** when it was made: {_listed(origin.uncommitted)}."
    if origin.uncommitted and patch:
        text = _commands(f"{checkout} && {_apply(patch)}", "dvc repro") + listed
        if patch.left_out:
            text += f" The patch lacks {_listed(patch.left_out)}."
        if patch.run_id == UNKNOWN:
            text += f" `{UNKNOWN}` stands for the id of this run."
        return text
    pairs = (item.partition("=") for item in origin.overrides)
    values = [f"{key}={overrides.as_override(key, value)}" for key, _, value in pairs]
    options = " ".join(f"-S {shlex.quote(value)}" for value in values)
    text = _commands(checkout, f"dvc exp run {options}" if options else "dvc repro")
    if origin.uncommitted:
        text += (
            f"{listed} The commit alone gives another result; the tag `code.sha256` shows whether "
            "the code is the same."
        )
    return text


def _apply(patch: Patch) -> str:
    """The commands that fetch the patch, which MLflow puts into the folder itself, and apply it."""
    folder = f".cache/uncommitted/{patch.run_id}"
    file = f"{folder}/{PurePosixPath(uncommitted.ARTIFACT).name}"
    return (
        f"{patch.command} artifacts download --run-id {patch.run_id} --artifact-path "
        f"{uncommitted.ARTIFACT} --dst-path {folder} && git apply --whitespace=nowarn {file}"
    )


def find_origin() -> Origin:
    """The origin of what is made in the working directory now."""
    experiment = os.environ.get("DVC_EXP_NAME", "")
    commit = provenance.head()
    status = ("--no-optional-locks", "status", "--porcelain", "--no-renames", "-z")
    listed = provenance.git(*status, "--", *provenance.SOURCES) or ""
    paths = [item[3:] for item in listed.split("\0") if item]  # two letters, a space, the path
    overrides = _overrides() if commit else ()
    if overrides is None:
        paths.append(params.FILE)
    return Origin(commit, experiment, overrides or (), tuple(sorted(paths)))


def _overrides() -> tuple[str, ...] | None:
    """The params that differ from those of HEAD, without those that cannot change a result; None if
    HEAD's cannot be read by this code."""
    committed = provenance.git("cat-file", "blob", f"HEAD:./{params.FILE}")
    if committed is None:
        return None
    try:
        with tempfile.TemporaryDirectory() as folder:
            write_text(Path(folder) / params.FILE, committed)
            before = params.load(folder)
        now = params.load()
    except InputError:
        return None
    moved = identity.differing(identity.canonical(before), identity.canonical(now))
    return tuple(
        f"{key}={value}"
        for key, (_, value) in moved.items()
        if not key.startswith(params.UNDECLARED)
    )


def _listed(items: Sequence[str]) -> str:
    more = f" and {len(items) - SHOWN} more" if len(items) > SHOWN else ""
    return ", ".join(f"`{item}`" for item in items[:SHOWN]) + more


def _commands(*lines: str) -> str:
    return "\n".join([BRING_BACK, "", "```console", *lines, "```"])
