"""Nets of torchvision, by name: `torchvision:resnet18`."""

import inspect
import re
from typing import Any

import torch
from timm.models import adapt_input_conv
from torch import nn
from torchvision import models

from src.model.nets.names import TORCHVISION
from src.plumbing.errors import InputError
from src.plumbing.params import did_you_mean


def torchvision_net(name: str, classes: int, channels: int) -> nn.Module:
    """The net `name` with random weights. InputError if unknown or with auxiliary outputs. For
    other than 3 channels the first convolution is summed over the colours, as in timm."""
    require_known(name)
    try:
        model = models.get_model(name, weights=None, num_classes=classes)
    except (RuntimeError, ValueError, TypeError) as error:
        reason = " ".join(str(error).split())[:150]
        raise InputError(
            f"params.yaml: model {TORCHVISION}{name} cannot be built: {reason}"
        ) from None
    if channels != 3:
        first = next(module for module in model.modules() if isinstance(module, nn.Conv2d))
        first.weight = nn.Parameter(adapt_input_conv(channels, first.weight.detach()))
        first.in_channels = channels
    return model


def require_known(name: str, what: str = "params.yaml: model") -> None:
    """InputError unless `name` is a one-output classifier of torchvision. `what`: its origin."""
    known = models.list_models(module=models)
    if name not in known:
        hint = did_you_mean(name, known)
        raise InputError(
            f"{what} must be {TORCHVISION}<name> with the name of a classification "
            f"model of torchvision, got '{TORCHVISION}{name}'{hint}"
        )
    builder = models.get_model_builder(name)
    returned = inspect.signature(builder).return_annotation
    net: Any = returned if inspect.isclass(returned) else builder
    if "aux_logits" in inspect.signature(net).parameters:
        raise InputError(
            f"{what} {TORCHVISION}{name} gives auxiliary outputs beside the logits, "
            "which train does not use: set another model"
        )


def about_weights(name: str) -> dict[str, Any] | None:
    """How torchvision's default weights were trained and want images; None for an unknown net."""
    if name not in models.list_models(module=models):
        return None
    weights = models.get_model_weights(name).DEFAULT
    wanted = weights.transforms()
    side = wanted.crop_size[0]
    return {
        "architecture": f"{TORCHVISION}{name}",
        "num_classes": len(weights.meta["categories"]),
        "input_size": [3, side, side],
        "mean": list(wanted.mean),
        "std": list(wanted.std),
        "interpolation": wanted.interpolation.value,
        "crop_ratio": side / wanted.resize_size[0],
        "source": weights.url,
    }


def fetch_tensors(name: str, progress: bool) -> dict[str, torch.Tensor]:
    """torchvision's default weights, by their current tensor names. OSError without a network."""
    weights = models.get_model_weights(name).DEFAULT
    # Not through get_model(weights=...), which unpickles what it finds.
    state = weights.get_state_dict(progress=progress, check_hash=True, weights_only=True)
    # The files of the DenseNets are older than the names of their layers.
    return {
        re.sub(r"(denselayer\d+\.(?:norm|conv))\.([12])\.", r"\1\2.", key): value
        for key, value in state.items()
    }
