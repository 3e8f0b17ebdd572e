"""Nothing is augmented or mixed."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from src.plumbing.errors import InputError


def _as_it_is(rows: Tensor, seed: int, step: int) -> Tensor:
    return rows


def _not_mixed(rows: Tensor, labels: Tensor, seed: int, step: int) -> tuple[Tensor, Tensor]:
    return rows, labels


def augmentation(params: Mapping[str, Any]) -> Any:
    if params["augment_crop"]:
        raise InputError("params.yaml: augment_crop must be 0 for numbers")
    return _as_it_is


def mix(params: Mapping[str, Any], classes: int) -> Any:
    if params["mixup"] or params["cutmix"]:
        raise InputError("params.yaml: mixup and cutmix must be 0 for numbers")
    return _not_mixed
