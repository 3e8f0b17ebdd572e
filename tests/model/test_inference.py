"""The net on a whole split against counts by hand: outputs, flips, fresh BatchNorm statistics."""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from timm.layers import BatchNormAct2d
from torch import nn

from src.base.files import write_json
from src.data.batches import EVAL_BATCH
from src.data.packed import PackedSplit
from src.data.readers import Reading
from src.data.writer import SplitWriter
from src.images.input import enter
from src.model.inference import logits_of, normalised_sigmoid, refresh_batchnorm, softmax
from src.plumbing.errors import InputError

CPU = torch.device("cpu")
MEAN, STD = [0.4, 0.5, 0.6], [0.2, 0.25, 0.3]


def write_images(folder: Path, count: int, seed: int = 0) -> PackedSplit:
    """`count` noisy images of 8 px, class after class, the brighter the later."""
    draws = np.random.default_rng(seed)
    folder.mkdir(exist_ok=True)
    with SplitWriter(folder, "test", {"size": 8, "channels": 3}) as writer:
        for index in range(count):
            label = index * 3 // count
            image = draws.integers(60 * label, 60 * label + 60, (8, 8, 3), dtype=np.uint8)
            writer.add(image, label, "x", f"{index:064x}")
    meta = {
        "classes": ["a", "b", "c"],
        "size": 8,
        "channels": 3,
        "mean": MEAN,
        "std": STD,
        "shards": {"test": writer.shards},
    }
    write_json(folder / "meta.json", meta)
    return PackedSplit(folder, "test")


def inputs_of(data: PackedSplit) -> torch.Tensor:
    return enter(torch.from_numpy(data.rows(range(len(data)))), MEAN, STD)


def outputs(model: nn.Module, data: PackedSplit, flip: bool = False) -> torch.Tensor:
    return torch.cat([out for out, _ in logits_of(model, data, CPU, MEAN, STD, flip=flip)])


def small_net() -> nn.Sequential:
    """Two kinds of BatchNorm, one of them at 1 x 1 and one with dropout inside."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3),
        BatchNormAct2d(6, drop_layer=nn.Dropout),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(6, 5),
        nn.BatchNorm1d(5, momentum=0.3),
        nn.Dropout(0.5),
        nn.Linear(5, 3),
    )


def test_logits_come_in_order_with_their_labels(tmp_path: Path) -> None:
    data, net = write_images(tmp_path, 150), small_net()
    labels = torch.cat([labels for _, labels in logits_of(net, data, CPU, MEAN, STD)])
    assert labels.tolist() == data.labels.tolist()
    assert torch.allclose(outputs(net, data), net.eval()(inputs_of(data)), atol=1e-6)


def test_flip_is_the_mean_of_the_logits_of_image_and_mirror_image(tmp_path: Path) -> None:
    data, net = write_images(tmp_path, 20), small_net().eval()
    images = data.rows(range(20))
    mirrored = torch.from_numpy(images[:, :, ::-1].copy())
    plain, other = net(inputs_of(data)), net(enter(mirrored, MEAN, STD))
    found = outputs(net, data, flip=True)
    assert torch.allclose(found, (plain + other) / 2, atol=1e-6)
    assert not torch.allclose(found, plain, atol=1e-3)


@pytest.mark.parametrize("count", [100, EVAL_BATCH + 1, 3 * EVAL_BATCH + 1])
def test_refreshed_statistics_are_those_of_the_images(tmp_path: Path, count: int) -> None:
    """The mean in any batches; the variance as far as they mix classes (one batch: to rounding)."""
    data, net = write_images(tmp_path, count), small_net()
    before = copy.deepcopy(net.state_dict())
    refresh_batchnorm(net, data, CPU, MEAN, STD)
    first: Any = net[1]
    last: Any = net[5]
    convolution: Any = copy.deepcopy(net[0]).double()
    linear: Any = copy.deepcopy(net[4]).double()
    with torch.no_grad():
        entering = convolution(inputs_of(data).double())
    mean, variance = entering.mean(dim=(0, 2, 3)), entering.var(dim=(0, 2, 3))
    assert torch.allclose(first.running_mean.double(), mean, rtol=0, atol=1e-5)
    one_batch = count <= EVAL_BATCH
    tolerance = 1e-5 if one_batch else 0.03
    assert torch.allclose(first.running_var.double(), variance, rtol=tolerance, atol=0)
    if one_batch:  # behind normalised images, without dropout
        scaled = (entering - mean[:, None, None]) / (
            entering.var(dim=(0, 2, 3), correction=0)[:, None, None] + first.eps
        ).sqrt()
        with torch.no_grad():
            second = linear(scaled.relu().mean(dim=(2, 3)))
        assert torch.allclose(last.running_mean.double(), second.mean(dim=0), atol=1e-5)
        assert torch.allclose(last.running_var.double(), second.var(dim=0), atol=1e-5)
    for key, value in net.state_dict().items():
        statistic = "running" in key or "num_batches" in key
        assert torch.equal(value, before[key]) != statistic, key
    assert not any(module.training for module in net.modules())
    assert (first.momentum, last.momentum) == (0.1, 0.3)
    assert all(parameter.grad is None for parameter in net.parameters())


def test_refreshing_forgets_the_old_statistics_and_draws_nothing(tmp_path: Path) -> None:
    data, net = write_images(tmp_path, EVAL_BATCH + 20), small_net()
    other = copy.deepcopy(net)
    other.state_dict()["1.running_mean"].fill_(7.0)  # shares memory with the net
    other.state_dict()["5.running_var"].fill_(9.0)
    refresh_batchnorm(net, data, CPU, MEAN, STD)
    torch.manual_seed(5)
    state = torch.get_rng_state()
    refresh_batchnorm(other, data, CPU, MEAN, STD, Reading("workers", 1))
    assert torch.equal(torch.get_rng_state(), state)
    for key, value in net.state_dict().items():
        assert torch.equal(value, other.state_dict()[key]), key


def test_refresh_needs_batchnorm_and_two_images(tmp_path: Path) -> None:
    data = write_images(tmp_path / "many", 3)
    without = nn.Sequential(nn.Conv2d(3, 2, 3), nn.BatchNorm2d(2, track_running_stats=False))
    with pytest.raises(InputError, match=r"evaluate\.refresh_batchnorm must be none"):
        refresh_batchnorm(without, data, CPU, MEAN, STD)
    with pytest.raises(InputError, match=r"evaluate\.refresh_batchnorm must be none: test has one"):
        refresh_batchnorm(small_net(), write_images(tmp_path / "one", 1), CPU, MEAN, STD)


def test_softmax_survives_large_logits() -> None:
    found = softmax(np.array([[1000.0, 0.0], [0.0, 0.0]], dtype=np.float32))
    assert found.tolist() == [[1.0, 0.0], [0.5, 0.5]]


def test_sigmoids_are_normalised() -> None:
    logits = np.array([[0.0, 0.0, 0.0], [2.0, -1.0, 0.5]], dtype=np.float32)
    sigmoids = 1 / (1 + np.exp(-logits.astype(np.float64)))
    expected = sigmoids / sigmoids.sum(axis=1, keepdims=True)
    assert np.allclose(normalised_sigmoid(logits), expected, rtol=1e-12)
    far = normalised_sigmoid(np.array([[-2000.0, -2001.0], [2000.0, -2000.0]], dtype=np.float32))
    assert far[0, 0] == pytest.approx(1 / (1 + np.exp(-1)))
    assert far[1].tolist() == [1, 0]
