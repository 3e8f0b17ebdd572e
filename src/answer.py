"""What `src.where` knows of a result, and how people read it."""

from dataclasses import dataclass, field

STAGES = ("train", "overfit-check")  # of whose MLflow run, or of its absence, it always tells
COLUMNS = {
    "n": "pictures",
    "accuracy": "accuracy",
    "interval": "95 % interval",
    "macro_f1": "macro F1",
    "log_loss": "log loss",
    "baseline_accuracy": "logistic regression",
    "majority_accuracy": "majority class",
}


@dataclass
class Answer:
    """What is known of a target; `--json` prints these fields."""

    what: str
    rev: str | None
    store: str = ""  # where runs are kept now: its address without credentials
    ui: str | None = None  # the address of the server that shows it; None if none runs
    metrics: dict[str, dict[str, float]] | None = None
    runs: dict[str, dict[str, str]] = field(default_factory=dict)  # by stage
    missing: dict[str, str] = field(default_factory=dict)  # stage or "metrics": why there is none
    changed: list[str] = field(default_factory=list)  # inputs that differ from dvc.lock


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
    lines += ["", f"MLflow runs in {answer.store}"]
    for name in dict.fromkeys([*STAGES, *answer.runs]):
        if run := answer.runs.get(name):
            state = "" if run["state"] == "finished" else f" ({run['state']})"
            lines += [
                f"  {name:15}{run['name']}{state}",
                f"{'':17}{run['address'] or 'open it with MLFLOW_TRACKING_URI=' + run['store']}",
            ]
            if run["store"] != answer.store:
                lines[-2] += f" in {run['store']}"
        else:
            lines.append(f"  {name:15}{answer.missing[name]}")
    lines += ["", "Where to look next"]
    if answer.ui is None and answer.runs:
        lines.append("  make ui        serves the addresses above: curves, pictures, data sets")
    if experiment:
        lines += [
            f"  dvc exp apply {experiment}",
            f"{'':17}brings its params, results and model here; commit your own edits first,",
            f"{'':17}it puts them aside into refs/exps/apply/stash without a word",
        ]
    elif answer.rev is None:
        lines.append("  results/       confusion matrix, per-class table, worst mistakes, curves")
    return "\n".join([*lines, "  make table     shows the experiments side by side"])


def _cell(group: dict[str, float], key: str) -> str:
    if key == "interval":
        return f"{_cell(group, 'accuracy_low')} - {_cell(group, 'accuracy_high')}"
    value = group.get(key)
    return "-" if value is None else f"{value:.4f}" if key != "n" else str(value)
