"""Where a result comes from: `python -m src.where [EXPERIMENT|REV|RUN ID]`, default: the workspace.

Goes from a dvc.lock (of the workspace, or of any experiment or commit, without a checkout) to the
metrics and to the MLflow runs that made them. A run is found by what it is: the fingerprint of its
stage in that dvc.lock, first among the local records, then in MLflow, whoever made it.
"""

import json
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path

from src.experiments import origin
from src.experiments.target import MODEL, Target, find_target
from src.plumbing import command, identity, workspace
from src.plumbing.errors import InputError
from src.plumbing.identity import METRICS
from src.tracking import lookup
from src.tracking.log import MODEL_MD5
from src.tracking.store import pages, store

LISTED = ("train", "overfit-check")  # stages whose runs are shown, or why there is none
WITHOUT_RUN = ("prepare", "subset")
COLUMNS = {
    "n": "images",
    "accuracy": "accuracy",
    "interval": "95 % interval",
    "macro_f1": "macro F1",
    "log_loss": "log loss",
    "baseline_accuracy": "logistic regression",
    "majority_accuracy": "majority class",
}


@dataclass
class Found:
    """What is known of a target; `--json` prints these fields."""

    what: str
    rev: str | None
    store: str = ""  # where runs are kept now: its address without credentials
    ui: str | None = None  # the address of the server that shows it; None if none runs
    metrics: dict[str, dict[str, float]] | None = None
    runs: dict[str, dict[str, str]] = field(default_factory=dict)  # by stage
    trouble: str = ""  # why the store was not asked for all runs
    missing: dict[str, str] = field(default_factory=dict)  # stage or "metrics": why there is none
    changed: list[str] = field(default_factory=list)  # inputs that differ from dvc.lock
    origin: str = ""  # a line if the model is not of the inputs in dvc.lock


def find(target: Target, root: Path) -> Found:
    """The metrics and runs of a target; InputError if its dvc.lock has no trained network."""
    lock, entries = target.locked()
    store.follow(root)  # the id of a run is shown, with which MLflow finds its files
    prints = {name: identity.fingerprint_of(entry) for name, entry in entries.items()}
    found = Found(target.title, target.rev, store.name(root))
    metrics = target.read(METRICS)
    if metrics and identity.metrics_belong(metrics, entries["train"], entries.get("evaluate")):
        found.metrics = json.loads(metrics)
    else:
        found.missing["metrics"] = f"no {METRICS} of this network: `dvc repro` makes it"
    if other := origin.other_inputs(entries["train"], root):
        found.origin = origin.remark(entries["train"], root)
        prints["train"] = other  # the run that made this model is the one to look at
    for name in LISTED:
        run = _run_of(root, prints[name], found) if name in prints else None
        if run:
            found.runs[name] = run
        else:
            found.missing[name] = "none here: it ran elsewhere, or with tracking off"
            if other and name != "train":
                found.missing[name] = "none of these inputs"
    if "train" in found.missing and (alike := _run_of_model(root, entries["train"], found)):
        found.missing["train"] = f"none of these inputs; of others, with the same weights: {alike}"
    # An evaluation with other settings has a run of its own, and so may have a stage of yours;
    # without a record of it the store is only asked where that of train is not recorded either.
    for name in (name for name in prints if name not in (*LISTED, *WITHOUT_RUN)):
        own = prints[name]
        if lookup.recorded_run(root, own) or not lookup.recorded_run(root, prints["train"]):
            run = _run_of(root, own, found)
            found.runs |= {name: run} if run else {}
    if target.rev is None:
        found.changed = identity.changed_inputs(lock)
    found.ui = pages.server_address() or pages.running_address(root)
    return found


def _run_of(root: Path, fingerprint: str, found: Found) -> dict[str, str] | None:
    """The run with a fingerprint. One in the present store goes first, known from its record or
    found there; then one in a store that was in use before. A store that does not answer is noted
    in `found`, and not asked again: each time takes seconds."""
    if (run := lookup.recorded_run(root, fingerprint)) and run["run_id"]:
        return run
    if run := _asked(root, {"fingerprint": fingerprint}, found):
        return run
    run = lookup.recorded_run(root, fingerprint, elsewhere=True)
    return run if run and run["run_id"] else None


def _run_of_model(root: Path, train: identity.Entry, found: Found) -> str:
    """The run, in words, that gave the weights of an entry of train for which there is none: with
    other inputs, which model.json would tell if it were here. Empty if there is none."""
    md5 = train["outs"].get(MODEL, "")
    run = _asked(root, {MODEL_MD5: md5}, found) if md5 else None
    return f"{run['name']}, {run['address']}" if run else ""


def _asked(root: Path, tags: dict[str, str], found: Found) -> dict[str, str] | None:
    """The run with these tags in the present store."""
    try:
        return None if found.trouble else lookup.run_of_anyone(root, tags)
    except Exception as error:  # whatever MLflow raises for a server that is down or foreign
        shown = isinstance(error, InputError | store.StoreError)
        found.trouble = f"MLflow does not answer ({error if shown else type(error).__name__})"
        return None


def render(found: Found, experiment: str | None) -> str:
    """What was found, for people, in 100 columns (an address or a name may be longer)."""
    lines = [found.what]
    if found.changed:
        more = f" and {len(found.changed) - 3} more" if len(found.changed) > 3 else ""
        lines.append(f"changed since: {', '.join(found.changed[:3])}{more}; run `dvc repro`")
    if found.origin:
        lines.append(found.origin)
    lines.append("")
    rows = {"": list(COLUMNS.values())} if found.metrics else {}
    for group, values in (found.metrics or {}).items():
        rows[group] = [_cell(values, key) for key in COLUMNS]
    widths = [max(8, *map(len, column)) for column in zip(*rows.values(), strict=True)]
    for label, row in rows.items():
        cells = (f"{cell:>{width}}" for cell, width in zip(row, widths, strict=True))
        lines.append(f"{label:6}" + "  ".join(cells))
    counts = {split: m["groups"] for split, m in (found.metrics or {}).items() if "groups" in m}
    if counts:
        shown = ", ".join(f"{count} of {split}" for split, count in counts.items())
        lines.append(f"intervals over groups: {shown}")
    if "metrics" in found.missing:
        lines.append(found.missing["metrics"])
    lines += ["", f"MLflow runs in {found.store}"]
    if found.trouble:
        lines.append(f"  {found.trouble}")
    for name in dict.fromkeys([*LISTED, *found.runs]):
        if run := found.runs.get(name):
            state = "" if run["state"] == "finished" else f" ({run['state']})"
            elsewhere = "" if run["store"] == found.store else f" in {run['store']}"
            user = f", by {run['user']}" if run.get("user") else ""
            page = run["address"] or f"open it with MLFLOW_TRACKING_URI={run['store']}"
            lines += [f"  {name:15}{run['name']}{state}{user}{elsewhere}", f"{'':17}{page}"]
        else:
            lines.append(f"  {name:15}{found.missing[name]}")
    lines += ["", "Where to look next"]
    if found.ui is None and found.runs:
        lines.append("  make ui        serves the addresses above: curves, images, data sets")
    if experiment:
        lines += [
            f"  dvc exp apply {experiment}",
            f"{'':17}brings its params, results and model here; commit your own edits first,",
            f"{'':17}it puts them aside into refs/exps/apply/stash without a word",
        ]
    elif found.rev is None:
        lines.append("  results/       confusion matrix, per-class table, worst mistakes, curves")
    return "\n".join([*lines, "  make table     shows the experiments side by side"])


def _cell(group: dict[str, float], key: str) -> str:
    if key == "interval":
        return f"{_cell(group, 'accuracy_low')} - {_cell(group, 'accuracy_high')}"
    value = group.get(key)
    return "-" if value is None else f"{value:.4f}" if key != "n" else str(value)


def main() -> None:
    """The command line."""
    parser = command.parser("where", __doc__)
    names = "EXPERIMENT|REV|RUN ID"
    parser.add_argument("name", nargs="?", metavar=names, help="default: the workspace")
    parser.add_argument("--json", action="store_true", help="print everything as JSON")
    arguments = parser.parse_args()
    workspace.require_project()
    root = workspace.main_repository()
    target = find_target(arguments.name, root)
    found = find(target, root)
    text = render(found, target.experiment)
    print(json.dumps(asdict(found), indent=2) if arguments.json else text)


if __name__ == "__main__":
    sys.exit(command.guarded(main))
