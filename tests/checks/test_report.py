"""The report: verdicts, causes, consequences, waivers."""

import re
from pathlib import Path

import pytest

from src.base.imports import ROOT
from src.checks.catalogue import CHECKS
from src.checks.causes import CAUSES
from src.checks.report import Check, Report, link_consequences
from src.checks.waivers import parse_waivers
from src.plumbing.errors import InputError

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


def test_waivers_are_read_from_text() -> None:
    assert parse_waivers("none") == {}
    expected = {"leakage": "near duplicates: known", "class_balance": "rare"}
    assert parse_waivers("leakage: near duplicates: known; class_balance: rare") == expected
    with pytest.raises(InputError, match="no check 'leakag', did you mean leakage"):
        parse_waivers("leakag: known")
    for text in ("leakage", "leakage: ", "leakage: known; class_balance:"):
        with pytest.raises(InputError, match="needs a reason"):
            parse_waivers(text)


def test_the_terminal_table_names_causes_and_where_to_look() -> None:
    text = Report([FINE, BROKEN]).as_text(colour=False)
    assert "FAIL" in text
    assert "zero_grad_before_step: gradients are cleared before they are used" in text
    assert "look at step: order of calls" in text
    assert "\x1b[" not in text
    assert "\x1b[31mFAIL" in Report([BROKEN]).as_text(colour=True)


def test_markdown_has_a_row_per_check() -> None:
    broken = Check("outputs", "fail", 1.0, None, "a | b", ["temperature"], "stub")
    rows = Report([FINE, broken]).as_markdown().splitlines()
    assert len([row for row in rows if row.startswith("|")]) == 4
    assert r"a \| b" in rows[-1]
    assert rows[-1].count(" | ") == 5


def test_every_cause_and_check_in_the_code_is_in_the_vocabulary_and_in_the_document() -> None:
    document = (ROOT / "docs/checks.md").read_text()
    for name in [*CAUSES, *CHECKS]:
        assert f"`{name}`" in document, name
    for path in sorted((ROOT / "src/checks").glob("*.py")):
        for found in re.findall(r"causes(?:: list\[str\])? = \[([^\]]*)\]", _code(path)):
            for cause in re.findall(r'"(\w+)"', found):
                assert cause in CAUSES, (path.name, cause)


def _code(path: Path) -> str:
    return path.read_text(encoding="utf-8")
