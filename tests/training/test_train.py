"""The stage `train` as a whole, killed and begun again."""

from pathlib import Path
from typing import Any

import pytest

from src.plumbing.terminal import Progress
from tests.conftest import run_stage, set_params
from tests.tracking.tracked_project import history, runs


@pytest.mark.slow
def test_points_that_a_power_cut_took_are_noted_again(
    copied: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_params(copied, tracking="true", epochs=4, checkpoint_minutes=1e-9)

    def killed(progress: Progress, row: dict[str, Any]) -> None:
        if row["epoch"] == 3:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", "sqlite:////proc/nothing/mlflow.db")
        patch.setattr(Progress, "epoch_done", killed)
        with pytest.raises(KeyboardInterrupt):
            run_stage(copied, "train")
    [journal] = (copied / ".cache/journal").glob("*.jsonl")
    lines = journal.read_text().splitlines(keepends=True)
    kept = [line for line in lines if '"step": 2,' not in line]
    assert len(kept) < len(lines)
    journal.write_text("".join(kept))
    run_stage(copied, "train")
    [stored] = runs(copied)
    steps = [step for step, _ in history(copied, stored, "val/loss")]
    assert sorted(steps) == [1, 2, 3, 4]
