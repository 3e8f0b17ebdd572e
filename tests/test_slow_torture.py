"""A small part of `make torture`, and a broken resume that it must catch."""

import random
from pathlib import Path

import pytest

from tests.torture import Torture, report

pytestmark = pytest.mark.slow


def test_kills_change_no_bit_and_lose_no_point(tmp_path: Path) -> None:
    torture = Torture(tmp_path.resolve(), random.Random(1))
    deaths = torture.round(1, ["stage", "torn", "term", "stage", "interrupt"])
    print(report(deaths))
    assert any(death.kind == "torn" and death.resumed for death in deaths), report(deaths)


def test_a_resume_that_forgets_the_optimizer_is_caught(tmp_path: Path) -> None:
    torture = Torture(tmp_path.resolve(), random.Random(2), broken=True)
    with pytest.raises(AssertionError, match=r"dvc\.lock differs"):
        torture.round(1, ["torn"])
