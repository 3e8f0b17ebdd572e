"""The description of a training's run: what changed, its result, and how the result comes back."""

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
from src.tracking.journal.journal import load_record
from src.tracking.store import store

SHOWN = 20  # changes, and paths, that a line names (choice); the tag `changed` has more
COMMIT = 12  # digits of a commit: unique, and git takes them
UNKNOWN = "RUN_ID"  # stands for the id of a run as long as no store gave it one


@dataclass(frozen=True)
class Origin:
    """The state that a result was made from.

    `commit`: HEAD, empty outside git. `experiment`: DVC's name for it, as far as it is known while
    it runs. `overrides`: "lr=0.003", the params that are not those of the commit. `uncommitted`:
    the other inputs that are not.
    """

    commit: str
    experiment: str = ""
    overrides: tuple[str, ...] = ()
    uncommitted: tuple[str, ...] = ()


@dataclass(frozen=True)
class Patch:
    """The difference to the commit that the run `run_id` has, less the files in `left_out`;
    `command`: how MLflow is called for it."""

    run_id: str
    left_out: tuple[str, ...] = ()
    command: str = "mlflow"


def train_note(stage: Stage, fingerprint: str, markdown: str) -> str:
    """The description for the run of a training with this fingerprint, as `stage` (train itself, or
    evaluate with its result in `markdown`) sees it in the working directory."""
    entry = provenance.train_entry(stage, fingerprint)
    origin = find_origin()
    line = changed_line(provenance.changes("train", entry), origin.commit) if entry else ""
    return compose(line, markdown, how_to_bring_back(origin, _find_patch(stage, fingerprint)))


def compose(changed: str, summary: str, bring_back: str) -> str:
    """The parts that are not empty, as paragraphs."""
    return "\n\n".join(part.strip("\n") for part in (changed, summary, bring_back) if part.strip())


def changed_line(changes: Sequence[str] | None, commit: str) -> str:
    """What differs from the baseline, the dvc.lock of `commit`. `changes`: as `provenance.changes`
    gives them, None if that dvc.lock has no training."""
    where = f"commit `{commit[:COMMIT]}`" if commit else "the last commit"
    if changes is None:
        return f"**First training**: {where} has none to compare with."
    if not changes:
        return f"**Nothing changed** against {where}: this is the baseline."
    return f"**Changed** against {where}: {_listed(changes)}"


def how_to_bring_back(origin: Origin, patch: Patch | None = None) -> str:
    """The commands that give the same result again, and what they lack for that. `patch`: None if
    the run has none that fits."""
    if origin.experiment:  # it holds the code and the params, committed or not
        return _commands(f"dvc exp apply {shlex.quote(origin.experiment)}")
    if not origin.commit:
        return "Not in a git repository: no commit brings this result back."
    checkout = f"git checkout {origin.commit[:COMMIT]}"
    if origin.uncommitted and patch:
        return _commands(f"{checkout} && {_apply(patch)}", "dvc repro") + _lacking(origin, patch)
    options = " ".join(f"-S {shlex.quote(_override(item))}" for item in origin.overrides)
    text = _commands(checkout, f"dvc exp run {options}" if options else "dvc repro")
    if origin.uncommitted:
        text += (
            f"\n\n**Not committed** when it was made: {_listed(origin.uncommitted)}. The commit "
            "alone gives another result; the tag `code.sha256` tells whether code is the same."
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


def _lacking(origin: Origin, patch: Patch) -> str:
    """What was not committed, and what of it the patch does not bring."""
    text = f"\n\n**Not committed** when it was made: {_listed(origin.uncommitted)}."
    if patch.left_out:
        text += f" The patch lacks {_listed(patch.left_out)}."
    if patch.run_id == UNKNOWN:
        text += f" `{UNKNOWN}` stands for the id of this run."
    return text


def _override(item: str) -> str:
    """`key=value` as `dvc exp run -S` takes it."""
    key, _, value = item.partition("=")
    return f"{key}={overrides.as_override(key, value)}"


def _find_patch(stage: Stage, fingerprint: str) -> Patch | None:
    """The difference of now, if the run of the training with this fingerprint has it. That of
    `train` itself gets it; the workspace of a later stage may be another."""
    text = uncommitted.difference()
    record = load_record(stage.root, fingerprint, store.name(stage.root))
    # A training that finished is done again in a new run, which has an id when its record is saved.
    trains = stage.name == "train"
    run_id = record.run_id if record and not (trains and record.state == "finished") else ""
    if trains:
        uncommitted.remember(stage.root, fingerprint, run_id, text)
    elif not uncommitted.is_that_of(stage.root, fingerprint, run_id, text):
        return None
    if not uncommitted.is_patch(text):
        return None
    local = store.tracking_uri(stage.root) == store.local_uri(stage.root)
    command = f"MLFLOW_TRACKING_URI={store.name(stage.root)} mlflow" if local else "mlflow"
    return Patch(run_id or UNKNOWN, tuple(uncommitted.files_left_out(text)), command)


def find_origin() -> Origin:
    """The origin of what is made in the working directory now."""
    experiment = os.environ.get("DVC_EXP_NAME", "")
    commit = (provenance.git("rev-parse", "--verify", "--quiet", "HEAD") or "").strip()
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
    committed = provenance.git("show", f"HEAD:./{params.FILE}")
    if committed is None:
        return None
    try:
        with tempfile.TemporaryDirectory() as folder:
            write_text(Path(folder) / params.FILE, committed)
            before = params.load(folder)
        now = params.load()
    except InputError:
        return None
    moved = {
        key: identity.canonical(value)
        for key, value in now.items()
        if not key.startswith(params.UNDECLARED)
        and identity.canonical(value) != identity.canonical(before[key])
    }
    return tuple(f"{key}={value}" for key, value in moved.items())


def _listed(items: Sequence[str]) -> str:
    more = f" and {len(items) - SHOWN} more" if len(items) > SHOWN else ""
    return ", ".join(f"`{item}`" for item in items[:SHOWN]) + more


def _commands(*lines: str) -> str:
    return "\n".join(["Bring this result back:", "", "```console", *lines, "```"])
