"""The choices that `train` does not read as its params: what each changes where the real stage
runs. test_evaluate.py has those of `evaluate`, checks/test_stage.py `on_fail` and `waive`."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch

from src.data import readers
from src.data.packed import PackedSplit
from src.model import device as device_module
from src.plumbing.errors import GateError, InputError
from src.plumbing.schema import SCHEMA
from src.plumbing.terminal import Progress
from src.tracking.log import Log
from src.training.checkpoint import Checkpoint
from tests.conftest import run_stage, set_params

pytestmark = pytest.mark.usefixtures("torch_settings")  # a stage sets them for its process

# With auto, and what fits the device by far, samples are resident.
TIERS = {"auto": "resident", "resident": "resident", "mapped": "mapped", "workers": "workers"}


class Read(NamedTuple):
    way: str
    folder: str
    device: str  # its kind
    workers: int


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> set[Read]:
    """Each way in which a stage reads packed samples."""
    found: set[Read] = set()

    def noted(way: str, read: Any) -> Any:
        def reader(data: PackedSplit, batches: Any, device: torch.device, workers: int) -> Any:
            found.add(Read(way, data.folder.as_posix(), device.type, workers))
            return read(data, batches, device, workers)

        return reader

    tiers = {way: noted(way, read) for way, read in readers.TIERS.items()}
    monkeypatch.setattr(readers, "TIERS", tiers)
    return found


@pytest.fixture
def short(copied: Path) -> Path:
    """A finished project, in which `train` takes two epochs of the small data set next."""
    set_params(copied, train_on="subset", epochs=2)
    return copied


@pytest.mark.parametrize("choice", SCHEMA["machine.reading"].choices)
def test_reading(copied: Path, reads: set[Read], choice: str) -> None:
    predictions = copied / "results/evaluate/predictions.csv"
    before = predictions.read_bytes()
    set_params(copied, reading=choice, workers=1)
    run_stage(copied, "evaluate")
    assert {(one.way, one.workers) for one in reads} == {(TIERS[choice], 1)}
    assert predictions.read_bytes() == before


@pytest.mark.parametrize("choice", ["auto", "cpu", "cuda", "cuda:99", "mps"])
def test_device(copied: Path, reads: set[Read], choice: str) -> None:
    there = [kind for kind in ("cuda", "mps") if getattr(torch, kind).is_available()] + ["cpu"]
    set_params(copied, device=choice)
    if choice not in ("auto", *there):
        words = f"^params.yaml: machine.device is {choice}, which torch cannot use here"
        with pytest.raises(InputError, match=words):
            run_stage(copied, "evaluate")
        return
    run_stage(copied, "evaluate")
    assert {one.device for one in reads} == {there[0] if choice == "auto" else choice}


@pytest.mark.parametrize("choice", SCHEMA["train_on"].choices)
def test_train_on(copied: Path, reads: set[Read], choice: str) -> None:
    set_params(copied, train_on=choice, epochs=1)
    run_stage(copied, "train")
    assert {one.folder for one in reads} == {f"data/{choice}"}


@pytest.mark.parametrize(("minutes", "saved"), [(1e-9, [1, 2, 3]), (5, [])])
def test_checkpoint_minutes(
    short: Path, monkeypatch: pytest.MonkeyPatch, minutes: float, saved: list[int]
) -> None:
    """The checkpoint of the end is always written."""
    steps: list[int] = []
    monkeypatch.setattr(Checkpoint, "save", lambda _, state: steps.append(state["step"]))
    set_params(short, checkpoint_minutes=minutes)
    run_stage(short, "train")
    *during, _ = steps
    assert during[:3] == saved


@pytest.mark.parametrize("choice", SCHEMA["machine.resume"].choices)
def test_resume(
    short: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], choice: str
) -> None:
    def killed(progress: Progress, row: dict[str, Any]) -> None:
        raise KeyboardInterrupt

    set_params(short, checkpoint_minutes=1e-9)
    with monkeypatch.context() as patch:
        patch.setattr(Progress, "epoch_done", killed)
        patch.setattr(device_module, "machine_kind", lambda _: {"device": "another"})
        with pytest.raises(KeyboardInterrupt):
            run_stage(short, "train")
    set_params(short, resume=choice)
    capsys.readouterr()
    run_stage(short, "train")
    printed = capsys.readouterr().out
    assert ("train: starts over" in printed) == (choice == "same")
    assert ("train: goes on after epoch 0, step " in printed) == (choice == "any")


@pytest.mark.parametrize("choice", SCHEMA["machine.progress"].choices)
def test_progress(short: Path, capsys: pytest.CaptureFixture[str], choice: str) -> None:
    set_params(short, progress=choice)
    run_stage(short, "train")
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("epoch ")]
    assert len(lines) == (2 if choice == "auto" else 0)


@pytest.mark.parametrize("choice", SCHEMA["machine.tracking"].choices)
def test_tracking(copied: Path, monkeypatch: pytest.MonkeyPatch, choice: str) -> None:
    """The store cannot be opened, so that what it would get waits in the journal."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:////proc/nothing/mlflow.db")
    set_params(copied, tracking=choice)
    run_stage(copied, "evaluate")
    printed = [path.read_text() for path in (copied / ".cache/journal").glob("*.jsonl")]
    assert ["zz_test/accuracy" in text for text in printed] == ([True] if choice == "true" else [])


@pytest.mark.parametrize(("every", "epochs"), [(0, []), (1, [1, 2]), (2, [2])])
def test_examples_every(
    short: Path, monkeypatch: pytest.MonkeyPatch, every: int, epochs: list[int]
) -> None:
    names: list[str] = []
    monkeypatch.setattr(Log, "log_image", lambda _, name, png: names.append(name))
    set_params(short, examples_every=every)
    run_stage(short, "train")
    assert names == [f"examples/epoch_{epoch:03d}.png" for epoch in epochs]


@pytest.mark.parametrize("strict", SCHEMA["overfit_check.strict"].choices)
def test_strict(copied: Path, strict: str) -> None:
    """Gradients cut to almost nothing are a warning."""
    verdict = copied / "results/overfit_check/verdict.json"
    verdict.unlink()
    set_params(copied, clip_grad=0.001, strict=strict)
    if strict == "true":
        with pytest.raises(GateError, match="train does not start"):
            run_stage(copied, "overfit-check")
    else:
        run_stage(copied, "overfit-check")
    assert verdict.exists() == (strict == "false")
    report = json.loads((verdict.parent / "report.json").read_text())
    assert report["status"] == ("fail" if strict == "true" else "warn")
