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
    """The net `name` with random weights; InputError for an unknown name, and for a net with
    auxiliary outputs. For other than 3 channels its first convolution is replaced by one of the
    same settings whose initial weights are summed over the colours, as timm does it."""
    require_known(name)
    try:
        model = models.get_model(name, weights=None, num_classes=classes)
    except (RuntimeError, ValueError, TypeError) as error:
        reason = " ".join(str(error).split())[:150]
        raise InputError(
            f"params.yaml: model {TORCHVISION}{name} cannot be built: {reason}"
        ) from None
    if channels != 3:
        _replace_first_convolution(model, channels)
    return model


def require_known(name: str, what: str = "params.yaml: model") -> None:
    """InputError unless `name` is one of torchvision's classification nets with one output. `what`:
    where the name comes from."""
    known = models.list_models(module=models)
    if name not in known:
        hint = did_you_mean(name, known)
        raise InputError(
            f"{what} must be {TORCHVISION}<name> with the name of a classification "
            f"model of torchvision, got '{TORCHVISION}{name}'{hint}"
        )
    if "aux_logits" in inspect.signature(_class_of(name)).parameters:
        raise InputError(
            f"{what} {TORCHVISION}{name} gives auxiliary outputs beside the logits, "
            "which train does not use: set another model"
        )


def _class_of(name: str) -> Any:
    annotation = inspect.signature(models.get_model_builder(name)).return_annotation
    return annotation if inspect.isclass(annotation) else models.get_model_builder(name)


def _replace_first_convolution(model: nn.Module, channels: int) -> None:
    name, old = next((n, m) for n, m in model.named_modules() if isinstance(m, nn.Conv2d))
    new = nn.Conv2d(
        channels,
        old.out_channels,
        old.kernel_size,  # type: ignore[arg-type]
        stride=old.stride,  # type: ignore[arg-type]
        padding=old.padding,  # type: ignore[arg-type]
        dilation=old.dilation,  # type: ignore[arg-type]
        groups=old.groups,
        bias=old.bias is not None,
        padding_mode=old.padding_mode,
    )
    with torch.no_grad():
        new.weight.copy_(adapt_input_conv(channels, old.weight))
        if old.bias is not None and new.bias is not None:
            new.bias.copy_(old.bias)
    parent, _, attribute = name.rpartition(".")
    setattr(model.get_submodule(parent), attribute, new)


def about_weights(name: str) -> dict[str, Any] | None:
    """How torchvision's default weights of a net were trained and want their images; None for an
    unknown name."""
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
    """torchvision's default weights of a net, by the names that its tensors have today. OSError
    without a network."""
    weights = models.get_model_weights(name).DEFAULT
    # Not through get_model(weights=...), which unpickles what it finds.
    state = weights.get_state_dict(progress=progress, check_hash=True, weights_only=True)
    # The files of the DenseNets are older than the names of their layers.
    return {
        re.sub(r"(denselayer\d+\.(?:norm|conv))\.([12])\.", r"\1\2.", key): value
        for key, value in state.items()
    }
