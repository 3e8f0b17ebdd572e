"""Where a result comes from: `python -m src.where [EXPERIMENT|REV]`, default: the workspace.

Goes from a dvc.lock (of the workspace, or of any experiment or commit, without a checkout) to the
metrics and to the MLflow runs that made them. A run is found by what it is: the fingerprint of its
stage in that dvc.lock, first among the local records, then in MLflow.
"""

import argparse
import hashlib
import json
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import yaml

from src import params, pipeline, stage, table
from src.errors import InputError
from src.table import METRICS, git
from src.tracking import journal, store, ui

STAGES = ("train", "overfit-check")  # those with an MLflow run of their own
COLUMNS = {
    "n": "pictures",
    "accuracy": "accuracy",
    "interval": "95 % interval",
    "macro_f1": "macro F1",
    "log_loss": "log loss",
    "baseline_accuracy": "logistic regression",
    "majority_accuracy": "majority class",
}


@dataclass(frozen=True)
class Target:
    """What was asked for: a commit (`rev`; an experiment is one), or the workspace (rev None)."""

    title: str
    rev: str | None = None
    experiment: str | None = None

    def read(self, path: str) -> str | None:
        """The text of a file of the project; None if it is not there."""
        if self.rev is not None:
            return git("show", f"{self.rev}:./{path}")
        file = Path(path)
        return file.read_text(encoding="utf-8") if file.is_file() else None


@dataclass
class Answer:
    """What is known of a target; `--json` prints these fields."""

    what: str
    rev: str | None
    metrics: dict[str, dict[str, float]] | None = None
    runs: dict[str, dict[str, str]] = field(default_factory=dict)  # by stage
    missing: dict[str, str] = field(default_factory=dict)  # stage or "metrics": why there is none
    changed: list[str] = field(default_factory=list)  # inputs that differ from dvc.lock


def resolve(name: str | None) -> Target:
    """The target that a name on the command line means; InputError if it means nothing or more
    than one thing. An experiment goes before a branch of the same name."""
    if name is None:
        return Target("workspace")
    known = table.experiments()
    named = [item for item in known if item.name == name]
    # The same name may stand under several commits; the one under HEAD is what `make table` shows.
    named = [item for item in named if item.baseline == table.head()] or named
    if len(named) > 1:
        revs = ", ".join(item.rev[:7] for item in named)
        raise InputError(f"{len(named)} experiments are called {name}: give one of {revs}")
    if named:
        title = f"experiment {name} ({named[0].rev[:7]}) on {_commit(named[0].baseline)}"
        return Target(title, named[0].rev, name)
    rev = git("rev-parse", "--verify", "--quiet", "--end-of-options", name + "^{commit}")
    if rev is not None:
        return Target(_commit(rev.strip()), rev.strip())
    if state := table.queue_state(name):
        raise InputError(f"experiment {name} {state}")
    branches = git("for-each-ref", "--format=%(refname:short)", "refs/heads", "refs/tags") or ""
    hint = params.did_you_mean(name, [item.name for item in known] + branches.split())
    raise InputError(f"no experiment or commit is called {name}{hint or '; see `make table`'}")


def _commit(rev: str) -> str:
    subject = (git("log", "-1", "--format=%s", rev) or "").strip()
    return f'commit {rev[:7]} "{subject if len(subject) <= 40 else subject[:39] + "…"}"'


def find(target: Target, root: Path) -> Answer:
    """The metrics and runs of a target; InputError if its dvc.lock has no trained network."""
    lock = target.read("dvc.lock")
    if lock is None:
        raise InputError(f"{target.title}: there is no dvc.lock yet; `make repro` makes it")
    try:
        train = pipeline.locked_stage(lock, "train")
        evaluate = pipeline.locked_stage(lock, "evaluate")
        prints = {name: pipeline.fingerprint_from_lock(lock, name) for name in STAGES}
    except (yaml.YAMLError, AttributeError, KeyError, TypeError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{target.title}: dvc.lock cannot be read ({reason})") from None
    if train is None:
        raise InputError(f"{target.title}: dvc.lock has no entry of train; `make repro` makes it")
    answer = Answer(target.title, target.rev)
    metrics = target.read(METRICS)
    if metrics is not None and _belongs(metrics, train, evaluate):
        answer.metrics = json.loads(metrics)
    else:
        answer.missing["metrics"] = f"no {METRICS} of this network: `dvc repro` makes it"
    for name, fingerprint in prints.items():
        try:
            run = fingerprint and (_recorded(root, fingerprint) or _search(root, fingerprint))
        except Exception as error:  # whatever MLflow raises for a server that is down or foreign
            reason = str(error) if isinstance(error, InputError) else type(error).__name__
            answer.missing[name] = f"MLflow does not answer ({reason})"
            continue
        if run:
            answer.runs[name] = run
        else:
            answer.missing[name] = "none here: it ran elsewhere, or with tracking off"
    if target.rev is None:
        answer.changed = _changed_inputs(lock)
    return answer


def _belongs(metrics: str, train: dict[str, Any], evaluate: dict[str, Any] | None) -> bool:
    """Whether the metrics are those of the network in dvc.lock: evaluate may not have run on it."""
    md5_of_metrics = hashlib.md5(metrics.encode()).hexdigest()
    if evaluate is None or evaluate["outs"].get(METRICS) != md5_of_metrics:
        return False
    return all(evaluate["deps"].get(out, md5) == md5 for out, md5 in train["outs"].items())


def _recorded(root: Path, fingerprint: str) -> dict[str, str] | None:
    record = journal.load_record(root, fingerprint)
    if record is None or not record.run_id:
        return None
    return _run(record.name, record.state, record.experiment_id, record.run_id)


def _search(root: Path, fingerprint: str) -> dict[str, str] | None:
    """The newest run with the tag `fingerprint`. Imports mlflow, which takes seconds."""
    database = store.tracking_uri(root).partition("sqlite:///")[2]
    if database and not Path(unquote(database)).exists():
        return None  # looking for a run must not create a store
    client, experiment_id = store.open_store(root)
    found = client.search_runs(
        [experiment_id],
        f"tags.fingerprint = '{fingerprint}'",
        order_by=["attributes.start_time DESC"],
        max_results=1,
    )
    if not found:
        return None
    info = found[0].info
    return _run(info.run_name, info.status.lower(), info.experiment_id, info.run_id)


def _run(name: str, state: str, experiment_id: str, run_id: str) -> dict[str, str]:
    page = f"{ui.base_address()}#/experiments/{experiment_id}/runs/{run_id}{ui.TRAINING_VIEW}"
    return {"name": name, "state": state, "run_id": run_id, "address": page}


def _changed_inputs(lock: str) -> list[str]:
    """The params and code files of the workspace that differ from those in dvc.lock."""
    try:
        values, versions = params.load(), pipeline.read_versions()
        changed: dict[str, None] = {}  # a set that keeps its order
        for name in ("prepare", "subset", "overfit-check", "train", "evaluate"):
            entry, locked = pipeline.stage_entry(name, values), pipeline.locked_stage(lock, name)
            if locked is None:
                changed[f"{name} has not run"] = None
                continue
            for key, value in pipeline.declared_values(entry, values, versions).items():
                if pipeline.canonical(value) != pipeline.canonical(locked["params"].get(key)):
                    changed[f"{key}={value}"] = None
            for dep in entry.deps:  # data takes long to hash: `dvc status` tells of it
                if dep.endswith(".py") and pipeline.md5_of(dep) != locked["deps"].get(dep):
                    changed[dep] = None
        return list(changed)
    except (InputError, OSError) as error:
        return [str(error)]


def render(answer: Answer, experiment: str | None) -> str:
    """The answer for people, in 100 columns (an address or a name may be longer)."""
    lines = [answer.what]
    if answer.changed:
        more = f" and {len(answer.changed) - 3} more" if len(answer.changed) > 3 else ""
        lines.append(f"changed since: {', '.join(answer.changed[:3])}{more}; run `dvc repro`")
    lines.append("")
    widths = [max(len(title), 8) for title in COLUMNS.values()]
    rows = {"": list(COLUMNS.values())} if answer.metrics else {}
    for group, values in (answer.metrics or {}).items():
        rows[group] = [_cell(values, key) for key in COLUMNS]
    for label, row in rows.items():
        cells = (f"{cell:>{width}}" for cell, width in zip(row, widths, strict=True))
        lines.append(f"{label:6}" + "  ".join(cells))
    if "metrics" in answer.missing:
        lines.append(answer.missing["metrics"])
    lines += ["", "MLflow runs"]
    for name in STAGES:
        if run := answer.runs.get(name):
            state = "" if run["state"] == "finished" else f" ({run['state']})"
            lines += [f"  {name:15}{run['name']}{state}", f"{'':17}{run['address']}"]
        else:
            lines.append(f"  {name:15}{answer.missing[name]}")
    lines += ["", "Where to look next"]
    if ui.server_address() is None:
        lines.append("  make ui        serves the addresses above: curves, pictures, data sets")
    if experiment:
        lines += [
            f"  dvc exp apply {experiment}",
            f"{'':17}brings its params, results and model here",
        ]
    elif answer.rev is None:
        lines.append("  results/       confusion matrix, per-class table, worst mistakes, curves")
    return "\n".join([*lines, "  make table     shows the experiments side by side"])


def _cell(group: dict[str, float], key: str) -> str:
    if key == "interval":
        return f"{_cell(group, 'accuracy_low')} - {_cell(group, 'accuracy_high')}"
    value = group.get(key)
    return "-" if value is None else f"{value:.4f}" if key != "n" else str(value)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m src.where", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("name", nargs="?", metavar="EXPERIMENT|REV", help="default: the workspace")
    parser.add_argument("--json", action="store_true", help="print everything as JSON")
    arguments = parser.parse_args()
    target = resolve(arguments.name)
    answer = find(target, pipeline.main_repository())
    print(
        json.dumps(asdict(answer), indent=2)
        if arguments.json
        else render(answer, target.experiment)
    )


if __name__ == "__main__":
    sys.exit(stage.guarded(main))
