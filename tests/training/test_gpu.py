"""What only a GPU can show; skipped without. With `machine.device: auto` fast tests use one too."""

import math
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from src.data.readers import MAPPED, Reading, read_batches
from src.plumbing.terminal import Progress
from src.training.graph import StepGraph
from src.training.loop import Row, Training
from tests.training.test_no_sync import EVERYTHING
from tests.training.test_same_bits import EVERYTHING_RANDOM
from tests.training.trainings import (
    CPU,
    Splits,
    checkpoint_in,
    ended,
    make_training,
    resumed,
    run,
    same_state,
)

pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"),
    pytest.mark.usefixtures("deterministic"),
]
GPU = torch.device("cuda")


@pytest.fixture
def deterministic(torch_settings: None) -> None:
    from src.model.device import prepare_device

    prepare_device("cuda", 1)


WAITING: dict[str, tuple[dict[str, Any], Reading]] = {
    "default": ({}, Reading("resident")),
    "everything": (EVERYTHING, Reading("resident")),
    "mapped": (EVERYTHING, Reading("mapped")),
    "workers": (EVERYTHING, Reading("workers", 1)),
    "parts": ({**EVERYTHING, "loss": "bce", "accumulate": 2}, Reading("resident")),
    "focal": ({"loss": "focal", "class_weights": "balanced"}, Reading("resident")),
    "sgd": ({"optimizer": "sgd", "sampling": "balanced"}, Reading("resident")),
    "bf16": ({"precision": "bf16", "channels_last": True, "ema": 0.9}, Reading("resident")),
    "fp16": ({"precision": "fp16", "clip_grad": 1.0}, Reading("resident")),
    "graph": ({"machine.cuda_graph": "auto"}, Reading("resident")),
}


@pytest.mark.parametrize(("options", "reading"), WAITING.values(), ids=WAITING)
def test_no_step_waits_for_the_gpu(
    few: Splits, tmp_path: Path, options: dict[str, Any], reading: Reading
) -> None:
    """12-step epochs wait as often as 3-step ones; the first only prepares and is not counted."""
    accumulate = options.get("accumulate", 1)

    def waits(batch_size: int) -> int:
        changed = {"epochs": 2, "batch_size": batch_size // accumulate, **options}
        training = make_training(few, GPU, reading, **changed)
        counts = []
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")

            def on_epoch(row: Row) -> None:
                said = [str(one.message) for one in seen]
                counts.append(sum("synchronizing CUDA operation" in text for text in said))
                seen.clear()
                # Or weights that are the best so far would come to the host, in some of the epochs.
                training.best.score = [math.inf, math.inf]
                torch.cuda.set_sync_debug_mode("warn")

            progress = Progress(2, training.steps_per_epoch, batch_size, "images", 0, "off")
            try:
                training.run(checkpoint_in(tmp_path / str(batch_size)), progress, on_epoch)
            finally:
                torch.cuda.set_sync_debug_mode("default")
        return counts[1]

    few_steps, many_steps = waits(16), waits(4)
    assert 0 < few_steps == many_steps


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
def test_a_training_on_a_gpu_is_the_same_bits(few: Splits, tmp_path: Path, precision: str) -> None:
    """Again, by each way of reading, and killed after two steps and gone on with."""
    options = {**EVERYTHING_RANDOM, "precision": precision}

    def make(reading: Reading) -> Training:
        return make_training(few, GPU, reading, **options)

    resident = Reading("resident")
    trainings = [make(reading) for reading in (resident, resident, MAPPED, Reading("workers", 2))]
    for number, training in enumerate(trainings):
        run(training, tmp_path / str(number))
    trainings.append(resumed(lambda: make(resident), tmp_path / "killed", 2))
    first, *others = (training.state_dict() for training in trainings)
    for number, other in enumerate(others, start=1):
        assert other["history"] == first["history"], number
        for part in ("model", "ema", "optimizer", "best"):
            assert same_state(other[part], first[part]), (part, number)


@pytest.mark.parametrize("mode", ["resident", "mapped", "workers"])
def test_a_gpu_with_a_number_gets_the_batches_of_the_cpu(few: Splits, mode: str) -> None:
    parts = [np.arange(start, start + 16) for start in (0, 16, 32)]
    first = torch.device("cuda", 0)
    batches = read_batches(few[0], parts, first, Reading(mode, 1))
    for part, batch in zip(parts, batches, strict=True):
        assert batch[0].device == batch[1].device == first
        assert np.array_equal(batch[0].cpu().numpy(), few[0].rows(part))
        assert batch[1].tolist() == few[0].labels[part].tolist()


GRAPHS: dict[str, dict[str, Any]] = {
    "default": {},
    "everything": {**EVERYTHING, "drop_rate": 0},
    "parts": {"batch_size": 8, "accumulate": 2, "loss": "bce", "clip_grad": 0.1},
    "sgd": {"optimizer": "sgd", "schedule": "cosine", "ema": 0.9},
    "frozen": {"freeze_epochs": 2},
    "bf16": {"precision": "bf16", "channels_last": True},
    "focal": {"loss": "focal", "class_weights": "balanced"},
}


@pytest.mark.parametrize("mode", ["resident", "mapped"])
@pytest.mark.parametrize("options", GRAPHS.values(), ids=GRAPHS)
def test_a_training_by_graphs_is_the_same_bits(
    few: Splits, tmp_path: Path, options: dict[str, Any], mode: str
) -> None:
    """As without; and killed after some steps and gone on with."""

    def make(graph: str) -> Training:
        given = {"epochs": 4, **options, "machine.cuda_graph": graph}
        return make_training(few, GPU, Reading(mode), **given)

    usual, by_graph = make("off"), make("auto")
    run(usual, tmp_path / "off")
    run(by_graph, tmp_path / "auto")
    again = resumed(lambda: make("auto"), tmp_path / "killed", 7)
    graph = by_graph.learner.graph
    assert isinstance(graph, StepGraph)
    assert (graph.why_not, graph.graph is None) == ("", False)
    first = usual.state_dict()
    for other in (by_graph.state_dict(), again.state_dict()):
        assert other["history"] == first["history"]
        for part in ("model", "ema", "optimizer", "best"):
            assert same_state(other[part], first[part]), part


def test_a_net_that_draws_on_a_gpu_takes_no_graph(few: Splits, tmp_path: Path) -> None:
    given: dict[str, Any] = {"machine.cuda_graph": "auto", "drop_rate": 0.2, "epochs": 2}
    training = make_training(few, GPU, **given)
    run(training, tmp_path)
    assert "random" in training.learner.graph.why_not  # type: ignore[union-attr]


def test_augmentation_draws_the_same_on_a_gpu(few: Splits) -> None:
    """To rounding: what is drawn comes from the CPU."""
    from src.images.augment import Augmentation

    images = torch.from_numpy(few[0].rows(range(16)))
    augmentation = Augmentation(2, True, vertical_flip=True, scale=0.5, rotation=20, erase=0.5)
    here, there = augmentation(images, 0, 1), augmentation(images.to(GPU), 0, 1)
    # A point that rounding moves across an edge of what is erased would differ by more.
    assert ((here - there.to(CPU)).abs() < 0.01).float().mean() > 0.999


def test_a_net_trained_on_a_gpu_predicts_the_same_on_a_cpu(few: Splits, tmp_path: Path) -> None:
    learner = ended(few, tmp_path, device=GPU, epochs=2).learner
    images = torch.from_numpy(few[1].rows(range(len(few[1]))))
    with torch.no_grad():
        there = learner.model.eval()(learner.enter(images.to(GPU))).cpu()
        learner.model.cpu()
        here = learner.model(learner.enter(images))
    torch.testing.assert_close(here, there, rtol=1e-3, atol=1e-4)
