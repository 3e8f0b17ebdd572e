"""Weights files: safetensors whose header says how they came about and what images they want.

The header's entry "image-experiments" holds JSON: architecture, num_classes, input_size (C, H, W),
mean and std per channel in 0..1, interpolation, crop_ratio, fit, source. One entry, because
safetensors writes several in an order that differs from run to run.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import nn

from src.base.files import write_bytes
from src.base.words import counted
from src.plumbing.errors import InputError

NO_WEIGHTS = "data/weights/none"
ENTRY = "image-experiments"


def write_weights(
    path: Path, tensors: Mapping[str, torch.Tensor], about: Mapping[str, Any]
) -> None:
    """Write a weights file, whole or not at all; `about` becomes its metadata."""
    whole = {key: value.detach().cpu().contiguous() for key, value in tensors.items()}
    text = json.dumps({key: value for key, value in about.items() if value is not None})
    write_bytes(path, save(whole, metadata={ENTRY: text}), durable=True)


def read_metadata(path: Path | str) -> dict[str, Any] | None:
    """The metadata of a weights file, from the entry "image-experiments" or from entries of their
    own (values in JSON); None if it has none of ours. InputError if the file cannot be read."""
    with _readable(path), safe_open(str(path), framework="pt") as file:
        header = file.metadata() or {}
    if ENTRY in header:
        about = _from_json(header[ENTRY])
        return about if isinstance(about, dict) else None
    of_images = ("input_size", "mean", "std", "interpolation", "crop_ratio", "fit")
    known = ("architecture", "num_classes", *of_images, "source")
    return {key: _from_json(header[key]) for key in known if key in header} or None


def _from_json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def shapes_in(path: str) -> dict[str, list[int]]:
    """The shapes of the tensors in a weights file, by name; InputError if it cannot be read."""
    with _readable(path), safe_open(path, framework="pt") as file:
        return {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118


@contextmanager
def _readable(path: Path | str) -> Iterator[None]:
    """InputError for what is no safetensors file."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        raise InputError(
            f"params.yaml: weights must be a safetensors file or {NO_WEIGHTS}, got '{path}' "
            f"({' '.join(str(error).split())[:100]})"
        ) from None


def load_weights(model: nn.Module, name: str, weights: str) -> None:
    """Fill a net that is not timm's from a weights file. The first convolution adapts to the
    channels, the head is left out where the classes differ. InputError unless all else fits."""
    from timm.models import adapt_input_conv

    with _readable(weights):
        tensors = load_file(weights)
    state = model.state_dict()
    conv = next((k for k, m in model.named_modules() if isinstance(m, nn.Conv2d)), "") + ".weight"
    if conv in tensors and conv in state:
        before, after = tensors[conv].shape[1], state[conv].shape[1]
        if {before, after} == {1, 3}:
            tensors[conv] = adapt_input_conv(after, tensors[conv], base_chans=before)
    head = {f"{head_name(model)}.{part}" for part in ("weight", "bias")}
    if any(k in tensors and k in state and len(tensors[k]) != len(state[k]) for k in head):
        tensors |= {key: state[key] for key in head if key in state}
    wrong = [
        key
        for key in {**state, **tensors}
        if key not in state or key not in tensors or state[key].shape != tensors[key].shape
    ]
    if wrong:
        raise InputError(
            f"params.yaml: weights {weights} are not those of model {name}: missing, unknown or of "
            f"another shape: {counted(len(wrong), 'tensor')}, such as {wrong[0]}"
        )
    fill(model, tensors)


def fill(model: nn.Module, tensors: Mapping[str, torch.Tensor]) -> None:
    """Load `tensors`, which must be all of the net's, by name. RuntimeError if they are not."""
    state = model.state_dict()  # with the versions of its modules, on which some nets insist
    if set(state) != set(tensors):
        raise RuntimeError("the names of the tensors differ")
    for key in state:
        state[key] = tensors[key]
    model.load_state_dict(state)


def head_name(model: nn.Module) -> str | None:
    """The name of the last linear layer (or 1 x 1 convolution) with an output per class."""
    names = [
        name
        for name, module in model.named_modules()
        if (isinstance(module, nn.Linear) and module.out_features == model.num_classes)
        or (
            isinstance(module, nn.Conv2d)
            and module.kernel_size == (1, 1)
            and module.out_channels == model.num_classes
        )
    ]
    return names[-1] if names else None
