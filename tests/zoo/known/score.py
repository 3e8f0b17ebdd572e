"""The score of the battery on the zoo: `python -m tests.zoo.known.score` (or `make zoo`).

Runs every fault, harmless change and healthy set-up, prints what was detected, whether the right
cause was named, the false alarms and the seconds, beside what simpler practices catch; and writes
all of it to .cache/zoo.json.
"""

import argparse
import multiprocessing
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from src.base.files import write_json
from src.reports.metrics import interval

STORED = Path(".cache/zoo.json")
KINDS = ("fault", "subtle", "harmless", "healthy")
NAMED_AMONG = 2


@dataclass
class Result:
    """What became of one set-up. `found`: check id -> status of what did not pass, the worst first
    where an id stands several times; `causes`: of the first finding; `rivals`: what they saw."""

    name: str
    kind: str
    status: str
    seconds: float  # of one processor
    causes: list[str] = field(default_factory=list)
    expected: list[str] = field(default_factory=list)
    found: dict[str, str] = field(default_factory=dict)
    named_by: list[str] = field(default_factory=list)  # checks with a right cause among their first
    messages: list[str] = field(default_factory=list)
    rivals: dict[str, str | None] = field(default_factory=dict)

    @property
    def detected(self) -> bool:
        return bool({"fail", "warn"} & set(self.found.values()))

    @property
    def named(self) -> bool:
        return self.detected and bool(set(self.causes[:NAMED_AMONG]) & set(self.expected))


def cases() -> dict[str, tuple[str, Any]]:
    """Name -> (kind, factory), in a fixed order."""
    from tests.zoo.known.catalogue import BASES, all_faults, all_harmless
    from tests.zoo.known.healthy import healthy

    found: dict[str, tuple[str, Any]] = {}
    for name, change in all_faults().items():
        found[name] = ("subtle" if change.subtle else "fault", change)
    found |= {name: ("harmless", change) for name, change in all_harmless().items()}
    found |= {name: ("healthy", factory) for name, factory in {**BASES, **healthy()}.items()}
    return found


def first_finding(checks: list[dict[str, Any]]) -> dict[str, Any] | None:
    """What a reader sees first: the first fail that follows from nothing, else the first such
    warning."""
    for status in ("fail", "warn"):
        for check in checks:
            if check["status"] == status and not check["consequence_of"]:
                return check
    return None


def run_case(name: str, with_rivals: bool = True) -> Result:
    """Run the battery, and the rivals where they are wanted, on one set-up of the zoo."""
    import torch

    from src.checks import run
    from tests.zoo.known.rivals import RIVALS

    torch.set_num_threads(1)
    kind, factory = cases()[name]
    factory()  # drawing and pretraining are cached and belong to no check
    started = time.process_time()
    report = run(factory).as_dict()
    seconds = time.process_time() - started
    result = Result(name, kind, report["status"], seconds)
    first = first_finding(report["checks"])
    result.causes = first["likely_causes"] if first else []
    if kind in ("fault", "subtle"):
        result.expected = list(factory.causes)
    for check in report["checks"]:
        if check["status"] in ("fail", "warn", "inconclusive"):
            ranks = {"fail": 0, "warn": 1, "inconclusive": 2}
            old = result.found.get(check["id"], check["status"])
            result.found[check["id"]] = min(old, check["status"], key=ranks.__getitem__)
            text = f"{check['status']} {check['id']}: {check['message']} {check['likely_causes']}"
            result.messages.append(text)
            if set(check["likely_causes"][:NAMED_AMONG]) & set(result.expected):
                result.named_by.append(check["id"])
    if with_rivals and kind != "subtle":
        for rival, practice in RIVALS.items():
            torch.manual_seed(0)
            result.rivals[rival] = practice(factory)
    return result


def run_all(names: list[str], jobs: int, with_rivals: bool = True) -> Iterator[Result]:
    """Results as they come, in the order of the names."""
    if jobs == 1:
        for name in names:
            yield run_case(name, with_rivals)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, mp_context=context) as pool:
        yield from pool.map(run_case, names, [with_rivals] * len(names))


def share(count: int, total: int) -> str:
    low, high = interval(count, total) if total else (0.0, 1.0)
    part = 100 * count / total if total else 0.0
    return f"{count} of {total} ({part:.1f} %, 95 %: {100 * low:.1f}-{100 * high:.1f})"


def rows(results: list[Result]) -> list[tuple[str, str]]:
    """The score in words and numbers."""
    of = {kind: [r for r in results if r.kind == kind] for kind in KINDS}
    faults = of["fault"]
    detected = [r for r in faults if r.detected]
    table = [
        ("faults: fail or warn", share(len(detected), len(faults))),
        ("faults: fail", share(sum(r.status == "fail" for r in faults), len(faults))),
        ("faults: right cause first or second", share(sum(r.named for r in faults), len(faults))),
    ]
    for kind in ("harmless", "healthy"):
        group = of[kind]
        for status in ("fail", "warn"):
            count = sum(r.detected and r.status == status for r in group)
            table.append((f"{kind}: {status}", share(count, len(group))))
    if of["subtle"]:
        count = sum(r.detected for r in of["subtle"])
        table.append(("subtle faults, not counted: fail or warn", share(count, len(of["subtle"]))))
    times = sorted(r.seconds for r in results)
    if times:
        middle, most = times[len(times) // 2], times[-1]
        table.append(("CPU seconds a set-up", f"median {middle:.1f}, most {most:.1f}"))
    for rival in next((r.rivals for r in results if r.rivals), {}):
        caught = sum(r.rivals.get(rival) is not None for r in faults)
        fine = of["harmless"] + of["healthy"]
        wrong = sum(r.rivals.get(rival) is not None for r in fine)
        name = rival.replace("_", " ")
        table.append((f"{name} alone: faults caught", share(caught, len(faults))))
        table.append((f"{name} alone: false alarms", share(wrong, len(fine))))
    return table


def idle_checks(results: list[Result]) -> tuple[list[str], dict[str, int]]:
    """Checks that are nobody's sole or best catch, and how often each is. A check is a fault's sole
    catch where no other fails or warns, its best where it is the first in the report that names a
    right cause."""
    wins: dict[str, int] = {}
    for result in results:
        loud = [id for id, status in result.found.items() if status in ("fail", "warn")]
        for id in loud:
            wins.setdefault(id, 0)
        if result.kind != "fault" or not loud:
            continue
        best = result.named_by[0] if result.named_by else (loud[0] if len(loud) == 1 else None)
        if best in wins:
            wins[best] += 1
    return sorted(id for id, count in wins.items() if count == 0), wins


def line(result: Result) -> str:
    """One result for the terminal."""
    if result.kind in ("fault", "subtle"):
        mark = "ok    " if result.named else ("CAUSE " if result.detected else "MISS  ")
        because = "" if result.named else f"  expected {result.expected}, got {result.causes[:2]}"
    else:
        mark = {"fail": "ALARM ", "warn": "WARN  "}.get(result.status, "ok    ")
        mark = mark if result.detected else ("?     " if result.found else "ok    ")
        because = ""
    found = ", ".join(f"{id}:{status}" for id, status in result.found.items())
    return f"{mark}{result.kind:<9}{result.name:<42}{result.seconds:6.1f} s  {found}{because}"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.zoo.known.score", description=__doc__)
    parser.add_argument("--only", nargs="+", metavar="NAME", help="these set-ups, with messages")
    parser.add_argument("--kind", choices=KINDS, help="set-ups of this kind")
    parser.add_argument("--slice", type=int, default=1, metavar="N", help="every N-th set-up")
    parser.add_argument("--jobs", type=int, default=2, help="processes, one thread each")
    parser.add_argument("--no-rivals", action="store_true", help="the battery alone")
    parser.add_argument("--markdown", action="store_true", help="the score as a table")
    options = parser.parse_args()
    kinds = {name: kind for name, (kind, _) in cases().items()}
    unknown = set(options.only or ()) - set(kinds)
    if unknown or options.slice < 1 or options.jobs < 1:
        parser.error(f"unknown: {', '.join(sorted(unknown))}" if unknown else "must be at least 1")
    names = options.only or list(kinds)[:: options.slice]
    if options.kind:
        names = [name for name in names if kinds[name] == options.kind]
    results = []
    for result in run_all(names, options.jobs, not options.no_rivals):
        results.append(result)
        print(line(result), file=sys.stderr, flush=True)
        if options.only and result.messages:
            print(*(f"      {text}" for text in result.messages), sep="\n", file=sys.stderr)
    table = rows(results)
    idle, wins = idle_checks(results)
    write_json(
        STORED, {"score": dict(table), "wins": wins, "results": [asdict(r) for r in results]}
    )
    if options.markdown:
        print("| | |\n|---|---|", *(f"| {what} | {value} |" for what, value in table), sep="\n")
    else:
        width = max(len(what) for what, _ in table)
        print(*(f"{what:<{width}}  {value}" for what, value in table), sep="\n")
        print(f"nobody's sole or best catch: {', '.join(idle) or 'none'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
