"""Run the library on every set-up here:
`python -m tests.zoo.unseen.score [--budget 60] [NAME ...]`; `--list` prints what there is.

For each set-up one line with the report's status, then id, message and likely causes of each check
that fails or warns, under the cause that was expected; whether a named cause is the right one is
judged by reading. The totals count detection alone. `--json FILE` keeps the reports.
"""

import argparse
import importlib
import json
import multiprocessing
import time
import traceback
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

WORKERS = 2  # with one torch thread each: what a small machine runs side by side
LOUD = ("fail", "warn")


def load_tables() -> tuple[dict, dict]:
    """The healthy set-ups and the faults by name, after every file of set-ups was imported."""
    for file in sorted(Path(__file__).parent.glob("*.py")):
        if file.stem.startswith(("bases", "more_bases", "faults_", "healthy_")):
            importlib.import_module(f"tests.zoo.unseen.{file.stem}")
    from tests.zoo.unseen.registry import FAULTS, HEALTHY

    return HEALTHY, FAULTS


def examine(name: str, budget: float) -> dict[str, Any]:
    """The report on one set-up with its seconds; `status` is "crash" when the library raised."""
    import torch

    torch.set_num_threads(1)
    tables = load_tables()
    entry = tables[0].get(name) or tables[1][name]
    start = time.perf_counter()
    try:
        from src.checks import run

        report = run(entry.factory, budget_seconds=budget).as_dict()
    except Exception:
        report = {"status": "crash", "checks": [], "trace": traceback.format_exc()}
    return {**report, "name": name, "seconds": time.perf_counter() - start}


def in_fresh_process(name: str, budget: float) -> dict[str, Any]:
    """`examine` in a process of its own, so that one that dies takes no other with it."""
    context = multiprocessing.get_context("spawn")
    start = time.perf_counter()
    try:
        with ProcessPoolExecutor(1, mp_context=context) as pool:
            return pool.submit(examine, name, budget).result()
    except BrokenProcessPool as error:
        report = {"status": "crash", "checks": [], "trace": f"the process died: {error}"}
        return {**report, "name": name, "seconds": time.perf_counter() - start}


def show(report: dict[str, Any], entry: Any) -> None:
    """Print one report beside what was expected of it."""
    print(f"\n{report['name']}: {report['status']} ({report['seconds']:.0f} s)")
    print(f"  {entry.description}")
    if hasattr(entry, "expected"):
        print(f"  expected: {entry.expected}  [{entry.base}]")
    for check in report["checks"]:
        if check["status"] not in LOUD:
            continue
        after = f" (follows from {check['consequence_of']})" if check.get("consequence_of") else ""
        print(f"  {check['status']:4} {check['id']}{after}: {check['message']}")
        for cause in check.get("likely_causes") or []:
            print(f"       - {cause}")
    undecided = [check["id"] for check in report["checks"] if check["status"] == "inconclusive"]
    if undecided:
        print(f"  inconclusive: {', '.join(undecided)}")
    if "trace" in report:
        print("  " + report["trace"].strip().replace("\n", "\n  "))


def statuses(report: dict[str, Any]) -> set[str]:
    """The statuses that occur among the checks of a report."""
    return {check["status"] for check in report["checks"]}


def totals(reports: list[dict[str, Any]], healthy: dict, faults: dict) -> None:
    """Print what was detected and what was alarmed for nothing."""
    broken = [report for report in reports if report["name"] in faults]
    right = [report for report in reports if report["name"] in healthy]
    failed = [report for report in broken if "fail" in statuses(report)]
    warned = [report for report in broken if statuses(report) & set(LOUD)]
    crashed = [report["name"] for report in reports if report["status"] == "crash"]
    print(f"\nfaults: {len(warned)} of {len(broken)} detected, {len(failed)} of them with a fail")
    print("  missed: " + (", ".join(r["name"] for r in broken if r not in warned) or "none"))
    for status in LOUD:
        alarmed = [report["name"] for report in right if status in statuses(report)]
        print(f"healthy: {len(alarmed)} of {len(right)} with a {status} " + ", ".join(alarmed))
    if crashed:
        print(f"crashed: {len(crashed)} " + ", ".join(crashed))
    slowest = max(reports, key=lambda report: report["seconds"])
    print(f"slowest: {slowest['name']}, {slowest['seconds']:.0f} s")


def print_tables(healthy: dict, faults: dict) -> None:
    """Print name, description, base and expected cause of each fault, then the healthy ones."""
    for fault in faults.values():
        print(f"| {fault.name} | {fault.description} | {fault.base} | {fault.expected} |")
    for entry in healthy.values():
        print(f"| {entry.name} | {entry.description} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="only these set-ups")
    parser.add_argument("--budget", type=float, default=60, help="budget_seconds of a report")
    parser.add_argument("--json", type=Path, help="write all reports to this file")
    parser.add_argument("--list", action="store_true", help="print the tables and run nothing")
    options = parser.parse_args()
    healthy, faults = load_tables()
    if options.list:
        print_tables(healthy, faults)
        return
    entries = {**healthy, **faults}
    names = options.names or list(entries)
    unknown = [name for name in names if name not in entries]
    if unknown:
        parser.error(f"no set-up is called {', '.join(unknown)}; there are {', '.join(entries)}")
    reports = []
    with ThreadPoolExecutor(WORKERS) as pool:
        for report in pool.map(in_fresh_process, names, [options.budget] * len(names)):
            show(report, entries[report["name"]])
            reports.append(report)
    totals(reports, healthy, faults)
    if options.json:
        options.json.write_text(json.dumps(reports, indent=1, default=str))


if __name__ == "__main__":
    main()
