"""What a model says of its rows of numbers, and a net of two layers for them."""

from collections.abc import Mapping
from typing import Any

from torch import nn


def _two_layers(classes: int, input_size: list[int]) -> nn.Module:
    return nn.Sequential(nn.Linear(input_size[0], 64), nn.ReLU(), nn.Linear(64, classes))


NETS = {"two_layers": _two_layers}
REQUIRED = ()
KEYS = {"input_size": ("[columns]", lambda value: isinstance(value, list) and len(value) == 1)}


def about(meta: Mapping[str, Any]) -> dict[str, Any]:
    return {"kind": "numbers"}


def input_size(meta: Mapping[str, Any]) -> list[int]:
    return list(meta["shape"])


def own_sizes(input_size: list[int]) -> tuple[int, ...]:
    return tuple(input_size)
