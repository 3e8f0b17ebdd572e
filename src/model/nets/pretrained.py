"""What pretrained weights expect of images, and where the packed data differ from that."""

import functools
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from src.base.files import round_floats
from src.model.nets.names import TORCHVISION
from src.model.nets.weights_file import NO_WEIGHTS, read_metadata
from src.plumbing.errors import InputError

# timm's words for how an image that is not square becomes square, as prepare.fit has them.
FITS = {"center": "crop", "border": "pad", "squash": "squash"}


def published(model_name: str) -> dict[str, Any] | None:
    """What is published of a model's pretrained weights, by the metadata's keys; None if none."""
    if model_name.startswith(TORCHVISION):
        from src.model.nets.torchvision_models import about_weights

        return about_weights(model_name.removeprefix(TORCHVISION))
    import timm

    try:
        config = timm.get_pretrained_cfg(model_name) if timm.is_model(model_name) else None
    except RuntimeError:  # an unknown tag behind the name
        return None
    if config is None:
        return None
    tag = f".{config.tag}" if config.tag else ""
    return {
        "architecture": f"{config.architecture}{tag}",
        "num_classes": config.num_classes,
        "input_size": list(config.input_size),
        "mean": list(config.mean),
        "std": list(config.std),
        "interpolation": config.interpolation,
        "crop_ratio": config.crop_pct,
        "fit": FITS.get(config.crop_mode),
        "license": config.license,
    }


def normalisation(
    weights: str, model_name: str, meta: Mapping[str, Any]
) -> tuple[list[float], list[float]]:
    """Mean and standard deviation per channel (0..1) with which images enter the net. Random
    weights: those of the training images. A weights file: those of its metadata, else as published
    for `model_name`, since its first layer expects them; a line on stdout says which. For grey
    images the average over the colours: the first layer is summed over them, so that this comes as
    near as one number can. InputError for metadata that make no sense."""
    own = list(meta["mean"]), list(meta["std"])
    if weights == NO_WEIGHTS:
        return own
    about, where = _about(weights, model_name)
    if "mean" not in about or "std" not in about:
        _say_once(f"weights: {weights} says no mean and std, so those of the data are used")
        return own
    found = {key: _per_channel(about[key], meta["channels"]) for key in ("mean", "std")}
    for key, numbers in found.items():
        if not numbers or (key == "std" and min(numbers) <= 0):
            raise InputError(
                f"params.yaml: weights {weights} has metadata in which {key} makes no sense: "
                "fetch it again with `python -m src.weights MODEL --force`"
            )
    shown = ", ".join(f"{key} {' '.join(f'{v:.4g}' for v in found[key])}" for key in found)
    grey = ", averaged for grey images" if len(about["mean"]) > meta["channels"] else ""
    _say_once(f"weights: images enter the net with {shown} from {where}{grey}")
    return found["mean"], found["std"]


@functools.cache
def _say_once(line: str) -> None:
    """Print a line once: the check before training builds many trainings alike."""
    print(line)


def _per_channel(values: Any, channels: int) -> list[float]:
    """The numbers in metadata for so many channels; none where they make no sense."""
    if not isinstance(values, list) or len(values) not in (1, 3):
        return []
    if not all(isinstance(value, int | float) and math.isfinite(value) for value in values):
        return []
    numbers = [float(value) for value in values]
    if len(numbers) != channels:
        numbers = [sum(numbers) / len(numbers)] * channels
    return round_floats(numbers)  # as model.json will hold them


def _about(weights: str, model_name: str) -> tuple[dict[str, Any], str]:
    """What is known of how weights were trained, and who says so."""
    if about := read_metadata(weights):
        return about, f"the metadata of {Path(weights).name}"
    library = "torchvision" if model_name.startswith(TORCHVISION) else "timm"
    return published(model_name) or {}, f"{library}'s entry of {model_name}"


def disagreements(weights: str, model_name: str, meta: Mapping[str, Any]) -> list[str]:
    """Where the packed data (`meta`) differ from the images that the weights were trained with,
    each as what to set, `prepare.size=224 (now 32)`. Empty for random weights."""
    if weights == NO_WEIGHTS:
        return []
    about, _ = _about(weights, model_name)
    now = {"interpolation": "bilinear", "crop_ratio": 1, "fit": "crop", **meta}
    return [
        f"prepare.{key}={_shown(value)} (now {_shown(now[key])})"
        for key, value in settings(about).items()
        if value != now[key]
    ]


def settings(about: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of `prepare` that make images as the weights with these metadata expect them."""
    input_size = about.get("input_size") or [None, None, None]
    found = {
        "size": input_size[1],
        "interpolation": about.get("interpolation"),
        "crop_ratio": about.get("crop_ratio"),
        # Named only where it is not the usual one, for which nobody has chosen it.
        "fit": about.get("fit") if about.get("fit") != "crop" else None,
        "channels": input_size[0],
    }
    return {key: round_floats(value) for key, value in found.items() if value is not None}


def _shown(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
