"""A small part of `make torture`."""

import random
from pathlib import Path

import pytest

from tests.pipeline.torture import Torture, report


@pytest.mark.slow(seconds=250)
def test_kills_change_no_bit_and_lose_no_point(tmp_path: Path) -> None:
    torture = Torture(tmp_path.resolve(), random.Random(1))
    # The start after the first one goes on from its checkpoint and says so before it dies itself.
    for seed, kinds in ((1, ["torn", "torn", "term"]), (2, ["torn", "dvc"])):
        deaths = torture.round(seed, kinds, temporary=seed == 2)
        print(report(deaths))
        assert deaths[0].kind == "torn"
        assert deaths[0].stage == "train"
        assert any(death.resumed for death in deaths)
