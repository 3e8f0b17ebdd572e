"""Classes of new pictures: `python -m src.predict PATHS...`, from models/ alone.

PATHS are pictures, or folders that are searched for them; model.json says how pictures were made
for training. params.yaml is not read, so the options of `evaluate` count for nothing here.
"""

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from src.errors import GateError, InputError

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image
    from torch import nn

FOLDER = Path("models")
BATCH = 128  # as in evaluation; larger pictures take less with --batch (choice)


def packed_picture(picture: "Image.Image", description: Mapping[str, Any]) -> "np.ndarray":
    """A picture as the packed data set of the model would hold it: uint8 H x W x C.
    `description`: model.json. InputError for one that cannot be converted."""
    from src.preparation.decode import Picture

    return _packed(lambda: Picture.of(picture), description, "the picture")


def packed_content(content: bytes, description: Mapping[str, Any], name: str) -> "np.ndarray":
    """The same of the bytes of a picture file; `name` is what an InputError calls it."""
    from src.preparation.decode import decode

    return _packed(lambda: decode(content), description, name)


def read_file(path: Path, description: Mapping[str, Any]) -> "np.ndarray":
    """The same of a file; InputError when it cannot be read."""
    from src.preparation.decode import decode, read_content

    return _packed(lambda: decode(read_content(path)), description, shown(path))


def _packed(read: Callable[[], Any], description: Mapping[str, Any], name: str) -> "np.ndarray":
    from src.preparation.decode import BadPicture
    from src.preparation.fit import fit_picture

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
    from src.metrics import ACTIVATIONS

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


def as_json(path: Path, classes: Sequence[str], row: "np.ndarray") -> str:
    """One line of JSON, in ASCII: path, class, probability, and the probabilities of all classes. A
    name that is not UTF-8 stands there as Python's `os.fsdecode` has it."""
    from src.files import round_floats

    best = int(row.argmax())
    line = {
        "path": str(path),
        "class": classes[best],
        "probability": float(row[best]),
        "probabilities": dict(zip(classes, row.tolist(), strict=True)),
    }
    return json.dumps(round_floats(line))


def as_row(
    path: Path, classes: Sequence[str], row: "np.ndarray", top: int, widths: tuple[int, int]
) -> str:
    """One line of the table: path, then the `top` most probable classes, each with its share."""
    order = (-row).argsort(kind="stable")[:top]
    cells = [f"{classes[index]:<{widths[1]}} {row[index]:6.4f}" for index in order]
    return "  ".join([f"{shown(path):<{widths[0]}}", *cells])


def _parse_arguments() -> argparse.Namespace:
    from src.schema import SCHEMA

    def accepted_by(key: str) -> Callable[[str], Any]:
        def parse(text: str) -> Any:
            value = SCHEMA[key].parse(text)
            if value is None:
                raise argparse.ArgumentTypeError(f"must be {SCHEMA[key].expects}, got '{text}'")
            return value

        return parse

    positive, device = accepted_by("epochs"), accepted_by("machine.device")

    parser = argparse.ArgumentParser(
        prog="python -m src.predict", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("paths", nargs="+", type=_path, metavar="PATH", help="pictures or folders")
    parser.add_argument(
        "--json", action="store_true", help="an object per line, with the probability of each class"
    )
    parser.add_argument(
        "--top", type=positive, default=2, metavar="K", help="classes in the table (2)"
    )
    parser.add_argument(
        "--model", type=Path, default=FOLDER, metavar="FOLDER", help=f"with its files ({FOLDER})"
    )
    parser.add_argument("--device", type=device, default="auto", help="auto | cpu | cuda:N | mps")
    parser.add_argument(
        "--batch", type=positive, default=BATCH, metavar="N", help=f"pictures at a time ({BATCH})"
    )
    return parser.parse_args()


def _path(text: str) -> Path:
    if not text:  # an empty variable of a shell; it would mean all of this folder
        raise argparse.ArgumentTypeError("a path is empty: name a picture file, or a folder")
    return Path(text)


def main() -> None:
    """The command line."""
    arguments = _parse_arguments()
    from src.preparation.sources.folder import named_files

    files, refused = named_files(arguments.paths)
    wrong = [_cannot_be_used(shown(path), f"{r.reason}: {r.remedy}") for path, r in refused]
    if not files and wrong:
        raise wrong[0]
    if not files:
        where = ", ".join(shown(path) for path in arguments.paths[:3])
        raise InputError(
            f"there are no pictures in {where}: name picture files, or a folder of them"
        )
    import torch

    from src.training.device import prepare_device, told_in_one_line
    from src.training.model import load_model

    try:
        device = prepare_device(arguments.device, torch.get_num_threads(), deterministic="warn")
    except InputError as error:
        raise InputError(str(error).replace("params.yaml: machine.device", "--device")) from None
    model, description = load_model(arguments.model)
    model.to(device)
    classes = description["classes"]
    widths = max(len(shown(path)) for path in files), max(map(len, [*classes, "class"]))
    if not arguments.json:
        cells = [f"{'class':<{widths[1]}} {'prob.':6}"] * min(arguments.top, len(classes))
        print("  ".join([f"{'picture':<{widths[0]}}", *cells]).rstrip())
    failed = len(wrong)
    for line in wrong:
        print(line, file=sys.stderr)
    with told_in_one_line("predict"):
        for path, result in predict_files(model, description, files, arguments.batch):
            if isinstance(result, InputError):
                failed += 1
                print(result, file=sys.stderr)
            elif arguments.json:
                print(as_json(path, classes, result))
            else:
                print(as_row(path, classes, result, arguments.top, widths))
    if failed:
        total = len(files) + len(wrong)
        raise GateError(f"predict: {failed} of {total} files could not be read")


if __name__ == "__main__":
    from src import stage

    sys.exit(stage.guarded(main))
