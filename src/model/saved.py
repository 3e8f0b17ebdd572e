"""A model as two files: written, and rebuilt from them.

`models/model.safetensors` (weights) and `models/model.json` (everything else that prediction
needs) are enough to use the net without this repository's params or data. For `own` the code of
src/yours/net.py belongs to it: model.json has its hash, and the loader says when it is another.
"""

import hashlib
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from src.base import imports
from src.base.files import write_json
from src.base.kinds import kind_of
from src.model.create import create_model
from src.model.description import FILE, TRAIN, no_model, read_description
from src.model.fitting import DoesNotFit
from src.model.nets.names import OWN
from src.model.nets.weights_file import fill, write_weights
from src.plumbing.errors import InputError

FOLDER = Path("models")


def save_model(
    state: Mapping[str, torch.Tensor], description: Mapping[str, Any], folder: Path = FOLDER
) -> None:
    """Write the two files. `description`: model.json, which `read_description` checks. The weights
    file says what it expects of samples, so that another training can start from it."""
    keys = ("architecture", "input_size", "mean", "std", "fit", "interpolation", "crop_ratio")
    about = {key: description[key] for key in keys if key in description}
    write_weights(folder / "model.safetensors", state, about)
    own = {"own_net": _own_code()} if description["architecture"] == OWN else {}
    write_json(folder / FILE, {**description, **own})


def load_model(
    folder: Path | str = FOLDER, needed: Sequence[str] = ()
) -> tuple[nn.Module, dict[str, Any]]:
    """The net in evaluation mode, on the CPU, and its description with the keys `needed`.
    InputError names the wrong file and key; a line on stderr says if own_net's code has changed."""
    folder = Path(folder)
    description = read_description(folder, needed)
    try:
        tensors = load_file(folder / "model.safetensors")
    except (OSError, ValueError, SafetensorError) as error:
        raise no_model(folder, error) from None
    try:
        model = create_model(
            description["architecture"],
            len(description["classes"]),
            description["input_size"],
            kind=kind_of(description),
            own_params=description.get("own_params", {}),
        )
    except InputError as error:  # it speaks of params.yaml, where the names came from
        reason = error.fact if isinstance(error, DoesNotFit) else str(error)
        reason = reason.replace("params.yaml: model", f"{folder / FILE}: architecture")
        raise InputError(f"{reason}: {TRAIN}") from None
    changed = "own_net" in description and description["own_net"] != _own_code()
    another = (
        f"{folder / FILE}: own_net, or code of src/ that it uses, is not that of this training"
    )
    try:
        fill(model, tensors)
    except RuntimeError:
        if changed:
            raise InputError(f"{another}, and the weights do not fit it: bring it back") from None
        raise InputError(f"{folder}/model.safetensors does not fit model.json: {TRAIN}") from None
    if changed:
        print(f"{another}: its predictions may differ", file=sys.stderr)
    return model.eval(), description


def _own_code() -> str:
    """A hash of src/yours/net.py and the src/ files it imports, without comment and blank lines."""
    files = sorted(imports.files_of("src.yours.net"))
    text = "\n".join((imports.ROOT / file).read_text(encoding="utf-8") for file in files)
    lines = [line.rstrip() for line in text.splitlines()]
    code = [line for line in lines if line and not line.lstrip().startswith("#")]
    return hashlib.sha256("\n".join(code).encode()).hexdigest()
