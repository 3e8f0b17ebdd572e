"""Predictions for new samples, from the two files of a model alone."""

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from src.base.kinds import kind_of, kind_part
from src.plumbing.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    from torch import nn

BATCH = 128  # as in evaluation; larger samples take less with --batch (choice)


def read_sample(
    sample: Any,
    description: Mapping[str, Any],
    name: str,
    noticed: Counter[str] | None = None,
) -> "np.ndarray":
    """`sample` (path, bytes, or what its kind knows, such as a Pillow image) as the model's packed
    data set would hold it. `description`: model.json. `name`: what an InputError calls it.
    `noticed` counts what a person should know of, by its words."""
    read_new = kind_part(kind_of(description), "packing").read_new
    row: np.ndarray = read_new(sample, description, name, noticed)
    return row


def predict_rows(
    model: "nn.Module",
    description: Mapping[str, Any],
    rows: "Sequence[np.ndarray]",
    batch: int = BATCH,
) -> "np.ndarray":
    """Probabilities (float64 N x K, in the order of description["classes"]) of samples from
    `read_sample`, `batch` at a time, on the device of the model. `model`, `description`: from
    load_model. InputError for a net that gives something other than numbers."""
    import numpy as np
    import torch

    from src.model.inference import ACTIVATIONS

    probabilities = ACTIVATIONS[description.get("activation", "softmax")]
    enter = kind_part(kind_of(description), "input").enter
    device = next(model.parameters()).device
    model.eval()
    found = [np.empty((0, len(description["classes"])))]
    for start in range(0, len(rows), batch):
        entering = torch.from_numpy(np.stack(rows[start : start + batch])).to(device)
        with torch.no_grad():
            logits = model(enter(entering, description["mean"], description["std"]))
        outputs = logits.float().cpu().numpy()
        if not np.isfinite(outputs).all():
            raise InputError("the model gives outputs that are not numbers: train it again")
        found.append(probabilities(outputs))
    return np.concatenate(found)


def predict_files(
    model: "nn.Module",
    description: Mapping[str, Any],
    files: Sequence[Path],
    batch: int = BATCH,
    noticed: Counter[str] | None = None,
) -> "Iterator[tuple[Path, np.ndarray | InputError]]":
    """Each file with its probabilities (float64 K) or its error; holds `batch` samples at most.
    `noticed`: see `read_sample`."""
    for start in range(0, len(files), batch):
        part = files[start : start + batch]
        read: dict[Path, Any] = {}
        for path in part:
            try:
                read[path] = read_sample(path, description, shown(path), noticed)
            except InputError as error:
                read[path] = error
        good = [path for path in read if not isinstance(read[path], InputError)]
        rows = predict_rows(model, description, [read[path] for path in good], batch)
        read |= dict(zip(good, rows, strict=True))
        for path in part:
            yield path, read[path]


def shown(path: Path) -> str:
    """A file name for a person, in one line that moves no cursor; names need not be UTF-8."""
    text = os.fsencode(path).decode("utf-8", "replace")
    return text if text.isprintable() else repr(text)[1:-1]
