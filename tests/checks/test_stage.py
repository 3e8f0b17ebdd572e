"""The stage: what it writes, when it stops, what params say about it."""

import json
import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import pytest
import torch

from src.checks.catalogue import CHECKS
from src.checks.step.recorder import StepRecorder
from src.overfit_check import parse_waivers
from src.plumbing.errors import GateError, InputError
from src.tracking.log import Log
from src.yours import augment as yours_augment
from src.yours import loss as yours_loss
from tests.conftest import run_stage, set_params

RESULTS = Path("results/overfit_check")


def test_a_healthy_project_passes_without_a_warning(finished: tuple[Path, object]) -> None:
    report = json.loads((finished[0] / RESULTS / "report.json").read_text())
    assert report["status"] == "pass"
    assert {c["id"]: c["message"] for c in report["checks"] if c["status"] != "pass"} == {}
    assert list(report) == ["status", "checks"]
    assert {c["id"] for c in report["checks"]} <= set(CHECKS)
    assert json.loads((finished[0] / RESULTS / "verdict.json").read_text()) == {"proceed": True}
    for name in ("batch.png", "curves.png"):
        assert (finished[0] / RESULTS / name).read_bytes().startswith(b"\x89PNG")


def test_a_second_run_writes_the_same_bytes_and_logs_what_was_learnt(
    copied: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    points: dict[str, list[float]] = {}
    splits = []

    def log_metrics(_: Log, metrics: Mapping[str, float], step: int) -> None:
        for name, value in metrics.items():
            points.setdefault(name, []).append(value)
            assert len(points[name]) == step

    monkeypatch.setattr(Log, "log_metrics", log_metrics)
    monkeypatch.setattr(Log, "log_data", lambda _, folder, names: splits.extend(names))
    before = {path.name: path.read_bytes() for path in (copied / RESULTS).iterdir()}
    run_stage(copied, "overfit-check")
    assert {path.name: path.read_bytes() for path in (copied / RESULTS).iterdir()} == before
    report = json.loads(before["report.json"])
    values = {check["id"]: check["value"] for check in report["checks"]}
    last = {name.removeprefix("train/"): series[-1] for name, series in points.items()}
    assert last["overfit_batch_loss"] == pytest.approx(values["overfit_batch"], rel=1e-4)
    assert last["overfit_batch_accuracy"] == 1
    assert last["fit_subset_accuracy"] == pytest.approx(values["fit_subset"], rel=1e-4)
    assert all(name.startswith("train/") for name in points)
    assert splits == ["train", "val"]


@pytest.mark.slow(seconds=9)
def test_a_failing_check_stops_before_the_verdict_and_can_be_waived(copied: Path) -> None:
    set_params(copied, optimizer="sgd", lr=50)
    (copied / RESULTS / "verdict.json").unlink()
    with pytest.raises(GateError) as caught:
        run_stage(copied, "overfit-check")
    assert "\n" not in str(caught.value)
    assert "train does not start" in str(caught.value)
    assert not (copied / RESULTS / "verdict.json").exists()
    report = json.loads((copied / RESULTS / "report.json").read_text())
    failed = [c["id"] for c in report["checks"] if c["status"] == "fail"]
    assert report["status"] == "fail"

    waived = "; ".join(f"{id}: to see what happens" for id in failed)
    set_params(copied, waive=f"'{waived}'")
    run_stage(copied, "overfit-check")
    report = json.loads((copied / RESULTS / "report.json").read_text())
    assert {c["id"] for c in report["checks"] if c["status"] == "waived"} == set(failed)
    assert report["status"] in ("pass", "warn")

    set_params(copied, waive="none", on_fail="report")
    run_stage(copied, "overfit-check")
    verdict = json.loads((copied / RESULTS / "verdict.json").read_text())
    assert verdict == {"proceed": True}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("scale", "fused", "found"), [(2.0**22, "true", {}), (2.0**80, "false", {"finite": "fail"})]
)
def test_a_loss_scaler_may_leave_out_some_steps_but_not_all(
    scale: float,
    fused: str,
    found: dict[str, str],
    copied: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It halves while gradients overflow. A fused optimizer is called, but skips such a step."""
    scaler = partial(torch.amp.GradScaler, init_scale=scale)
    monkeypatch.setattr(torch.amp, "GradScaler", scaler)
    set_params(copied, precision="fp16", fused=fused, on_fail="report")
    forgive, forgiven = StepRecorder.forgive, []

    def noted(recorder: StepRecorder) -> None:
        forgiven.append(recorder)
        forgive(recorder)

    monkeypatch.setattr(StepRecorder, "forgive", noted)
    run_stage(copied, "overfit-check")
    report = json.loads((copied / RESULTS / "report.json").read_text())
    assert forgiven
    assert {c["id"]: c["status"] for c in report["checks"] if c["status"] != "pass"} == found


@pytest.mark.slow
def test_an_own_loss_and_augmentation_are_judged_like_the_others(
    copied: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def causes() -> set[str]:
        run_stage(copied, "overfit-check")
        report = json.loads((copied / RESULTS / "report.json").read_text())
        failed = [check for check in report["checks"] if check["status"] == "fail"]
        return {cause for check in failed for cause in check["likely_causes"]}

    set_params(copied, loss="own", augment_own="true", on_fail="report")
    assert causes() == set()
    own_loss = yours_loss.own_loss
    with monkeypatch.context() as patch:
        patch.setattr(
            yours_loss, "own_loss", lambda z, *rest, **more: own_loss(z.softmax(1), *rest, **more)
        )
        assert "activation_before_loss" in causes()
    monkeypatch.setattr(yours_augment, "own_augment", lambda rows, *_: torch.zeros_like(rows))
    assert causes() & {"blank_images", "augmentation_destroys_label"}


@pytest.mark.slow
def test_the_gamma_of_focal_loss_is_declared(copied: Path) -> None:
    set_params(copied, loss="focal", focal_gamma=10, on_fail="report")
    run_stage(copied, "overfit-check")
    report = json.loads((copied / RESULTS / "report.json").read_text())
    found = {c["id"]: c["message"] for c in report["checks"] if c["status"] != "pass"}
    assert not set(found) & {"loss_contract", "temperature"}, found


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("'leakige: known'", "no check 'leakige', did you mean leakage"),
        ("leakage", "needs a reason for leakage"),
    ],
)
def test_a_wrong_waiver_is_readable_errors(copied: Path, text: str, line: str) -> None:
    set_params(copied, waive=text)
    with pytest.raises(InputError, match=re.escape(line)) as caught:
        run_stage(copied, "overfit-check")
    assert "\n" not in str(caught.value)


def test_waivers_are_read_from_text() -> None:
    assert parse_waivers("none") == {}
    expected = {"leakage": "near duplicates: known", "class_balance": "rare"}
    assert parse_waivers("leakage: near duplicates: known; class_balance: rare") == expected
    with pytest.raises(InputError, match="no check 'leakag', did you mean leakage"):
        parse_waivers("leakag: known")
    for text in ("leakage", "leakage: ", "leakage: known; class_balance:"):
        with pytest.raises(InputError, match="needs a reason"):
            parse_waivers(text)
