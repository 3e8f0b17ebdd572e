"""A small part of `make torture`, and a broken resume that it must catch."""

import random
from pathlib import Path

import pytest

from tests.torture import Torture, report

pytestmark = pytest.mark.slow


def test_kills_change_no_bit_and_lose_no_point(tmp_path: Path) -> None:
    torture = Torture(tmp_path.resolve(), random.Random(1))
    # The start after the first one goes on from its checkpoint and says so before it dies itself.
    torn = ["torn", "torn"]
    for seed, more in ((1, ["term", "stage", "interrupt"]), (2, ["dvc"])):
        deaths = torture.round(seed, torn + more, temporary=seed == 2)
        print(report(deaths))
        assert [death.kind for death in deaths[:2]] == torn
        assert deaths[0].resumed
        assert deaths[0].stage == "train"


def test_a_resume_that_forgets_the_optimizer_is_caught(tmp_path: Path) -> None:
    torture = Torture(tmp_path.resolve(), random.Random(2), broken=True)
    with pytest.raises(AssertionError, match=r"dvc\.lock differs"):
        torture.round(1, ["torn"])
