"""Nets of timm by name, with weights from a file: timm builds, what does not fit is refused."""

import re
from collections.abc import Sequence
from typing import Any

import timm
import torch
from torch import nn

from src.model.fitting import DoesNotFit
from src.model.nets.weights_file import NO_WEIGHTS, shapes_in
from src.plumbing.errors import InputError
from src.plumbing.params import did_you_mean


def require_timm_name(name: str, what: str = "params.yaml: model") -> None:
    """InputError unless timm has `name`, with a known tag or none. `what`: where it comes from."""
    # A prefix such as hf-hub: would open a network connection.
    if ":" in name or "/" in name or not timm.is_model(name):
        hint = did_you_mean(name.partition(".")[0], timm.list_models())
        raise InputError(f"{what} must be the name of a timm model, got '{name}'{hint}")
    try:
        timm.get_pretrained_cfg(name)
    except RuntimeError:
        model, _, tag = name.partition(".")
        known = [full.partition(".")[2] for full in timm.list_pretrained(f"{model}.*")]
        hint = did_you_mean(tag, known) or f"; known are {', '.join(known[:10])}"
        raise InputError(f"{what} {model} has no tag '{tag}'{hint}") from None


def timm_net(
    name: str,
    classes: int,
    input_size: Sequence[int],
    weights: str,
    drop_rate: float,
    drop_path: float,
) -> nn.Module:
    """The timm model `name`, arguments as for create_model. InputError names the wrong key;
    DoesNotFit says why timm cannot build it, and not what to set."""
    require_timm_name(name)
    channels, size, _ = input_size
    options: dict[str, Any] = {"num_classes": classes, "in_chans": channels}
    config = timm.get_pretrained_cfg(name)
    if config is not None and config.fixed_input_size:
        options["img_size"] = size  # transformers with learnt positions must know it
    if drop_rate > 0:
        options["drop_rate"] = drop_rate
    if drop_path > 0:
        options["drop_path_rate"] = drop_path
    shapes = shapes_in(weights) if weights != NO_WEIGHTS else None
    if shapes is not None:
        options |= {"pretrained": True, "pretrained_cfg_overlay": _overlay(config, weights, shapes)}
    try:
        model = timm.create_model(name, **options)
    except (RuntimeError, ValueError, AssertionError, TypeError, KeyError) as error:
        reason = " ".join(str(error).split())[:200]
        if found := re.search(r"unexpected keyword arg.*\b(drop_rate|drop_path)(_rate)?\b", reason):
            what = {"drop_rate": "dropout", "drop_path": "stochastic depth"}[found[1]]
            raise InputError(
                f"params.yaml: {found[1]} must be 0 for model {name}, which has no {what}"
            ) from None
        raise DoesNotFit(
            f"params.yaml: model {name} cannot be built for {channels} x {size} x {size} samples "
            f"and weights {weights} ({reason})"
        ) from None
    if shapes is not None:
        _check_names(model, name, weights, shapes)
    return model


def _overlay(config: Any, weights: str, shapes: dict[str, list[int]]) -> dict[str, Any]:
    """What a weights file has otherwise than the one that timm would fetch."""
    overlay: dict[str, Any] = {"file": weights}
    if config is None:
        return overlay
    # timm keeps the head of a file whose number of classes is the wanted one.
    heads = [config.classifier] if isinstance(config.classifier, str) else config.classifier or []
    for head in heads:
        if f"{head}.weight" in shapes:
            overlay["num_classes"] = shapes[f"{head}.weight"][0]
    # A net of this project may have learnt from grey images.
    first = shapes.get(f"{config.first_conv}.weight", [])
    if len(first) == 4 and first[1] in (1, 3):
        overlay["input_size"] = (first[1], *config.input_size[1:])
    return overlay


def _check_names(model: nn.Module, name: str, weights: str, in_file: dict[str, list[int]]) -> None:
    """timm loads what fits and leaves the rest random: nobody would notice another net's file."""
    heads = model.pretrained_cfg.get("classifier") or ()  # type: ignore[union-attr, operator]
    heads = (heads,) if isinstance(heads, str) else tuple(heads)
    state = model.state_dict()
    body = [key for key in state if not key.startswith(heads)]
    missing = [key for key in body if key not in in_file]
    if missing:
        raise InputError(
            f"params.yaml: weights {weights} are not those of model {name}: they lack {missing[0]} "
            f"and {len(missing) - 1} more of {len(body)} tensors"
        )
    # Files may hold masks and tokens that a net does without. More than a tenth is another net's,
    # which has this one's layers and others: resnet34 and resnet18. (choice)
    sizes = {key: torch.Size(shape).numel() for key, shape in in_file.items()}
    unknown = [key for key in sizes if key not in state and not key.startswith(heads)]
    if sum(sizes[key] for key in unknown) > 0.1 * sum(sizes.values()):
        raise InputError(
            f"params.yaml: weights {weights} are not those of model {name}, which lacks "
            f"{unknown[0]} and {len(unknown) - 1} more of their {len(sizes)} tensors"
        )
