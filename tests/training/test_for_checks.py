import pytest
from torch import nn

from src import checks
from src.training.for_checks import training_setup
from src.yours import net as yours
from tests.training.test_learner import Scaled
from tests.training.trainings import CPU, PARAMS, Splits


def test_what_the_net_itself_keeps_fixed_is_declared(
    few: Splits, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(yours, "own_net", lambda k, channels, *_: Scaled(k, channels, True))
    setup = training_setup({**PARAMS, "model": "own"}, *few, CPU)
    assert setup.declared["frozen"] == ["scale"]
    report = checks.run(lambda: training_setup({**PARAMS, "model": "own"}, *few, CPU))
    assert next(c for c in report.checks if c.id == "frozen_params").status == "pass"
    plain = training_setup(PARAMS, *few, CPU)
    assert plain.declared["frozen"] == []


def test_the_weights_of_a_layer_that_rest_are_a_finding(
    few: Splits, monkeypatch: pytest.MonkeyPatch
) -> None:
    def resting(classes: int, channels: int, _: int, params: object) -> nn.Module:
        net = Scaled(classes, channels, True)
        net.body.weight.requires_grad_(False)
        return net

    monkeypatch.setattr(yours, "own_net", resting)
    report = checks.run(lambda: training_setup({**PARAMS, "model": "own"}, *few, CPU))
    found = next(c for c in report.checks if c.id == "frozen_params")
    assert (found.status, found.likely_causes[0]) == ("fail", "parameter_frozen")
    assert "body.weight" in found.message
    assert "scale" not in found.message
