"""What the checks found, and the verdict that follows from all of them."""

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any

from src.checks.catalogue import EXPLAINS, REASONS, SYMPTOMS
from src.checks.causes import CAUSES

MARKS = {"pass": "ok", "warn": "warn", "fail": "FAIL", "inconclusive": "?", "waived": "waived"}
COLOURS = {"pass": 32, "warn": 33, "fail": 31, "inconclusive": 35, "waived": 36}


@dataclass(frozen=True)
class Check:
    """One finding. `status`: pass | warn | fail | inconclusive | waived; `value` was measured,
    `threshold` is what it was held against; `likely_causes` in order, from src/checks/causes.py;
    `consequence_of` names the check whose finding explains this one."""

    id: str
    status: str
    value: float | None
    threshold: float | None
    message: str
    likely_causes: list[str] = field(default_factory=list)
    consequence_of: str | None = None


def finding(
    status: str, id: str, value: float | None, threshold: float | None, message: str, *causes: str
) -> Check:
    """A finding with its likely causes, the likeliest first, where it is not a pass."""
    return Check(id, status, value, threshold, message, [] if status == "pass" else list(causes))


def above(value: float, warn_limit: float, fail_limit: float) -> str:
    """The status of a value that should be low."""
    return "fail" if value > fail_limit else "warn" if value > warn_limit else "pass"


ok, warn, fail = partial(finding, "pass"), partial(finding, "warn"), partial(finding, "fail")


def cannot_tell(id: str, why: str) -> Check:
    """A check that these data give too little for: no fault, and no proof that there is none."""
    return ok(id, None, None, f"cannot tell: {why}")


@dataclass(frozen=True)
class Report:
    """All findings. `strict` counts warnings and inconclusive checks as failures. `curves`: loss
    and accuracy of each step, by the check that trained; not part of report.json."""

    checks: Sequence[Check]
    strict: bool = False
    curves: Mapping[str, Mapping[str, list[float]]] = field(default_factory=dict)

    @property
    def status(self) -> str:
        """The worst status: fail, warn or pass (an inconclusive check counts as a warning)."""
        found = {check.status for check in self.checks}
        doubtful = bool(found & {"warn", "inconclusive"})
        if "fail" in found or (self.strict and doubtful):
            return "fail"
        return "warn" if doubtful else "pass"

    @property
    def root_cause(self) -> Check | None:
        """The finding that explains the others, None when there is none."""
        loud = (check for check in self.checks if check.status in ("fail", "warn", "inconclusive"))
        return next((check for check in loud if check.consequence_of is None), None)

    def waive(self, reasons: Mapping[str, str]) -> "Report":
        """The report in which the checks of these ids count no more, each with its reason."""
        checks = []
        for check in self.checks:
            if check.id in reasons and check.status != "pass":
                message = f"{check.message} [waived: {reasons[check.id]}]"
                check = replace(check, status="waived", message=message)
            checks.append(check)
        return replace(self, checks=link_consequences(checks))

    def as_dict(self) -> dict[str, Any]:
        """The content of report.json."""
        return {"status": self.status, "checks": [asdict(check) for check in self.checks]}

    def as_text(self, colour: bool | None = None) -> str:
        """A table, a line per check, with causes. `colour` None: on a terminal without NO_COLOR."""
        if colour is None:
            colour = sys.stdout.isatty() and "NO_COLOR" not in os.environ
        width = max((len(check.id) for check in self.checks), default=0)
        lines = []
        for check in self.checks:
            mark = f"{MARKS[check.status]:<6}"
            mark = f"\x1b[{COLOURS[check.status]}m{mark}\x1b[0m" if colour else mark
            because = f" (follows from {check.consequence_of})" if check.consequence_of else ""
            lines.append(f"  {mark} {check.id:<{width}}  {check.message}{because}")
            for cause in check.likely_causes[:2] if check.status != "pass" else ():
                meaning, place = CAUSES[cause]
                lines.append(f"{'':{width + 13}}{cause}: {meaning}; look at {place}")
        return "\n".join(lines)

    def as_markdown(self) -> str:
        """The same as a table, for the description of an MLflow run."""
        rows = [("status", "check", "finding", "likely causes", "look at", "follows from")]
        for check in self.checks:
            message, causes = check.message.replace("|", "\\|"), ", ".join(check.likely_causes)
            look_at = CAUSES[check.likely_causes[0]][1] if check.likely_causes else ""
            because = check.consequence_of or ""
            rows.append((check.status, f"`{check.id}`", message, causes, look_at, because))
        head, *table = (f"| {' | '.join(row)} |" for row in rows)
        return "\n".join([f"## overfit-check: {self.status}", "", head, "|---" * 6 + "|", *table])


def link_consequences(checks: Sequence[Check]) -> list[Check]:
    """Findings after the first fail are marked as its consequences, unless they name a first cause
    of their own kind, which an exact check has seen: two faults are two findings."""
    failed = [check for check in checks if check.status == "fail"]
    exact = [check for check in failed if check.id not in SYMPTOMS]
    warned = [check for check in checks if check.status == "warn" and check.id in EXPLAINS]
    # A part that stops says less than a check that saw why it had to.
    reasons = [check for check in exact if check.id in REASONS]
    root = next(iter([*reasons, *exact, *(warned if failed else []), *failed]), None)
    linked = []
    for check in checks:
        follows = (
            root is not None
            and check is not root
            and check.status in ("warn", "fail", "inconclusive")
            and (check.id in SYMPTOMS or (root.id in REASONS and check.id.startswith("runs_")))
        )
        linked.append(replace(check, consequence_of=root.id if follows and root else None))
    return linked
