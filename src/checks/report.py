"""What a check found, and the verdict that follows from all of them."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

MARKS = {"pass": "ok", "warn": "warn", "fail": "FAIL", "inconclusive": "?"}


@dataclass(frozen=True)
class Check:
    """One finding. `status`: pass | warn | fail | inconclusive; `value` was measured, `threshold`
    is what it was held against; `likely_causes` in order; `consequence_of` names the check whose
    finding explains this one."""

    id: str
    status: str
    value: float | None
    threshold: float | None
    message: str
    likely_causes: list[str] = field(default_factory=list)
    consequence_of: str | None = None


@dataclass(frozen=True)
class Report:
    """All findings. `strict` counts warnings and inconclusive checks as failures."""

    checks: Sequence[Check]
    strict: bool = False

    @property
    def status(self) -> str:
        """The worst status: fail, warn or pass (an inconclusive check counts as a warning)."""
        found = {check.status for check in self.checks}
        doubtful = bool(found & {"warn", "inconclusive"})
        if "fail" in found or (self.strict and doubtful):
            return "fail"
        return "warn" if doubtful else "pass"

    def as_dict(self) -> dict[str, Any]:
        """The content of report.json."""
        return {"status": self.status, "checks": [asdict(check) for check in self.checks]}

    def as_text(self) -> str:
        """One line per check, for a terminal."""
        width = max(len(check.id) for check in self.checks)
        return "\n".join(
            f"  {MARKS[check.status]:<5} {check.id:<{width}}  {check.message}"
            for check in self.checks
        )

    def as_markdown(self) -> str:
        """The same as a table, for the description of an MLflow run."""
        rows = [
            f"| {check.status} | `{check.id}` | {check.message} | "
            f"{', '.join(check.likely_causes) or '-'} |"
            for check in self.checks
        ]
        head = ["| | check | finding | likely causes |", "|---|---|---|---|"]
        return "\n".join([f"**overfit-check: {self.status}**", "", *head, *rows])
