"""The stage `train` as a whole, killed and begun again."""

import csv
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from src.plumbing.process import left_after
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


@pytest.mark.slow(seconds=15)
@pytest.mark.parametrize("end", ["killed", "stopped"])
def test_train_ends_when_a_process_that_reads_does_not_go_on(copied: Path, end: str) -> None:
    """In one line, where it is killed; by a signal, where it stands still, which nobody can see."""
    set_params(copied, reading="workers", workers=2, epochs=500)
    process = subprocess.Popen(
        [sys.executable, "-c", TRAIN], cwd=copied, stderr=subprocess.PIPE, text=True
    )
    try:
        found: list[psutil.Process] = []
        while process.poll() is None and len(found) < 2:
            found = []
            for child in psutil.Process(process.pid).children():
                with suppress(psutil.Error):
                    found += [child] if "spawn_main" in " ".join(child.cmdline()) else []
        for child in found:
            child.kill() if end == "killed" else child.suspend()
        if end == "stopped":
            time.sleep(1)  # what was read ahead is taken
            process.terminate()
        _, errors = process.communicate(timeout=120)
    finally:
        process.kill()
    last = errors.splitlines()[-1]
    code, words = (1, "machine.reading: a worker ") if end == "killed" else (143, "terminated")
    assert process.returncode == code, errors
    assert last.startswith(words)
    assert "Traceback" not in errors
    assert not left_after(found, 30)


# As `python -m src.train`, with less patience for a signal that is not taken.
TRAIN = """
import runpy, sys
from src.plumbing import process
process.TAKE_SECONDS = 1.0
sys.argv = ["train"]
runpy.run_module("src.train", run_name="__main__")
"""
