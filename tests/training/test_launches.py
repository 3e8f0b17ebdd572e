"""A step starts few operations beside those of the net itself."""

from typing import Any

import pytest
import torch
from torch.nn import functional

from src.training.graph import StepGraph
from src.training.step import prepare_batch, update
from tests.training import recorded_graph
from tests.training.launches import Launches
from tests.training.trainings import Splits, make_training

META = torch.device("meta")  # tells what the device does from what is drawn on the CPU
# resnet10t, the figures before operations were put together in brackets.
NET = 100  # its forward and backward pass
BESIDE = 21  # (42) augmentation, entering, counters, loss, hits, norm, optimizer, sums


def launches_of_a_step(splits: Splits, **options: Any) -> Launches:
    """The third step, with the augmentation of params.yaml."""
    training = make_training(splits, model="resnet10t", batch_size=16, **options)
    training.learner.freeze_backbone(False)
    for step, batch in enumerate(training.batches(0)):
        with Launches("meta") as preparing:
            on_meta = (batch[0].to(META), batch[1].to(META))
            prepare_batch(on_meta, training.learner, training.augment, training.mix, step)
        preparing.found.subtract({"aten._to_copy.default": 2})  # ours, just above
        batch = prepare_batch(batch, training.learner, training.augment, training.mix, step)
        with Launches("cpu") as stepping:
            torch._foreach_add_(training.sums.unbind(), update(training.learner, batch, step))
        stepping.found += preparing.found
    return stepping


def test_a_step_starts_few_operations(few: Splits) -> None:
    found = launches_of_a_step(few, augment_flip=False)
    assert found.count <= NET + BESIDE, found.found.most_common()


def test_no_option_starts_an_operation_per_layer_or_sample(few: Splits) -> None:
    """An average, a clipped gradient, flips: a few more, however many layers and samples."""
    plain = launches_of_a_step(few).count
    many = launches_of_a_step(few, ema=0.9, clip_grad=1.0, augment_vertical_flip=True)
    assert many.count <= plain + 8, many.found.most_common()


def test_a_graph_leaves_few_operations_to_the_host(
    few: Splits, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Inputs copied, optimizer, sums; beside them the augmentation and the replay itself."""
    recorded_graph.replace_cuda(monkeypatch)
    training = make_training(few, model="resnet10t", batch_size=16)
    training.learner.freeze_backbone(False)
    training.learner.graph = StepGraph(training.learner)
    for step, batch in enumerate(training.batches(0)):
        update(training.learner, batch, step)
    monkeypatch.setattr(recorded_graph.RecordedGraph, "replay", lambda _: None)
    with Launches("cpu") as found:
        torch._foreach_add_(training.sums.unbind(), update(training.learner, batch, step + 1))
    assert found.count == 7, found.found.most_common()


def test_the_net_itself_is_what_pytorch_starts(few: Splits) -> None:
    """The bare forward and backward pass, with the counters of BatchNorm and the loss."""
    training = make_training(few, model="resnet10t", batch_size=16)
    net = training.learner.model.train()
    rows, labels = next(training.batches(0))
    inputs = training.learner.enter(rows)
    functional.cross_entropy(net(inputs), labels).backward()  # the first is like no other
    net.zero_grad()
    with Launches("cpu") as bare:
        functional.cross_entropy(net(inputs), labels).backward()
    of_loss, counters = 5, 14
    assert bare.count == NET + of_loss + counters, bare.found.most_common()
