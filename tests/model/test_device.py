"""The device and its settings, and errors of torch in one line."""

import os
from typing import Any

import pytest
import torch
from torch import nn

from src.data.packed import PackedSplit
from src.model.device import prepare_device, readable_errors
from src.plumbing.errors import InputError
from src.yours import net as yours
from tests.training.trainings import make_training


def test_a_chosen_gpu_is_the_one_that_is_seeded(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    assert prepare_device("cuda:1", torch.get_num_threads()) == torch.device("cuda:1")
    assert chosen == [torch.device("cuda:1")]


def test_a_gpu_that_torch_cannot_use_is_said(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    if torch.cuda.is_available():
        pytest.skip("torch can use the GPU here")
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho 'GPU 0: NVIDIA Test 9000 (UUID: GPU-1)'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    with pytest.raises(InputError, match="cannot use the NVIDIA Test 9000 that the driver shows"):
        prepare_device("auto", 1)
    assert prepare_device("cpu", 1).type == "cpu"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert prepare_device("auto", 1).type == "cpu"


@pytest.mark.usefixtures("torch_settings")
def test_memory_that_nobody_wrote_is_seen_where_it_is_filled() -> None:
    prepare_device("cpu", torch.get_num_threads(), fill=True)
    assert torch.empty(1000).isnan().all()
    prepare_device("cpu", torch.get_num_threads())
    assert not torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]


@pytest.mark.usefixtures("torch_settings")
@pytest.mark.parametrize("mode", ["true", "warn", "false"])
def test_an_operation_that_is_not_deterministic_is_named(
    mode: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Unpooling writes to places that indices choose, on the CPU too."""
    images = torch.rand(1, 1, 4, 4)
    pooled, places = nn.MaxPool2d(2, return_indices=True)(images)
    prepare_device("cpu", 1, mode)
    if mode == "true":
        with pytest.raises(InputError) as caught, readable_errors("train"):
            nn.MaxUnpool2d(2)(pooled, places)
        assert "max_unpooling2d" in str(caught.value)
        assert "set deterministic to warn" in str(caught.value)
        return
    with readable_errors("train"):
        for _ in range(3):
            nn.MaxUnpool2d(2)(pooled, places)
    said = capsys.readouterr().err.splitlines()
    assert len(said) == (1 if mode == "warn" else 0)
    assert all("max_unpooling2d" in line and "not deterministic" in line for line in said)


class Unpooling(nn.Module):
    def __init__(self, classes: int):
        super().__init__()
        self.head = nn.Linear(1, classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        pooled, places = nn.functional.max_pool2d(images, 2, return_indices=True)
        return self.head(nn.functional.max_unpool2d(pooled, places, [2]).mean((1, 2, 3))[:, None])


@pytest.mark.usefixtures("torch_settings")
def test_a_net_that_is_not_deterministic_is_not_called_too_large(
    few: tuple[PackedSplit, PackedSplit], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It runs when the net is made, to see whether it takes images of this size."""
    monkeypatch.setattr(yours, "own_net", lambda classes, *_: Unpooling(classes))
    prepare_device("cpu", 1, "true")
    with pytest.raises(InputError, match=r"max_unpooling2d.*set deterministic to warn"):
        make_training(few, model="own")


def test_too_little_memory_is_a_line() -> None:
    words = "not enough memory: lower prepare.size"
    with pytest.raises(InputError, match=words), readable_errors("train"):
        torch.empty(2**48)
