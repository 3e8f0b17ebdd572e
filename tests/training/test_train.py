"""The stage `train` as a whole, killed and begun again."""

import csv
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


def test_train_begins_with_its_remarks(copied: Any, capsys: pytest.CaptureFixture[str]) -> None:
    set_params(copied, ema=0.999, epochs=1)
    run_stage(copied, "train")
    assert capsys.readouterr().out.startswith("train: ema 0.999 acts like 0.6971: timm's warm-up")


def test_history_has_no_column_of_time(finished: tuple[Path, object]) -> None:
    with open(finished[0] / "results/train/history.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    names = ["epoch", "lr", "grad_norm", "train_loss", "train_accuracy"]
    names += ["val_loss", "val_accuracy", "val_macro_f1"]
    assert list(rows[0]) == names
    assert [row["epoch"] for row in rows] == ["1", "2", "3"]
