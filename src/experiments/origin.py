"""Whether the model of a dvc.lock was made from the inputs that stand beside it there.

`dvc commit` writes the hashes of whatever lies in the workspace, inputs and outputs, and asks not
which made which. models/model.json names the inputs that made it: their fingerprint.
"""

import sys
from collections.abc import Iterable
from pathlib import Path

from src.experiments import stored
from src.plumbing import hashes, identity
from src.plumbing.identity import MODEL, Entry

SHOWN = 3  # inputs that a line names (choice)


def other_inputs(train: Entry, root: Path) -> str:
    """The fingerprint that made the model of an entry of train, if it is not the entry's own; empty
    if it is, or if the model's description is not here. `root`: the main repository."""
    md5 = train["outs"].get(MODEL, "")
    for path in (Path(MODEL), stored.in_cache(md5, root) if md5 else None):
        if path and path.is_file() and hashes.md5_of(path) == md5:
            return identity.other_origin(train, path.read_text(encoding="utf-8"))
    return ""


def remark(train: Entry, root: Path) -> str:
    """A line that says so, with what differs if a commit or experiment has those other inputs;
    empty if the model was made from the inputs of the entry, or is not here."""
    if not (fingerprint := other_inputs(train, root)):
        return ""
    changed = _differences(fingerprint, train)
    more = f" and {len(changed) - SHOWN} more" if len(changed) > SHOWN else ""
    words = f" ({', '.join(changed[:SHOWN])}{more})" if changed else ""
    return (
        f"not made from these inputs: {MODEL} is of others than dvc.lock names{words}, as after "
        "`dvc commit`; `dvc repro --force train` makes one of these"
    )


def warn_of(results: Iterable[stored.Result], root: Path) -> None:
    """A line on stderr for each result that was not made from the inputs of its dvc.lock."""
    for result in results:
        if line := remark(result.stages["train"], root):
            print(f"{result.name} was {line}", file=sys.stderr)


def _differences(fingerprint: str, train: Entry) -> list[str]:
    """What differs between the training with a fingerprint, if a dvc.lock has it, and an entry."""
    for _, _, lock in stored.locks():
        made = stored.stages_of(lock).get("train")
        if made and identity.fingerprint_of(made) == fingerprint:
            found = identity.differences("train", made, train)
            return [item.key if item.kind == "dep" else f"{item.key}={item.now}" for item in found]
    return []
