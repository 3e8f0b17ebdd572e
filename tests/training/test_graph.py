"""A step by a graph is the step itself: its bookkeeping, on a CPU that records what a GPU captures;
test_gpu.py has CUDA's own."""

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

from src.plumbing.errors import InputError
from src.training.graph import WARM_UP, StepGraph, step_graph
from src.training.loop import Training
from src.training.step import train_step
from tests.training import recorded_graph
from tests.training.recorded_graph import RecordedGraph
from tests.training.trainings import (
    PARAMS,
    Splits,
    make_learner,
    make_training,
    resumed,
    run,
    same_state,
)

OPTIONS: dict[str, dict[str, Any]] = {
    "default": {},
    "schedule": {"schedule": "cosine", "warmup": 1, "optimizer": "sgd", "ema": 0.9},
    "clipped": {"clip_grad": 0.1, "label_smoothing": 0.1, "channels_last": True},
    "parts": {"batch_size": 8, "accumulate": 2},
    "mixed": {"mixup": 0.2, "cutmix": 1.0, "loss": "bce"},
    "frozen": {"freeze_epochs": 2},
}
# The first steps of the training, and with a frozen backbone the first ones after it.
AS_USUAL = {name: WARM_UP - 1 for name in OPTIONS} | {"frozen": 2 * (WARM_UP - 1)}
STEPS = 12


@pytest.fixture
def on_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    recorded_graph.replace_cuda(monkeypatch)


def with_graph(splits: Splits, **options: Any) -> Training:
    training = make_training(splits, epochs=4, **options)
    training.learner.graph = StepGraph(training.learner)
    return training


@pytest.mark.usefixtures("on_cpu")
@pytest.mark.parametrize("name", OPTIONS)
def test_a_training_by_graphs_is_the_same_bits(few: Splits, tmp_path: Path, name: str) -> None:
    usual = make_training(few, epochs=4, **OPTIONS[name])
    by_graph = with_graph(few, **OPTIONS[name])
    run(usual, tmp_path / "usual")
    run(by_graph, tmp_path / "graph")
    assert RecordedGraph.replays == STEPS - AS_USUAL[name]
    assert not by_graph.learner.graph.why_not  # type: ignore[union-attr]
    one, other = usual.state_dict(), by_graph.state_dict()
    assert one["history"] == other["history"]
    for part in ("model", "ema", "optimizer", "best"):
        assert same_state(one[part], other[part]), part


@pytest.mark.usefixtures("on_cpu")
def test_a_killed_training_goes_on_with_the_same_bits(few: Splits, tmp_path: Path) -> None:
    whole = with_graph(few)
    run(whole, tmp_path / "whole")
    again = resumed(lambda: with_graph(few), tmp_path / "killed", 7)
    assert same_state(whole.state_dict()["model"], again.state_dict()["model"])


@pytest.mark.usefixtures("on_cpu")
def test_another_size_of_batch_goes_the_usual_way(few: Splits) -> None:
    learners = make_learner(few[0]), make_learner(few[0])
    learners[1].graph = StepGraph(learners[1])
    images, labels = torch.from_numpy(few[0].rows(range(48))), torch.from_numpy(few[0].labels)
    for step, size in enumerate([16, 16, 16, 16, 7, 16, 9, 16]):
        part = slice(step, step + size)
        for learner in learners:
            train_step(learner, (images[part], labels[part]), step)
    assert RecordedGraph.replays == 4
    assert same_state(learners[0].model.state_dict(), learners[1].model.state_dict())


@pytest.mark.usefixtures("on_cpu")
@pytest.mark.parametrize("options", [{"drop_rate": 0.2}, {"drop_path": 0.2}], ids=str)
def test_a_net_that_draws_goes_the_usual_way(
    few: Splits, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: dict[str, Any]
) -> None:
    usual, by_graph = make_training(few, epochs=4, **options), with_graph(few, **options)
    run(usual, tmp_path / "usual")
    run(by_graph, tmp_path / "graph")
    assert RecordedGraph.replays == 0
    said = [line for line in capsys.readouterr().out.splitlines() if "cuda_graph" in line]
    assert said == ["cuda_graph: off, since the net draws random numbers, as dropout does"]
    assert same_state(usual.state_dict()["model"], by_graph.state_dict()["model"])


@pytest.mark.usefixtures("on_cpu")
def test_a_net_that_waits_for_the_gpu_goes_the_usual_way(few: Splits, tmp_path: Path) -> None:
    training = with_graph(few)
    training.learner.model.register_forward_hook(
        lambda *_: warnings.warn("called a synchronizing CUDA operation", stacklevel=1)
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        run(training, tmp_path)
    assert training.learner.graph.why_not == "the step waits for the GPU"  # type: ignore[union-attr]
    assert RecordedGraph.replays == 0


@pytest.mark.usefixtures("on_cpu")
def test_other_bits_keep_the_usual_way(few: Splits, tmp_path: Path) -> None:
    """A net with a number of its own that changes from step to step, which a graph keeps."""

    def with_count() -> Training:
        training = make_training(few, epochs=4)
        calls: list[int] = []

        def later(net: Any, inputs: Any, logits: torch.Tensor) -> torch.Tensor:
            calls.append(1)
            return logits * len(calls)

        training.learner.model.register_forward_hook(later)
        return training

    usual, by_graph = with_count(), with_count()
    by_graph.learner.graph = StepGraph(by_graph.learner)
    # Its capture is a call too, so compare with a training that has one more.
    run(by_graph, tmp_path / "graph")
    assert RecordedGraph.replays == 1
    assert "differ" in by_graph.learner.graph.why_not
    run(usual, tmp_path / "usual", after=None)
    first = usual.history[0]["train_loss"], by_graph.history[0]["train_loss"]
    assert first[0] == first[1]


@pytest.mark.usefixtures("on_cpu")
def test_what_cannot_be_captured_is_a_line(
    few: Splits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: Any, **__: Any) -> Any:
        raise RuntimeError("operation not permitted\nwhen stream is capturing")

    monkeypatch.setattr(torch.cuda, "graph", refused)
    words = r"machine\.cuda_graph must be off: .* \(operation not permitted when stream is"
    with pytest.raises(InputError, match=words):
        run(with_graph(few), tmp_path)


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ({}, True),
        ({"machine.cuda_graph": "off"}, False),
        ({"compile": "default"}, False),
        ({"precision": "fp16"}, False),
        ({"precision": "bf16"}, True),
        ({"model": "own"}, False),
        ({"loss": "own"}, False),
    ],
    ids=str,
)
def test_where_a_graph_is_taken(few: Splits, options: dict[str, Any], wanted: bool) -> None:
    params = {**PARAMS, "machine.cuda_graph": "auto", **options}
    learner = make_learner(few[0])
    assert step_graph(learner, params) is None  # on a CPU
    learner.device = torch.device("cuda")
    assert (step_graph(learner, params) is not None) == wanted
