"""The range test: real steps, nothing touched, and what a curve suggests."""

import pickle
import random
from pathlib import Path

import numpy as np
import pytest
import torch

from src import lr_find
from src.data.packed import PackedSplit
from src.experiments.lr import curve
from src.experiments.lr.ramp import LR, MOMENTUM, measure, range_test
from src.plumbing.errors import GateError, InputError
from src.plumbing.stage import Stage
from src.training.learner import build_learner
from src.training.step import train_step
from tests.conftest import working_in
from tests.experiments.conftest import Call, refusal

CPU = torch.device("cpu")
LOCK = b"""
stages:
  prepare:
    cmd: python -m src.prepare
    params: {params.yaml: {prepare.size: 8}}
"""


@pytest.fixture(scope="module")
def folder(finished: tuple[Path, dict[str, Stage]]) -> str:
    return str(finished[0] / "data/prepared")


@pytest.fixture(scope="module")
def data(folder: str) -> PackedSplit:
    return PackedSplit(folder, "train")


@pytest.fixture(scope="module")
def params(finished: tuple[Path, dict[str, Stage]]) -> dict:
    return dict(finished[1]["train"].params._values)


def state_of(setup) -> list:
    """Weights, optimizer and random generators, as what compares equal only if all bits are."""
    tensors = [*setup.model.state_dict().values(), torch.get_rng_state()]
    for state in setup.optimizer.state_dict()["state"].values():
        tensors += [value for value in state.values() if torch.is_tensor(value)]
    bits = [tensor.numpy().tobytes() for tensor in tensors]
    return [bits, random.getstate(), pickle.dumps(np.random.get_state())]


def test_weights_optimizer_and_generators_are_as_before(params: dict, data: PackedSplit) -> None:
    setup = build_learner(params, data, CPU, 3)
    loss = setup.forward(setup.enter(torch.from_numpy(data.rows(np.arange(8))))).sum()
    loss.backward()
    setup.optimizer.step()
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    before = state_of(setup)
    rates, losses = range_test(params, data, CPU, LR, 30)
    assert state_of(setup) == before
    assert len(rates) == len(losses) > 10
    again = range_test(params, data, CPU, LR, 30)
    assert (again[1] == losses).all()


def test_it_learns_and_stops_when_the_loss_explodes(params: dict, data: PackedSplit) -> None:
    rates, losses = range_test({**params, "optimizer": "sgd"}, data, CPU, LR, 80)
    fitted = curve.fit(rates, losses)
    assert fitted.smooth.min() < 0.9 * losses[:10].mean()
    assert 1e-6 < fitted.minimum < 10
    low, high = curve.suggest([fitted]).limits
    assert low < fitted.minimum
    assert low <= curve.suggest([fitted]).to_try <= high


def test_momentum_needs_an_optimizer_that_has_one(params: dict, data: PackedSplit) -> None:
    with pytest.raises(InputError, match="optimizer adamw has no momentum to vary"):
        range_test({**params, "optimizer": "adamw"}, data, CPU, MOMENTUM, 30)
    rates, losses = range_test({**params, "optimizer": "sgd"}, data, CPU, MOMENTUM, 30)
    assert len(losses) > 5
    assert MOMENTUM.as_param(rates[0]) == "0.5"


def test_momentum_rises_at_the_configured_lr(
    params: dict, data: PackedSplit, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not at what a warm-up begins with; and no momentum below those that were tried."""
    seen: list[tuple[float, float]] = []

    def look(setup, batch, number):
        group = setup.optimizer.param_groups[0]
        seen.append((group["lr"], group["momentum"]))
        return train_step(setup, batch, number)

    monkeypatch.setattr("src.experiments.lr.ramp.train_step", look)
    given = {**params, "optimizer": "sgd", "lr": 0.05, "warmup": 2, "epochs": 5}
    rates, _ = range_test(given, data, CPU, MOMENTUM, 30)
    assert {lr for lr, _ in seen} == {0.05}
    assert [1 - 1 / rate for rate in rates] == pytest.approx([momentum for _, momentum in seen])
    # A loss that only rises: the lowest rate is the best that is known.
    found = curve.suggest([curve.fit(rates, np.linspace(1, 2, len(rates)))])
    assert {MOMENTUM.as_param(rate) for rate in (found.tenth, found.limits[0])} == {"0.5"}
    assert 0.5 <= float(MOMENTUM.as_param(found.to_try)) < 1
    assert curve.explained(found, 10.0, MOMENTUM.as_param)
    assert found.from_start


def test_a_curve_that_only_falls_does_not_say_that_it_diverges() -> None:
    rates = np.geomspace(2, 1000, 100)
    falls = np.exp(-np.log(rates / 2) / 2)  # fastest at the start of the range
    found = curve.suggest([curve.fit(rates, falls)])
    assert (found.diverges, found.from_start) == (False, True)
    assert found.to_try == pytest.approx(100, rel=0.05)  # a tenth of the highest rate tried
    lines = "\n".join(curve.explained(found, 10.0, MOMENTUM.as_param))
    assert "may lie below, and does not count" in lines
    assert "still low where the range ends" in lines
    rises = np.where(rates < 300, falls, falls + np.log10(rates / 300))
    found = curve.suggest([curve.fit(rates, rises)])
    assert found.diverges
    assert "above it the loss rises" in "\n".join(curve.explained(found, 10.0, MOMENTUM.as_param))


def test_a_first_loss_that_is_no_number_is_said_in_a_line(
    params: dict, folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost = torch.tensor([torch.nan, 0.0, 8.0, 1.0])
    monkeypatch.setattr("src.experiments.lr.ramp.train_step", lambda *_: lost)
    with pytest.raises(GateError, match="explodes after 0 steps, at lr 1e-06: look at the data"):
        measure(params, folder, LR, 1, 30)


@pytest.mark.parametrize(
    ("steps", "said"),
    [(30, "after 23 steps, at lr 1: give it more, such as --steps 150"), (150, "look at the data")],
)
def test_a_curve_of_few_steps_that_explodes_late_needs_more(
    steps: int, said: str, params: dict, folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = np.geomspace(1e-6, 1, 23), np.ones(23)
    monkeypatch.setattr("src.experiments.lr.ramp.range_test", lambda *_: ended)
    with pytest.raises(GateError, match=said):
        measure(params, folder, LR, 1, steps)


def test_a_curve_of_known_shape(tmp_path: Path) -> None:
    """A loss that falls as a logistic function of log10(rate) around -3, and rises from -1 on."""
    rates = np.geomspace(1e-6, 10, 200)
    x = np.log10(rates)
    deviations = np.random.default_rng(0).normal(0, 0.03, 200)
    losses = 2.3 - 2 / (1 + np.exp(-4 * (x + 3))) + np.maximum(0, x + 1) * 3 + deviations
    fitted = curve.fit(rates, losses)
    assert abs(np.log10(fitted.steepest) + 3) < 0.2
    assert -2 < np.log10(fitted.minimum) < -0.9
    assert np.abs(fitted.smooth - (losses - deviations)).max() < 0.25
    found = curve.suggest([fitted, fitted])
    assert found.per_seed == pytest.approx((found.to_try, found.to_try))
    figure = curve.draw([fitted, fitted], {"now": 1e-3}, found.limits, "lr", "title")
    assert figure.startswith(b"\x89PNG")


def test_a_bump_after_divergence_is_no_descent() -> None:
    rates = np.geomspace(1e-6, 10, 200)
    x = np.log10(rates)
    losses = 2.3 - 2 / (1 + np.exp(-4 * (x + 3))) + 2 / (1 + np.exp(-8 * (x + 0.5)))
    fitted = curve.fit(rates, losses + 6 * np.exp(-0.5 * ((x - 0.3) / 0.25) ** 2))
    assert abs(np.log10(fitted.steepest) + 3) < 0.2


def test_the_command_leaves_the_project_as_it_is(copied: Path, call: Call) -> None:
    before = {path: path.read_bytes() for path in copied.rglob("*") if path.is_file()}
    words = ["--on", "subset", "--steps", "40", "--seeds", "2", "-S", "optimizer=sgd"]
    lock = copied / "dvc.lock"
    with working_in(copied):
        _, printed, _ = call(lr_find.main, *words)
        for content, said in (
            (LOCK, "data/subset was made with prepare.size=8, not 64"),
            (b"\xff\xfe", "dvc.lock is no UTF-8 text: `git checkout dvc.lock`"),
            (b"<<<<<<< HEAD\nstages:\n", "dvc.lock cannot be read ("),  # a merge
        ):
            lock.write_bytes(content)
            assert said in refusal(call(lr_find.main, *words, "-S", "prepare.size=64"))
    lock.unlink()
    assert "try next: dvc exp run -S optimizer=sgd -S lr=" in printed
    assert "seeds alone suggest" in printed
    after = {path: path.read_bytes() for path in copied.rglob("*") if path.is_file()}
    new = {path.relative_to(copied).as_posix() for path in after.keys() - before.keys()}
    assert {name for name in new if "__pycache__" not in name} == {
        *("results/lr_find/lr.png", "results/lr_find/lr.csv")
    }
    assert all(after[path] == content for path, content in before.items())
