"""model.json: all that prediction needs to know beside the weights, read and checked here alone."""

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from src.base.kinds import KINDS, kind_of, kind_part
from src.plumbing import locks
from src.plumbing.errors import InputError

FILE = "model.json"
TRAIN = "run `dvc repro train`"
# What prediction cannot do without; other keys have a default, or are for those who ask for them.
REQUIRED = ("architecture", "classes", "input_size", "mean", "std")
ACTIVATIONS = ("softmax", "sigmoid")  # as src.model.inference has them

Accepts = Callable[[Any], bool]


def read_description(folder: Path | str, needed: Sequence[str] = ()) -> dict[str, Any]:
    """model.json of `folder`, with the keys `needed` too. InputError names a missing or bad one."""
    path = Path(folder) / FILE
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise no_model(folder, error) from None
    if not isinstance(about, dict):
        raise InputError(f"{path}: must hold keys and their values: {TRAIN}")
    kind = kind_of(about)
    if kind not in KINDS:
        raise InputError(f"{path}: kind must be one of {', '.join(KINDS)}: {TRAIN}")
    of_kind = kind_part(kind, "model")
    for key in (*REQUIRED, *of_kind.REQUIRED, *needed):
        if key not in about:
            raise InputError(f"{path}: {key} is missing: {TRAIN}")
    for key, (expects, accepts) in (KEYS | of_kind.KEYS).items():
        if key in about and not accepts(about[key]):
            got = json.dumps(about[key], ensure_ascii=False)[:80]
            raise InputError(f"{path}: {key} must be {expects}, got {got}: {TRAIN}")
    for key in ("mean", "std"):
        if len(about[key]) != about["input_size"][0]:
            raise InputError(f"{path}: {key} must have a number per channel of input_size: {TRAIN}")
    return about


def no_model(folder: Path | str, error: Exception) -> InputError:
    """That a folder has no model that can be read, and what to do."""
    if not Path(folder).is_absolute() and (busy := locks.running("train")):
        return InputError(f"{folder} holds no model yet: {busy}; wait until it ends")
    return InputError(f"{folder} holds no model ({' '.join(str(error).split())}): {TRAIN}")


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _list_of(accepts: Accepts) -> Accepts:
    return lambda value: isinstance(value, list) and bool(value) and all(map(accepts, value))


def _are_names(value: Any) -> bool:
    return _list_of(_is_text)(value) and len(set(value)) == len(value)


# What each key must be, and whether a value is that; the kind of sample has more.
KEYS: dict[str, tuple[str, Accepts]] = {
    "architecture": ("the name of a model", _is_text),
    "classes": ("a list of names, each of them once", _are_names),
    "mean": ("a list of numbers", _list_of(_is_number)),
    "std": ("a list of numbers > 0", _list_of(lambda value: _is_number(value) and value > 0)),
    "activation": (f"one of {', '.join(ACTIVATIONS)}", lambda value: value in ACTIVATIONS),
    "own_net": ("the hash of a source", _is_text),
    "own_params": ("keys of the section yours, with their values", lambda x: isinstance(x, dict)),
    "best_by": ("the name of a metric", _is_text),
    "epochs": ("an integer >= 1", _is_count),
    "best_epoch": ("an integer >= 1", _is_count),
    "fingerprint": ("the fingerprint of a training", _is_text),
}
