"""`run`: parts that stop, the same bytes each time, and the emergency stop."""

import json
import random
import time
from dataclasses import fields
from typing import Any

import numpy as np
import pytest
import torch

from src.checks import TrainingSetup, run
from src.checks.catalogue import CHECKS
from src.checks.causes import CAUSES
from src.checks.context import Context, OutOfTime
from src.checks.report import Check
from tests.checks import small_setup
from tests.checks.small_setup import check
from tests.checks.test_battery import mixed, softmax_in_loss


def raising(*_: Any, **__: Any) -> Any:
    raise ValueError("made up for the test")


@pytest.mark.parametrize(
    "part", ["train_step", "evaluate", "save", "load", "train_loader", "train_data", "val_data"]
)
def test_a_part_that_stops_is_explained(part: str) -> None:
    class Broken:
        __getitem__ = __iter__ = raising

        def __len__(self) -> int:
            return 100

    def plant(setup: TrainingSetup) -> None:
        setattr(setup, part, raising if callable(getattr(setup, part)) else Broken())

    report = check(plant)
    assert report.status == "fail"
    crash = {c.id: c for c in report.checks}[f"runs_{part}"]
    assert crash.status == "fail"
    assert "ValueError: made up for the test" in crash.message
    assert crash.likely_causes


def test_a_factory_that_stops_is_explained() -> None:
    report = run(raising, 5)
    assert [c.id for c in report.checks] == ["runs_factory"]
    assert report.status == "fail"


def test_a_check_that_stops_is_inconclusive(monkeypatch: pytest.MonkeyPatch) -> None:
    from src.checks import battery

    broken = [
        (id, raising if id == "resume" else work, needs) for id, work, needs in battery.BATTERY
    ]
    monkeypatch.setattr(battery, "BATTERY", broken)
    report = check()
    found = {c.id: c.status for c in report.checks}
    assert found["resume"] == "inconclusive"
    assert report.status == "warn"


def test_two_runs_give_the_same_bytes_and_leave_the_random_state() -> None:
    random.seed(1)
    np.random.seed(2)
    torch.manual_seed(3)
    before = (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state())  # type: ignore[index]
    reports = []
    for number in range(2):
        reports.append(json.dumps(check(mixed).as_dict()))
        after = (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state())  # type: ignore[index]
        assert after[0] == before[0], number
        assert after[1] == before[1]
        assert torch.equal(after[2], before[2])
    assert reports[0] == reports[1]


def test_the_report_has_the_agreed_form_and_known_names() -> None:
    report = check(softmax_in_loss).as_dict()
    assert list(report) == ["status", "checks"]
    for found in report["checks"]:
        assert list(found) == [field.name for field in fields(Check)]
        assert found["id"] in CHECKS
        assert set(found["likely_causes"]) <= set(CAUSES)


def work_until_stopped(ctx: Context) -> None:
    while True:
        ctx.check_clock()


def test_waiting_costs_no_budget_and_working_does() -> None:
    ctx = Context(small_setup.healthy, budget_seconds=0.05)
    time.sleep(1)
    ctx.check_clock()
    with pytest.raises(OutOfTime):
        work_until_stopped(ctx)
