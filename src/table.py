"""The experiments side by side, in at most 120 columns: `python -m src.table [--all] [--csv]`.

`dvc exp show` has a column for every param and metric, some fifty; this one shows the accuracy on
val and those params that differ between the rows. `--final` also shows test; the look is counted.
"""

import csv
import io
import json
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass, replace
from datetime import datetime
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from src.experiments import origin, stored
from src.plumbing import command, dvc_errors, git, identity, workspace
from src.plumbing.errors import InputError
from src.plumbing.identity import METRICS
from src.plumbing.params import UNDECLARED

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

WIDTH = 120
GAP = 2  # blanks between columns
OTHER = 30  # width of the column for params without one of their own (choice)
LONGEST = 20  # characters of a param in a line; a longer one takes several (choice)
CHANGED, FOREIGN = "changed", "other inputs"


@dataclass(frozen=True)
class Row:
    """A line of the table; `params` holds every key, sections dotted."""

    name: str
    # "" when it succeeded, else queued, running, failed or unreadable; changed: its files (of a
    # commit the params) are not those that its metrics were made from; other inputs: its model was
    # not made from those in its dvc.lock.
    state: str
    val: float | None  # accuracies in 0..1; None while there is none
    test: float | None
    created: datetime | None
    params: dict[str, str]


def collect(every: bool) -> list[Row]:
    """The rows as `dvc exp show` knows them: the workspace and the commits first. `every` adds
    the experiments on earlier commits."""
    if find_spec("dvc") is None:
        raise ModuleNotFoundError("No module named 'dvc'", name="dvc")  # as an import of it would
    head = git.head()
    baselines = sorted({item.baseline for item in git.experiments()} - {head}) if every else []
    revs = [f"--rev={rev}" for rev in [head, *baselines]] if baselines else []
    command = [sys.executable, "-P", "-m", "dvc", "exp", "show", "--json", *revs]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise InputError(f"`dvc exp show` failed: {dvc_errors.reason(done.stderr)}")
    shown = json.loads(done.stdout)
    found = [(item, _row(item, "")) for item in shown]
    for baseline in shown:
        for child in baseline["experiments"] or []:
            state = (child["executor"] or {}).get("state", "success")
            item = child["revs"][0]
            found.append((item, _row(item, "" if state == "success" else state)))
    locks = git.read_at([(item["rev"], "dvc.lock") for item, _ in found])
    return [_without_old_metrics(row, lock) for (_, row), lock in zip(found, locks, strict=True)]


def _without_old_metrics(row: Row, lock: str | None = None) -> Row:
    """The row; without its metrics if they were made from other inputs, or from other params than
    those of the commit whose dvc.lock is given."""
    if row.val is None and row.test is None:
        return row
    if row.name == "workspace":
        lock = workspace.read_here("dvc.lock")
        changed = bool(identity.changed_inputs(lock or ""))
    else:
        changed = any(
            None not in pair
            for locked in stored.stages_of(lock or "").values()
            for pair in identity.differing(_texts(locked["params"]), row.params).values()
        )
    train = stored.stages_of(lock or "").get("train")
    is_foreign = train is not None and origin.other_inputs(train, workspace.main_repository())
    state = CHANGED if changed else FOREIGN if is_foreign else ""
    return replace(row, state=state, val=None, test=None) if state else row


def _row(item: dict[str, Any], state: str) -> Row:
    rev = item["rev"][:7] if len(item["rev"]) >= 40 else item["rev"]
    baseline = item["experiments"] is not None or rev == "workspace"
    name = f"{item['name']} ({rev})" if item["name"] and baseline else item["name"] or rev
    data = item["data"] or {}
    # What is queued or failed carries the files of the commit that it started from: not its result.
    metrics = (data.get("metrics") or {}).get(METRICS) if not state else None
    groups = (metrics or {}).get("data") or {}
    params: dict[str, Any] = {}
    for file in (data.get("params") or {}).values():
        for key, value in (file.get("data") or {}).items():
            section = value if isinstance(value, dict) else {"": value}
            params |= {f"{key}.{name}".rstrip("."): inner for name, inner in section.items()}
    return Row(
        name=name,
        state=state or ("unreadable" if item["error"] else ""),
        val=groups.get("val", {}).get("accuracy"),
        test=groups.get("test", {}).get("accuracy"),
        created=datetime.fromisoformat(data["timestamp"]) if data.get("timestamp") else None,
        params=_texts(params),
    )


def _texts(params: dict[str, Any]) -> dict[str, str]:
    """Params with one text for every spelling of a value."""
    return {key: str(identity.canonical(value)) for key, value in params.items()}


def differing(rows: list[Row]) -> list[str]:
    """The params that differ between the rows, most values first; none of section machine."""
    keys = dict.fromkeys(key for row in rows for key in row.params)
    values = {key: {row.params.get(key, "") for row in rows if row.params} for key in keys}
    found = [key for key in keys if len(values[key]) > 1 and not key.startswith(UNDECLARED)]
    return sorted(found, key=lambda key: -len(values[key]))


def layout(rows: list[Row], console: "Console", final: bool) -> "Table":
    """The rows in the console's width: long cells wrap, params without room share a column.
    `final`: with the accuracy on test."""
    keys, unlimited = differing(rows), console.options.update_width(10_000)
    for count in range(len(keys), -1, -1):
        table = _table(rows, keys[:count], keys[count:], console.width, final)
        if console.measure(table, options=unlimited).maximum <= console.width:
            break
    if count < len(keys):
        table.columns[-1].max_width = None  # it takes what room there is
    return table


def _table(rows: list[Row], keys: list[str], others: list[str], width: int, final: bool) -> "Table":
    """The table with a column for each of `keys` and one for all `others`; if nothing of its cells
    is cut, it may be wider than `width`."""
    from rich.table import Table
    from rich.text import Text

    columns = {"experiment": [row.name for row in rows]}
    if any(row.state for row in rows):
        columns["state"] = [row.state for row in rows]
    columns["val\naccuracy"] = [_accuracy(row.val) for row in rows]
    if final:
        columns["test\naccuracy"] = [_accuracy(row.test) for row in rows]
    if width >= WIDTH:
        columns["created"] = [
            f"{row.created:%Y-%m-%d %H:%M}" if row.created else "" for row in rows
        ]
    for key in keys:
        columns[key.replace(".", ".\n")] = [row.params.get(key, "-") for row in rows]
    if others:
        columns["other params"] = [_pairs(row, others, rows) for row in rows]
    table = Table(box=None, padding=(0, GAP, 0, 0), pad_edge=False, header_style="bold")
    widest = {"experiment": width // 4, "other params": OTHER}
    for header in columns:
        table.add_column(
            header,
            justify="right" if "accuracy" in header else "left",
            overflow="fold",
            max_width=widest.get(header, LONGEST),
        )
    for cells in zip(*columns.values(), strict=True):
        table.add_row(*map(Text, cells))
    return table


def _pairs(row: Row, keys: list[str], rows: list[Row]) -> str:
    """`key=value` of those params of a row that differ from the commit that it started from."""
    start = rows[min(1, len(rows) - 1)].params
    return " ".join(
        f"{key}={row.params[key]}"
        for key in keys
        if key in row.params and row.params[key] != start.get(key)
    )


def _accuracy(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def to_csv(rows: list[Row], final: bool) -> str:
    """The rows as CSV with every differing param in full; `final`: with the accuracy on test."""
    keys = differing(rows)
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    accuracies = ["val/accuracy", "test/accuracy"] if final else ["val/accuracy"]
    writer.writerow(["experiment", "state", *accuracies, "created", *keys])
    for row in rows:
        created = row.created.isoformat() if row.created else ""
        found = [row.val, row.test] if final else [row.val]
        values = [row.params.get(key, "") for key in keys]
        writer.writerow([row.name, row.state or "success", *found, created, *values])
    return buffer.getvalue()


def show(rows: list[Row], hidden: int, final: bool) -> None:
    """Print the table and what to do next; `hidden` experiments stand on earlier commits; `final`:
    with the accuracy on test."""
    from rich.console import Console

    console = Console(highlight=False)
    console.width = min(console.width, WIDTH) if console.is_terminal else WIDTH
    console.print(layout(rows, console, final))
    print()
    changed = [row.name for row in rows if row.state == CHANGED]
    if "workspace" in changed:
        print("workspace: changed since its metrics were made; run `dvc repro`")
    if committed := [name for name in changed if name != "workspace"]:
        print(
            f"{', '.join(committed)}: committed with other params than its metrics were made from"
        )
    if others := [row.name for row in rows if row.state == FOREIGN]:
        print(f"{', '.join(others)}: not made from the inputs in dvc.lock; src.where says more")
    waiting = Counter(row.name for row in rows if row.state in ("queued", "running"))
    for name in (name for name, count in waiting.items() if count > 1):
        print(f"{name}: {waiting[name]} are called so, and DVC keeps the first result alone: queue")
        print("the others anew under names of their own, after `dvc queue remove NAME`")
    if failed := [row.name for row in rows if row.state == "failed"]:
        print(f"dvc queue logs {failed[0]}   says why it failed")
    if hidden:
        print(f"python -m src.table --all   also shows what ran on earlier commits ({hidden})")
    print("python -m src.where EXPERIMENT   shows its metrics and leads to its MLflow runs")


def main() -> None:
    """The command line."""
    parser = command.parser("table", "The experiments side by side.")
    parser.add_argument("--all", action="store_true", help="also those on earlier commits")
    parser.add_argument("--csv", action="store_true", help="print CSV, with nothing shortened")
    parser.add_argument("--final", action="store_true", help="show test, too; the look is counted")
    arguments = parser.parse_args()
    workspace.require_project()
    rows = collect(arguments.all)
    if arguments.final:
        from src.experiments.compare import experiment_log, text

        # Beside the table: what reads the CSV does not want it there.
        print(text.looks(experiment_log.count_look()), file=sys.stderr)
    if arguments.csv:
        print(to_csv(rows, arguments.final), end="")
    else:
        head = git.head()
        earlier = [item for item in git.experiments() if item.baseline != head]
        show(rows, 0 if arguments.all else len(earlier), arguments.final)


if __name__ == "__main__":
    sys.exit(command.guarded(main))
