"""A small part of `make torture`, and a broken resume that it must catch."""

import random
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.pipeline.torture import SETTINGS, Torture, report

pytestmark = pytest.mark.slow

LATE = (100, 150)  # of some 200 steps


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


# A plateau's counters and its factor stand in the checkpoint alone; what the other schedules set
# follows from the number of steps. The rate must have fallen before the kill.
PLATEAU = {**SETTINGS, "schedule": "plateau", "decay_epochs": 1, "decay_rate": 0.5, "warmup": 0}


def test_a_kill_after_a_plateau_changes_no_bit(tmp_path: Path) -> None:
    torture = Torture(tmp_path.resolve(), random.Random(3), PLATEAU, LATE)
    [death] = torture.round(1, ["torn"])
    assert death.resumed
    assert death.steps >= LATE[0]


@pytest.mark.parametrize(
    ("forgotten", "settings"), [("optimizer", SETTINGS), ("scheduler", PLATEAU)],
)  # fmt: skip
def test_a_resume_that_forgets_a_part_is_caught(
    tmp_path: Path, forgotten: str, settings: Mapping[str, object]
) -> None:
    torture = Torture(tmp_path.resolve(), random.Random(3), settings, LATE, forgotten)
    with pytest.raises(AssertionError, match=r"dvc\.lock differs"):
        torture.round(1, ["torn"])
