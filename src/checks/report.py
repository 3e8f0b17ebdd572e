"""What the checks found, and the verdict that follows from all of them."""

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from src.checks.causes import look_at, sentence

MARKS = {"pass": "ok", "warn": "warn", "fail": "FAIL", "inconclusive": "?", "waived": "waived"}
COLOURS = {"pass": "32", "warn": "33", "fail": "31", "inconclusive": "35", "waived": "36"}


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

    @property
    def look_at(self) -> str:
        """The parameter or place to look at first, empty where nothing was found."""
        return look_at(self.likely_causes[0]) if self.likely_causes else ""


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
        return next(
            (check for check in self.checks if check.status in ("fail", "warn", "inconclusive")
             and check.consequence_of is None), None,
        )  # fmt: skip

    def waive(self, reasons: Mapping[str, str]) -> "Report":
        """The report in which the checks of these ids count no more, each with its reason."""
        checks = [
            replace(
                check, status="waived", message=f"{check.message} [waived: {reasons[check.id]}]"
            )
            if check.id in reasons and check.status != "pass"
            else check
            for check in self.checks
        ]
        return replace(self, checks=link_consequences(checks))

    def as_dict(self) -> dict[str, Any]:
        """The content of report.json."""
        return {"status": self.status, "checks": [asdict(check) for check in self.checks]}

    def as_text(self, colour: bool | None = None) -> str:
        """A table with one line per check; what was found comes with its causes. `colour` None:
        where stdout is a terminal and NO_COLOR is not set."""
        if colour is None:
            colour = sys.stdout.isatty() and "NO_COLOR" not in os.environ
        width = max((len(check.id) for check in self.checks), default=0)
        lines = []
        for check in self.checks:
            mark = f"{MARKS[check.status]:<6}"
            if colour:
                mark = f"\x1b[{COLOURS[check.status]}m{mark}\x1b[0m"
            because = f" (follows from {check.consequence_of})" if check.consequence_of else ""
            lines.append(f"  {mark} {check.id:<{width}}  {check.message}{because}")
            if check.status != "pass":
                lines += [
                    f"{'':{width + 13}}{cause}: {sentence(cause)}; look at {look_at(cause)}"
                    for cause in check.likely_causes[:2]
                ]
        return "\n".join(lines)

    def as_markdown(self) -> str:
        """The same as a table, for the description of an MLflow run."""
        rows = [
            f"| {check.status} | `{check.id}` | {_cell(check.message)} | "
            f"{', '.join(check.likely_causes)} | {check.look_at} | {check.consequence_of or ''} |"
            for check in self.checks
        ]
        head = [
            "| status | check | finding | likely causes | look at | follows from |",
            "|---|---|---|---|---|---|",
        ]
        return "\n".join([f"## overfit-check: {self.status}", "", *head, *rows])


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


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


# Warnings of what can keep a net from learning.
EXPLAINS = frozenset({
    "weights", "loss_contract", "loss_confident", "temperature", "grad_clip", "weight_decay",
    "optimizer_settings", "dropout", "outputs", "gradient_scale", "step_logits",
    "update_ratio", "schedule", "label_noise",
})  # fmt: skip
# Checks that see why a part of the set-up stops.
REASONS = frozenset({"output_width", "label_range", "input_finite"})
# Checks that see that something is wrong but not what: behind a fail they are its consequence.
SYMPTOMS = frozenset({
    "overfit_batch", "fit_subset", "start_loss", "input_dependence",
    "update_ratio", "lr_range", "finite", "gradient_flow", "label_signal",
    "augmentation", "reported_loss", "input_scale",
})  # fmt: skip
