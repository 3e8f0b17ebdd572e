"""The report: verdicts, causes, consequences, waivers."""

import ast
from collections.abc import Sequence

from src.base.imports import ROOT
from src.checks.battery import BATTERY
from src.checks.catalogue import CHECKS
from src.checks.causes import CAUSES
from src.checks.report import Check, Report, link_consequences

FINE = Check("outputs", "pass", 1.0, 2.0, "fine")
ODD = Check("class_balance", "warn", 30.0, 20.0, "some are rare", ["class_imbalance"])
BROKEN = Check("grad_bookkeeping", "fail", 0.0, 0.99, "zeros", ["zero_grad_before_step"])
LATER = Check("overfit_batch", "fail", 2.0, 1.0, "not learnt", ["lr_too_low"])
UNSURE = Check("resume", "inconclusive", None, None, "stopped")


def test_strict_counts_warnings_and_doubts_as_failures() -> None:
    assert Report([FINE, ODD]).status == "warn"
    assert Report([FINE, ODD], strict=True).status == "fail"
    assert Report([FINE], strict=True).status == "pass"
    assert Report([FINE, UNSURE]).status == "warn"
    assert Report([UNSURE], strict=True).status == "fail"


def test_a_symptom_follows_from_the_first_failure() -> None:
    linked = link_consequences([ODD, BROKEN, LATER])
    assert [check.consequence_of for check in linked] == [None, None, "grad_bookkeeping"]
    assert link_consequences([LATER])[0].consequence_of is None


def test_a_waived_finding_counts_no_more_and_its_symptoms_stand_alone() -> None:
    report = Report(link_consequences([BROKEN, LATER])).waive({"grad_bookkeeping": "known"})
    waived, later = report.checks
    assert waived.status == "waived"
    assert "known" in waived.message
    assert later.consequence_of is None
    assert report.status == "fail"
    assert Report([ODD], strict=True).waive({"class_balance": "rare defects"}).status == "pass"
    assert Report([FINE]).waive({"outputs": "why"}).checks[0].status == "pass"


def test_the_terminal_table_names_causes_and_where_to_look() -> None:
    text = Report([FINE, BROKEN]).as_text(colour=False)
    assert "FAIL" in text
    assert "zero_grad_before_step: gradients are cleared before they are used" in text
    assert "look at step: order of calls" in text
    assert "\x1b[" not in text
    assert "\x1b[31mFAIL" in Report([BROKEN]).as_text(colour=True)


def test_markdown_has_a_row_per_check() -> None:
    broken = Check("outputs", "fail", 1.0, None, "a | b", ["temperature"], "leakage")
    rows = Report([FINE, broken]).as_markdown().splitlines()
    assert len([row for row in rows if row.startswith("|")]) == 4
    assert r"a \| b" in rows[-1]
    assert rows[-1].count(" | ") == 5


def test_every_cause_and_check_in_the_code_is_in_the_vocabulary_and_in_the_document() -> None:
    pages = [ROOT / "docs/reference" / name for name in ("checks.md", "causes.md")]
    document = "".join(page.read_text(encoding="utf-8") for page in pages)
    for name in [*CAUSES, *CHECKS]:
        assert f"`{name}`" in document, name
    assert {id for id, _, _ in BATTERY} <= CHECKS
    words = set()
    for path in [ROOT / "src/overfit_check.py", *sorted((ROOT / "src/checks").rglob("*.py"))]:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        ids, causes = _named_in(tree)
        assert ids <= CHECKS, path.name
        assert causes <= set(CAUSES), path.name
        if path.name != "causes.py":
            words |= _literals(list(ast.walk(tree)))
    assert set(CAUSES) <= words


def _named_in(tree: ast.Module) -> tuple[set[str], set[str]]:
    """The ids and the causes that stand as literals in a file."""
    ids, causes = set(), set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            first = {"ok": 0, "warn": 0, "fail": 0, "finding": 1}.get(node.func.id)
            if first is not None:
                ids |= _literals(node.args[first : first + 1])
                causes |= _literals(node.args[first + 4 :])
        elif isinstance(node, ast.Assign):
            targets = [name for part in node.targets for name in getattr(part, "elts", [part])]
            values = getattr(node.value, "elts", [node.value] * len(targets))
            values = [node.value] if len(targets) == 1 else values
            for name, value in zip(targets, values, strict=False):
                if getattr(name, "id", "") in ("cause", "causes"):
                    causes |= _literals(getattr(value, "elts", [value]))
                elif getattr(name, "id", "") == "id":
                    ids |= _literals([value])
    return ids, causes


def _literals(nodes: Sequence[ast.AST]) -> set[str]:
    values = {node.value for node in nodes if isinstance(node, ast.Constant)}
    return {value for value in values if isinstance(value, str)}
