"""Rows of numbers at the net's input."""

from collections.abc import Sequence

import torch
from torch import Tensor

from src.plumbing.errors import InputError


def enter(rows: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    return (rows - torch.tensor(mean, device=rows.device)) / torch.tensor(std, device=rows.device)


def leave(inputs: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    return inputs.cpu() * torch.tensor(std) + torch.tensor(mean)


def mirror(rows: Tensor) -> Tensor:
    raise InputError("params.yaml: evaluate.flip must be false for numbers")
