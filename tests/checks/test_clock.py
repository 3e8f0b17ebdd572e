"""The battery's emergency stop counts the processor's time, not what runs beside it."""

import time

import pytest

from src.checks.context import Context, OutOfTime
from tests.checks import base


def work_until_stopped(ctx: Context) -> None:
    while True:
        ctx.check_clock()


def test_waiting_costs_no_budget_and_working_does() -> None:
    ctx = Context(base.healthy, budget_seconds=0.05)
    time.sleep(1)
    ctx.check_clock()
    with pytest.raises(OutOfTime):
        work_until_stopped(ctx)
