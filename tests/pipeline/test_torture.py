"""A small part of `make torture`, and checkpoints that lack a part, which it must catch."""

import random
import shutil
from pathlib import Path

import pytest
import torch

from tests.pipeline.clone import lock, run
from tests.pipeline.torture import PICTURES, SETTINGS, STAGES, Torture, report

LATE = (100, 150)  # of some 200 steps


@pytest.mark.slow(seconds=200)
def test_kills_change_no_bit_and_lose_no_point(tmp_path: Path) -> None:
    torture = Torture(tmp_path.resolve(), random.Random(1))
    # The start after the first one goes on from its checkpoint and says so before it dies itself.
    for seed, kinds in ((1, ["torn", "torn", "term", "stage"]), (2, ["torn", "dvc", "interrupt"])):
        deaths = torture.round(seed, kinds, temporary=seed == 2)
        print(report(deaths))
        assert deaths[0].kind == "torn"
        assert deaths[0].stage == "train"
        assert any(death.resumed for death in deaths)


# A plateau's counters and its factor stand in the checkpoint alone; what the other schedules set
# follows from the number of steps. The rate must have fallen before the kill.
PLATEAU = {
    **SETTINGS,
    "synthetic_pictures": PICTURES,
    "schedule": "plateau",
    "decay_epochs": 1,
    "decay_rate": 0.5,
    "warmup": 0,
    "tracking": "false",
}


@pytest.mark.slow(seconds=100)
def test_a_resume_changes_no_bit_and_one_that_lacks_a_part_is_caught(tmp_path: Path) -> None:
    torture = Torture(tmp_path.resolve(), random.Random(3), PLATEAU, LATE)
    durations = torture.undisturbed()
    _, death = torture.kill(["dvc", "repro"], "torn", STAGES.index("train"), durations)
    assert death
    assert death.steps >= LATE[0]
    for part in (None, "optimizer", "scheduler"):
        folder = Path(shutil.copytree(torture.disturbed, tmp_path / str(part)))
        [path] = (folder / ".cache/checkpoints").rglob("*.pt")
        saved = torch.load(path, weights_only=True)
        if part == "optimizer":
            saved["state"][part]["state"] = {}  # no moments, as in a fresh one
        elif part == "scheduler":
            saved["state"][part]["plateau"] = {}
        torch.save(saved, path)
        assert "train: goes on after epoch" in run(folder, "dvc", "repro")
        assert (lock(folder) == lock(torture.calm)) == (part is None), part
