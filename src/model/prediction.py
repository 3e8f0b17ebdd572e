"""Answers for new samples, from the two files of a model alone."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from src.plumbing.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image
    from torch import nn


BATCH = 128  # as in evaluation; larger pictures take less with --batch (choice)


def packed_picture(picture: "Image.Image", description: Mapping[str, Any]) -> "np.ndarray":
    """A picture as the packed data set of the model would hold it: uint8 H x W x C.
    `description`: model.json. InputError for one that cannot be converted."""
    from src.images.decode import Picture

    return _packed(lambda: Picture.of(picture), description, "the picture")


def packed_content(content: bytes, description: Mapping[str, Any], name: str) -> "np.ndarray":
    """The same of the bytes of a picture file; `name` is what an InputError calls it."""
    from src.images.decode import decode

    return _packed(lambda: decode(content), description, name)


def read_file(path: Path, description: Mapping[str, Any]) -> "np.ndarray":
    """The same of a file; InputError when it cannot be read."""
    from src.images.decode import decode, read_content

    return _packed(lambda: decode(read_content(path)), description, shown(path))


def _packed(read: Callable[[], Any], description: Mapping[str, Any], name: str) -> "np.ndarray":
    from src.images.decode import BadPicture
    from src.images.fit import fit_picture

    channels, size, _ = description["input_size"]
    interpolation, crop_ratio = description["interpolation"], description.get("crop_ratio", 1.0)
    try:
        upright = read().image
        return fit_picture(upright, size, channels, description["fit"], interpolation, crop_ratio)
    except BadPicture as error:
        raise _cannot_be_used(name, error) from None


def _cannot_be_used(name: str, error: object) -> InputError:
    return InputError(f"{name} cannot be used: {error}")


def predict_pictures(
    model: "nn.Module",
    description: Mapping[str, Any],
    pictures: "Sequence[Image.Image | np.ndarray]",
    batch: int = BATCH,
) -> "np.ndarray":
    """Probabilities (float64 N x K, in the order of description["classes"]) of `pictures`: Pillow's
    in any size and mode, or what packed_picture made of them.

    `model` and `description` as load_model gives them; computes on the device that the model is on,
    `batch` pictures at a time. InputError for a picture that does not fit or a net that gives
    something other than numbers.
    """
    import numpy as np
    import torch

    from src.data.batches import to_input
    from src.model.inference import ACTIVATIONS

    probabilities = ACTIVATIONS[description.get("activation", "softmax")]
    device = next(model.parameters()).device
    model.eval()
    rows = [np.empty((0, len(description["classes"])))]
    for start in range(0, len(pictures), batch):
        packed = np.stack(
            [
                picture if isinstance(picture, np.ndarray) else packed_picture(picture, description)
                for picture in pictures[start : start + batch]
            ]
        )
        entering = torch.from_numpy(packed).to(device)
        with torch.no_grad():
            logits = model(to_input(entering, description["mean"], description["std"]))
        found = logits.float().cpu().numpy()
        if not np.isfinite(found).all():
            raise InputError("the model gives outputs that are not numbers: train it again")
        rows.append(probabilities(found))
    return np.concatenate(rows)


def predict_files(
    model: "nn.Module", description: Mapping[str, Any], files: Sequence[Path], batch: int = BATCH
) -> "Iterator[tuple[Path, np.ndarray | InputError]]":
    """Each file with its probabilities (float64 K), or with what is wrong with it. Holds no more
    than `batch` pictures at a time."""
    for start in range(0, len(files), batch):
        part = files[start : start + batch]
        read: dict[Path, Any] = {}
        for path in part:
            try:
                read[path] = read_file(path, description)
            except InputError as error:
                read[path] = error
        good = [path for path in read if not isinstance(read[path], InputError)]
        rows = predict_pictures(model, description, [read[path] for path in good], batch)
        read |= dict(zip(good, rows, strict=True))
        for path in part:
            yield path, read[path]


def shown(path: Path) -> str:
    """A file name for a person, in one line that moves no cursor; names need not be UTF-8."""
    text = os.fsencode(path).decode("utf-8", "replace")
    return text if text.isprintable() else repr(text)[1:-1]
