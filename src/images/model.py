"""What a model says of the images it takes: the keys of model.json that are theirs."""

from collections.abc import Mapping
from typing import Any

from src.plumbing.schema import SCHEMA

AUTO = "auto"  # of value_range: by the type of the values

# Nets of this kind's own, by name. Those of timm and torchvision take images as they are.
NETS: dict[str, Any] = {}

# What prediction cannot do without, beside the keys of every kind.
REQUIRED = ("fit", "interpolation")


def _is_input_size(value: Any) -> bool:
    counts = isinstance(value, list) and all(type(item) is int and item >= 1 for item in value)
    return counts and len(value) == 3 and value[0] in (1, 3) and value[1] == value[2]


def _one_of(key: str) -> tuple[str, Any]:
    choices = SCHEMA[key].choices
    return f"one of {', '.join(choices)}", lambda value: value in choices


def _is_above_0(value: Any) -> bool:
    return type(value) in (int, float) and value > 0


# What each key must be, and whether a value is that.
KEYS: dict[str, tuple[str, Any]] = {
    "input_size": ("[1 or 3, size, size]", _is_input_size),
    "fit": _one_of("prepare.fit"),
    "interpolation": _one_of("prepare.interpolation"),
    "crop_ratio": ("a number in (0, 1]", lambda x: type(x) in (int, float) and 0 < x <= 1),
    "value_range": ("auto or a number > 0", lambda x: x == AUTO or _is_above_0(x)),
}


def about(meta: Mapping[str, Any]) -> dict[str, Any]:
    """How the images of a packed data set were made, for model.json."""
    keys = ("fit", "interpolation", "crop_ratio")
    return {key: meta[key] for key in keys} | {"value_range": meta.get("value_range", AUTO)}


def input_size(meta: Mapping[str, Any]) -> list[int]:
    """The shape of one sample at the net's input, [C, H, W]."""
    return [meta["channels"], meta["size"], meta["size"]]


def own_sizes(input_size: list[int]) -> tuple[int, ...]:
    """The arguments of own_net behind `classes`: channels, size."""
    return input_size[0], input_size[1]
