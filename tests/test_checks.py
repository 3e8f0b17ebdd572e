"""The ladder: quiet on healthy set-ups, loud on broken ones, and the right cause first."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from src import params
from src.checks.ladder import climb_ladder
from src.checks.report import Check, Report
from src.data.packed import PackedSplit
from src.errors import GateError
from src.overfit_check import PLAIN
from src.training.loss import Loss
from src.training.setup import Setup, build_setup
from tests.closure import ROOT
from tests.conftest import run_stage, set_params

PARAMS: dict[str, Any] = {**params.load(ROOT), "model": "test_resnet", "batch_size": 16}


@pytest.fixture(scope="module")
def data(finished: tuple[Path, object]) -> PackedSplit:
    torch.set_num_threads(1)
    return PackedSplit(finished[0] / "data/subset", "train")


def climb(
    data: PackedSplit, lr: float = 1e-3, change: Callable[[Setup], None] | None = None, **more: Any
) -> dict[str, Check]:
    def make_setup(factor: float) -> Setup:
        given = {**PARAMS, **more, **PLAIN, "lr": lr * factor}
        setup = build_setup(given, data, torch.device("cpu"), steps=3)
        if change:
            change(setup)
        return setup

    checks, _ = climb_ladder(make_setup, data, 16, lr, 0)
    return {check.id: check for check in checks}


@pytest.mark.parametrize(
    "options",
    [{}, {"seed": 1}, {"lr": 3e-4}, {"lr": 3e-3}, {"optimizer": "sgd", "lr": 0.05},
     {"model": "test_vit"}, {"model": "test_efficientnet"}],
)  # fmt: skip
def test_healthy_set_ups_pass(data: PackedSplit, options: dict[str, Any]) -> None:
    found = climb(data, **options)
    assert {check.status for check in found.values()} == {"pass"}


def test_a_rate_that_is_too_low_warns_and_lets_pass(data: PackedSplit) -> None:
    found = climb(data, lr=1e-6)
    assert found["overfit_batch"].status == "warn"
    assert found["overfit_batch"].likely_causes == ["lr_too_low"]
    assert found["fit_subset"].consequence_of == "overfit_batch"
    assert Report(list(found.values())).status == "warn"


def test_a_rate_that_is_too_high_fails(data: PackedSplit) -> None:
    found = climb(data, lr=0.5, optimizer="sgd", momentum=0.98)
    assert found["overfit_batch"].status == "fail"
    assert found["overfit_batch"].likely_causes[0] == "lr_too_high"


class SoftmaxFirst(Loss):
    def forward(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return super().forward(logits.softmax(dim=1), labels)


def softmax_before_the_loss(setup: Setup) -> None:
    setup.criterion = SoftmaxFirst()


def optimizer_of_another_net(setup: Setup) -> None:
    setup.optimizer = torch.optim.AdamW([nn.Parameter(torch.zeros(1))], lr=1e-3)


def constant_input(setup: Setup) -> None:
    setup.std = [float("inf")] * 3  # every pixel becomes 0
    setup.mean = [0.0] * 3


@pytest.mark.parametrize(
    "fault", [softmax_before_the_loss, optimizer_of_another_net, constant_input]
)
def test_faults_fail(data: PackedSplit, fault: Callable[[Setup], None]) -> None:
    assert climb(data, change=fault)["overfit_batch"].status == "fail"


def test_a_step_that_forgets_the_gradient_fails(
    data: PackedSplit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.Tensor, "backward", lambda self: None)
    found = climb(data)
    assert found["overfit_batch"].status == "fail"


def test_a_wild_start_is_a_warning(data: PackedSplit) -> None:
    def scale_head(setup: Setup) -> None:
        with torch.no_grad():
            setup.model.get_classifier().weight.mul_(100)  # type: ignore[operator]

    found = climb(data, change=scale_head)
    assert found["start_loss"].status == "warn"
    assert found["start_loss"].likely_causes[0] == "bad_initialisation"


def test_a_failing_check_stops_before_the_verdict(copied: Path) -> None:
    set_params(copied, optimizer="sgd", lr=50)
    (copied / "results/overfit_check/verdict.json").unlink()
    with pytest.raises(GateError) as caught:
        run_stage(copied, "overfit-check")
    assert "\n" not in str(caught.value)
    assert "train does not start" in str(caught.value)
    assert not (copied / "results/overfit_check/verdict.json").exists()
    report = json.loads((copied / "results/overfit_check/report.json").read_text())
    assert report["status"] == "fail"

    set_params(copied, on_fail="report")
    run_stage(copied, "overfit-check")
    verdict = json.loads((copied / "results/overfit_check/verdict.json").read_text())
    assert verdict == {"proceed": True}


def test_strict_counts_warnings_as_failures() -> None:
    warned = [Check("a", "pass", 1.0, 2.0, "fine"), Check("b", "warn", 1.0, 2.0, "odd", ["x"])]
    assert Report(warned).status == "warn"
    assert Report(warned, strict=True).status == "fail"
    assert Report(warned[:1], strict=True).status == "pass"
    inconclusive = [Check("c", "inconclusive", None, 2.0, "not tried")]
    assert Report(inconclusive).status == "warn"
    assert Report(inconclusive, strict=True).status == "fail"


def test_the_report_has_the_agreed_form(finished: tuple[Path, object]) -> None:
    report = json.loads((finished[0] / "results/overfit_check/report.json").read_text())
    assert set(report) == {"status", "checks"}
    for check in report["checks"]:
        assert list(check) == [
            "id", "status", "value", "threshold", "message", "likely_causes", "consequence_of",
        ]  # fmt: skip
