"""Classes of new images: `python -m src.predict PATHS...`, from models/ alone.

PATHS are files, or folders that are searched for them; model.json says how images were made for
training. params.yaml is not read, so the options of `evaluate` count for nothing here.
"""

import argparse
import json
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from src.base.words import counted
from src.model.prediction import BATCH, predict_files, shown
from src.plumbing import command
from src.plumbing.errors import GateError, InputError
from src.preparation.sources.base import is_url

if TYPE_CHECKING:
    import numpy as np

FOLDER = Path("models")


def as_json(path: Path, classes: Sequence[str], row: "np.ndarray") -> str:
    """One line of JSON, in ASCII: path, class, probability, and the probabilities of all classes. A
    name that is not UTF-8 stands there as Python's `os.fsdecode` has it."""
    from src.base.files import round_floats

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
    from src.plumbing.schema import SCHEMA

    def accepted_by(key: str) -> Callable[[str], Any]:
        def parse(text: str) -> Any:
            value = SCHEMA[key].parse(text)
            if value is None:
                raise argparse.ArgumentTypeError(f"must be {SCHEMA[key].expects}, got '{text}'")
            return value

        return parse

    positive, device = accepted_by("epochs"), accepted_by("machine.device")

    parser = command.parser("predict", __doc__)
    parser.add_argument("paths", nargs="+", type=_path, metavar="PATH", help="files or folders")
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
        "--batch", type=positive, default=BATCH, metavar="N", help=f"samples at a time ({BATCH})"
    )
    return parser.parse_args()


def _path(text: str) -> Path:
    if not text:  # an empty variable of a shell; it would mean all of this folder
        raise argparse.ArgumentTypeError("a path is empty: name a file, or a folder")
    if is_url(text):  # as a path it would lose a slash
        raise argparse.ArgumentTypeError(f"{text} is an address: fetch it, and name the file")
    return Path(text)


def origin_remark(folder: Path) -> str:
    """A line if dvc.lock vouches for this model, which other inputs than its own made; else, also
    without a project, empty."""
    from src.experiments import origin
    from src.plumbing import hashes, identity, workspace

    try:
        train = identity.locked_stage(workspace.read_here("dvc.lock") or "", "train")
    except InputError:  # one that nobody can read vouches for nothing
        return ""
    if not train or hashes.md5_of(folder / "model.json") != train["outs"].get(identity.MODEL):
        return ""
    line = origin.remark(train, workspace.main_repository())
    return f"the model in {folder} was {line}" if line else ""


def main() -> None:
    """The command line."""
    arguments = _parse_arguments()
    from src.base.kinds import kind_of, kind_part
    from src.model.description import read_description
    from src.preparation.sources.folder import named_files

    of_files = kind_part(kind_of(read_description(arguments.model)), "packing").FILES
    files, refused = named_files(arguments.paths, of_files)
    wrong = [f"{shown(path)} cannot be used: {r.reason}: {r.remedy}" for path, r in refused]
    if not files and wrong:
        raise InputError(wrong[0])
    if not files:
        where = ", ".join(shown(path) for path in arguments.paths[:3])
        raise InputError(
            f"there is nothing to classify in {where}: name files, or a folder of them"
        )
    import torch

    from src.model.device import prepare_device, readable_errors
    from src.model.saved import load_model

    try:
        device = prepare_device(arguments.device, torch.get_num_threads(), deterministic="warn")
    except InputError as error:
        raise InputError(str(error).replace("params.yaml: machine.device", "--device")) from None
    model, description = load_model(arguments.model)
    if line := origin_remark(arguments.model):
        print(line, file=sys.stderr)
    model.to(device)
    classes = description["classes"]
    widths = max(len(shown(path)) for path in files), max(map(len, [*classes, "class"]))
    if not arguments.json:
        cells = [f"{'class':<{widths[1]}} {'prob.':6}"] * min(arguments.top, len(classes))
        print("  ".join([f"{'file':<{widths[0]}}", *cells]).rstrip())
    failed, noticed = len(wrong), Counter[str]()
    for line in wrong:
        print(line, file=sys.stderr)
    with readable_errors("predict"):
        for path, result in predict_files(model, description, files, arguments.batch, noticed):
            if isinstance(result, InputError):
                failed += 1
                print(result, file=sys.stderr)
            elif arguments.json:
                print(as_json(path, classes, result))
            else:
                print(as_row(path, classes, result, arguments.top, widths))
    for what, count in noticed.items():
        of = f"{count} of {len(files)} file{'s'[: len(files) != 1]}"
        print(f"predict: {what}: {of}", file=sys.stderr)
    if failed:
        total = len(files) + len(wrong)
        raise GateError(f"predict: {failed} of {counted(total, 'file')} could not be read")


if __name__ == "__main__":
    sys.exit(command.guarded(main))
