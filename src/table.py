"""The experiments side by side, in at most 120 columns: `python -m src.table [--all] [--csv]`.

`dvc exp show` has a column for every param and metric, some fifty; this one shows the accuracies
and those params that differ between the rows.
"""

import argparse
import csv
import io
import json
import subprocess
import sys
from dataclasses import dataclass, replace
from datetime import datetime
from importlib.util import find_spec
from typing import Any

from src.experiments import stored
from src.plumbing import command, git, identity, workspace
from src.plumbing.errors import InputError
from src.plumbing.git import experiments, head
from src.plumbing.identity import METRICS
from src.plumbing.params import UNDECLARED

WIDTH = 120
GAP = 2  # blanks between columns
OTHER = 30  # width kept for the params that get no column of their own
CHANGED = "changed"


@dataclass(frozen=True)
class Row:
    """A line of the table; `params` holds every key, sections dotted."""

    name: str
    # "" when it succeeded, else queued, running, failed or unreadable; changed: its files (of a
    # commit the params) are not those that its metrics were made from.
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
    baselines = sorted({item.baseline for item in experiments()} - {head()}) if every else []
    revs = [f"--rev={rev}" for rev in [head(), *baselines]] if baselines else []
    command = [sys.executable, "-P", "-m", "dvc", "exp", "show", "--json", *revs]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        reason = (done.stderr.strip() or "no reason given").splitlines()[-1]
        raise InputError(f"`dvc exp show` failed: {reason}")
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
        changed = bool(identity.changed_inputs(workspace.read_here("dvc.lock") or ""))
    else:
        changed = any(
            key in row.params
            and str(identity.canonical(value)) != str(identity.canonical(row.params[key]))
            for locked in (stored.stages_of(lock or "") or {}).values()
            for key, value in locked["params"].items()
        )
    return replace(row, state=CHANGED, val=None, test=None) if changed else row


def _row(item: dict[str, Any], state: str) -> Row:
    rev = item["rev"][:7] if len(item["rev"]) >= 40 else item["rev"]
    baseline = item["experiments"] is not None or rev == "workspace"
    name = f"{item['name']} ({rev})" if item["name"] and baseline else item["name"] or rev
    data = item["data"] or {}
    # What is queued or failed carries the files of the commit that it started from: not its result.
    metrics = (data.get("metrics") or {}).get(METRICS) if not state else None
    groups = (metrics or {}).get("data") or {}
    params: dict[str, str] = {}
    for file in (data.get("params") or {}).values():
        for key, value in (file.get("data") or {}).items():
            if isinstance(value, dict):
                params.update({f"{key}.{name}": _text(inner) for name, inner in value.items()})
            else:
                params[key] = _text(value)
    return Row(
        name=name,
        state=state or ("unreadable" if item["error"] else ""),
        val=groups.get("val", {}).get("accuracy"),
        test=groups.get("test", {}).get("accuracy"),
        created=datetime.fromisoformat(data["timestamp"]) if data.get("timestamp") else None,
        params=params,
    )


def _text(value: Any) -> str:
    """A value of params.yaml as it is written there."""
    return str(identity.canonical(value) if isinstance(value, bool | list) else value)


def differing(rows: list[Row]) -> list[str]:
    """The params that differ between the rows, most values first; none of section machine."""
    keys = {key: 0 for row in rows for key in row.params if not key.startswith(UNDECLARED)}
    values = {
        key: {str(identity.canonical(row.params.get(key, ""))) for row in rows if row.params}
        for key in keys
    }
    return sorted((key for key in keys if len(values[key]) > 1), key=lambda key: -len(values[key]))


def columns(rows: list[Row], width: int = WIDTH) -> dict[str, list[str]]:
    """Header to cells, at most `width` wide together; params that find no room share a column."""
    narrow = width < WIDTH
    cells = {"experiment": [_short(row.name, 24 if narrow else 34) for row in rows]}
    if any(row.state for row in rows):
        cells["state"] = [row.state for row in rows]
    cells["val\naccuracy"] = [_accuracy(row.val) for row in rows]
    cells["test\naccuracy"] = [_accuracy(row.test) for row in rows]
    if not narrow:
        cells["created"] = [_moment(row.created) for row in rows]
    keys = differing(rows)
    params = {
        key.replace(".", ".\n"): [_short(row.params.get(key, "-"), 20) for row in rows]
        for key in keys
    }
    if sum(map(_width, [*cells.items(), *params.items()])) - GAP <= width:
        return cells | params
    room = width - sum(map(_width, cells.items()))
    reference = rows[min(1, len(rows) - 1)].params  # the commit that the experiments started from
    rest = []
    for key, (header, values) in zip(keys, params.items(), strict=True):
        if (needed := _width((header, values))) <= room - OTHER:
            room -= needed
            cells[header] = values
        else:
            rest.append(key)
    cells["other params"] = [
        " ".join(
            _pair(key, row.params[key], max(room, OTHER // 2))
            for key in rest
            if key in row.params and row.params[key] != reference.get(key)
        )
        for row in rows
    ]
    return cells


def _pair(key: str, value: str, length: int) -> str:
    """`key=value` that fits into a line of the last column; the key tells more than the value."""
    text = f"{key}={_short(value, 20)}"
    return text if len(text) <= length else _short(f"{key}={_short(value, 8)}", length)


def _width(column: tuple[str, list[str]]) -> int:
    return GAP + max(len(text) for text in [*column[0].split("\n"), *column[1]])


def _short(text: str, length: int) -> str:
    """A long text without its middle: names and paths differ at their ends."""
    if len(text) <= length:
        return text
    head = (length - 1) // 3
    return text[:head] + "…" + text[len(text) - (length - 1 - head) :]


def _accuracy(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _moment(created: datetime | None) -> str:
    return created.strftime("%Y-%m-%d %H:%M") if created else ""


def to_csv(rows: list[Row]) -> str:
    """The rows as CSV with every differing param in full."""
    keys = differing(rows)
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["experiment", "state", "val/accuracy", "test/accuracy", "created", *keys])
    for row in rows:
        created = row.created.isoformat() if row.created else ""
        values = [row.params.get(key, "") for key in keys]
        writer.writerow([row.name, row.state or "success", row.val, row.test, created, *values])
    return buffer.getvalue()


def show(rows: list[Row], hidden: int) -> None:
    """Print the table and what to do next; `hidden` experiments stand on earlier commits."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False)
    if not console.is_terminal or console.width > WIDTH:
        console.width = WIDTH
    grid = Table(box=None, padding=(0, GAP, 0, 0), pad_edge=False, header_style="bold")
    shown = columns(rows, console.width)
    for header in shown:
        grid.add_column(
            header, justify="right" if "accuracy" in header else "left", overflow="fold"
        )
    for cells in zip(*shown.values(), strict=True):
        grid.add_row(*(Text(cell) for cell in cells))
    console.print(grid)
    print()
    changed = [row.name for row in rows if row.state == CHANGED]
    if "workspace" in changed:
        print("workspace: changed since its metrics were made; run `dvc repro`")
    if stale := [name for name in changed if name != "workspace"]:
        print(f"{', '.join(stale)}: committed with other params than its metrics were made from")
    if failed := [row.name for row in rows if row.state == "failed"]:
        print(f"dvc queue logs {failed[0]}   says why it failed")
    if hidden:
        print(f"python -m src.table --all   also shows what ran on earlier commits ({hidden})")
    print("python -m src.where EXPERIMENT   shows its metrics and leads to its MLflow runs")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m src.table", description="The experiments side by side."
    )
    parser.add_argument("--all", action="store_true", help="also those on earlier commits")
    parser.add_argument("--csv", action="store_true", help="print CSV, with nothing shortened")
    arguments = parser.parse_args()
    workspace.require_project()
    rows = collect(arguments.all)
    if arguments.csv:
        print(to_csv(rows), end="")
    else:
        show(rows, 0 if arguments.all else sum(item.baseline != head() for item in experiments()))


if __name__ == "__main__":
    sys.exit(command.guarded(main))
