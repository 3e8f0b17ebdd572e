"""The net: built by name from timm, written and rebuilt from two files, run on pictures.

`models/model.safetensors` (weights) and `models/model.json` (everything else that prediction
needs) are enough to use the net without this repository's params or data.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import nn

from src.data.batches import ordered_batches, to_input
from src.data.packed import PackedSplit
from src.errors import InputError
from src.files import write_bytes, write_json
from src.params import did_you_mean
from src.randomness import seed_initial_weights

NO_WEIGHTS = "data/weights/none"
FOLDER = Path("models")


def create_model(
    name: str, classes: int, channels: int, size: int, weights: str = NO_WEIGHTS, seed: int = 0
) -> nn.Module:
    """The timm model `name` for `classes` and pictures of `channels` x `size` x `size`, on the CPU.

    Initial weights are a function of `seed`; `weights` names a safetensors file of the same
    architecture to start from instead (its head is replaced when the number of classes differs,
    its first layer adapted to `channels`). InputError names the key that does not fit.
    """
    # A prefix such as hf-hub: would open a network connection.
    if ":" in name or "/" in name or not timm.is_model(name):
        hint = did_you_mean(name.partition(".")[0], timm.list_models())
        raise InputError(f"params.yaml: model must be the name of a timm model, got '{name}'{hint}")
    options: dict[str, Any] = {"num_classes": classes, "in_chans": channels}
    config = timm.get_pretrained_cfg(name)
    if config is not None and config.fixed_input_size:
        options["img_size"] = size  # transformers with learnt positions must know it
    shapes = _shapes_in(weights) if weights != NO_WEIGHTS else None
    if shapes is not None:
        overlay: dict[str, Any] = {"file": weights}
        # timm keeps the head of a file whose number of classes is the wanted one.
        head = config.classifier if config is not None else None
        if isinstance(head, str) and f"{head}.weight" in shapes:
            overlay["num_classes"] = shapes[f"{head}.weight"][0]
        options |= {"pretrained": True, "pretrained_cfg_overlay": overlay}
    seed_initial_weights(seed)
    try:
        model = timm.create_model(name, **options)
    except (RuntimeError, ValueError, AssertionError, TypeError, KeyError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(
            f"params.yaml: model {name} cannot be built for prepare.size {size} and weights "
            f"{weights}: {reason}"
        ) from None
    if shapes is not None:
        _check_names(model, name, weights, set(shapes))
    _check_forward(model, name, channels, size)
    return model


def _shapes_in(weights: str) -> dict[str, list[int]]:
    """The shapes of the tensors in a safetensors file, by name."""
    try:
        with safe_open(weights, framework="pt") as file:
            return {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise InputError(
            f"params.yaml: weights must be a safetensors file or {NO_WEIGHTS}, got '{weights}' "
            f"({' '.join(str(error).split())[:100]})"
        ) from None


def _check_names(model: nn.Module, name: str, weights: str, names_in_file: set[str]) -> None:
    """timm loads what fits and leaves the rest random: nobody would notice another net's file."""
    heads = model.pretrained_cfg.get("classifier") or ()  # type: ignore[union-attr, operator]
    heads = (heads,) if isinstance(heads, str) else tuple(heads)
    body = [key for key in model.state_dict() if not key.startswith(heads)]
    missing = [key for key in body if key not in names_in_file]
    if missing:
        raise InputError(
            f"params.yaml: weights {weights} are not those of model {name}: they lack {missing[0]} "
            f"and {len(missing) - 1} more of {len(body)} tensors"
        )


def _check_forward(model: nn.Module, name: str, channels: int, size: int) -> None:
    """One picture through the net, so that a size that does not fit is said in one line."""
    model.eval()
    try:
        with torch.no_grad():
            model(torch.zeros(1, channels, size, size))
    except (RuntimeError, AssertionError, ValueError) as error:
        reason = " ".join(str(error).split())[:150]
        raise InputError(
            f"params.yaml: model {name} cannot take pictures of prepare.size {size} ({reason}): "
            "set another prepare.size or model"
        ) from None
    model.train()


def save_model(
    state: Mapping[str, torch.Tensor], description: Mapping[str, Any], folder: Path = FOLDER
) -> None:
    """Write the two files. `description`: architecture, classes, in_chans, input_size, mean, std,
    interpolation, fingerprint and whatever else the caller wants to keep."""
    tensors = {key: value.detach().cpu().contiguous() for key, value in state.items()}
    write_bytes(folder / "model.safetensors", save(tensors))
    write_json(folder / "model.json", dict(description))


def load_model(folder: Path = FOLDER) -> tuple[nn.Module, dict[str, Any]]:
    """The net in evaluation mode, on the CPU, and its description."""
    try:
        description = json.loads((folder / "model.json").read_text(encoding="utf-8"))
        tensors = load_file(folder / "model.safetensors")
    except (OSError, ValueError, SafetensorError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{folder} holds no model ({reason}): run `dvc repro train`") from None
    channels, size, _ = description["input_size"]
    model = create_model(description["architecture"], len(description["classes"]), channels, size)
    try:
        model.load_state_dict(tensors)
    except RuntimeError:
        raise InputError(
            f"{folder}/model.safetensors does not fit model.json: run `dvc repro train`"
        ) from None
    return model.eval(), description


@torch.no_grad()
def logits_of(
    model: nn.Module,
    data: PackedSplit,
    device: torch.device,
    mean: Sequence[float],
    std: Sequence[float],
    workers: int = 0,
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """(logits B x K, labels B) for all of `data` in its order, on the device; the net is in
    evaluation mode."""
    model.eval()
    for pictures, labels in ordered_batches(data, device, workers):
        yield model(to_input(pictures, mean, std)), labels
