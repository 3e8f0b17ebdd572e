"""What must not change a training: the way its images are read, and whether it is tracked."""

import shutil
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

from src.data.readers import Reading
from tests.conftest import run_stage, set_params
from tests.tracking.tracked_project import VARIABLES, empty_store, runs
from tests.training.trainings import DRAWN, Splits, make_training, run, same_state

# A step which read otherwise would draw otherwise.
EVERYTHING_RANDOM: dict[str, Any] = {**DRAWN, "sampling": "balanced", "ema": 0.9, "epochs": 2}
READINGS = [Reading("resident"), Reading("workers", 2), Reading("workers", 4)]


def trained(splits: Splits, folder: Path, reading: Reading, seed: int) -> dict[str, Any]:
    """The end of a training in which `seed`, that of torch's global generator, must not matter."""
    training = make_training(splits, reading=reading, **EVERYTHING_RANDOM)
    torch.manual_seed(seed)
    run(training, folder)
    return training.state_dict()


@pytest.fixture(scope="module")
def mapped(few: Splits, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The end of the training whose images a thread reads, without any worker."""
    return trained(few, tmp_path_factory.mktemp("mapped"), Reading("mapped", 0), seed=1)


@pytest.mark.filterwarnings("ignore:This DataLoader will create 4 worker processes")
@pytest.mark.parametrize("reading", READINGS, ids=str)
def test_the_way_of_reading_changes_no_bit_of_a_training(
    few: Splits, tmp_path: Path, mapped: dict[str, Any], reading: Reading
) -> None:
    """With workers the augmentation of a step is still that of its number."""
    state = trained(few, tmp_path, reading, seed=2)
    assert state["history"] == mapped["history"]
    for part in ("model", "ema", "optimizer", "best"):
        assert same_state(state[part], mapped[part]), part


def test_a_training_keeps_its_workers_over_its_epochs(few: Splits, tmp_path: Path) -> None:
    """One for each split; they end with it."""

    def spawned() -> list[int]:
        found = psutil.Process().children()
        return [one.pid for one in found if "spawn_main" in " ".join(one.cmdline())]

    seen: list[list[int]] = []
    training = make_training(few, reading=Reading("workers", 1), epochs=3)
    run(training, tmp_path, on_epoch=lambda row: seen.append(spawned()))
    assert len(seen[0]) == 2
    assert seen == [seen[0]] * 3
    assert spawned() == []


def outputs(project: Path) -> dict[str, bytes]:
    """What stages `train` and `evaluate` write, made anew."""
    folders = [project / name for name in ("models", "results/train", "results/evaluate")]
    for folder in folders:
        shutil.rmtree(folder)
    for name in ("train", "evaluate"):
        run_stage(project, name)
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(project).as_posix(): path.read_bytes() for path in files}


@pytest.mark.slow(seconds=6)
def test_tracking_changes_no_byte_of_the_outputs(
    copied: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor do the images that it takes of the net after each epoch."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    set_params(copied, augment_flip="true", mixup=0.2, drop_rate=0.2, ema=0.9)
    without = outputs(copied)
    assert not (copied / ".cache/journal").exists()
    shutil.copy(empty_store(tmp_path_factory, monkeypatch), copied)
    set_params(copied, tracking="true", examples_every=1)
    assert outputs(copied) == without
    assert {"models/model.safetensors", "results/train/history.csv"} <= without.keys()
    [stored] = runs(copied)
    examples = copied / "mlartifacts" / stored.info.run_id / "artifacts/examples"
    assert [path.name for path in sorted(examples.iterdir())] == [
        f"epoch_{epoch:03d}.png" for epoch in (1, 2, 3)
    ]
