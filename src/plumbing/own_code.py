"""Errors in the files of src/yours, said in a line that names the place."""

import sys
import traceback
from pathlib import Path

from src.base.imports import ROOT

FOLDER = "src/yours"


def place_of(error: BaseException) -> str | None:
    """`src/yours/loss.py:12: NameError: ...` for an error that came up in a file of yours or below
    it, or that says what such a file lacks; None for any other."""
    if isinstance(error, SyntaxError):
        where = _ours(error.filename)
        return where and f"{where}:{error.lineno}: {error.msg}"
    reason = " ".join(f"{type(error).__name__}: {error}".split())
    frames = traceback.extract_tb(error.__traceback__)
    for frame in reversed(frames):
        if where := _ours(frame.filename):
            return f"{where}:{frame.lineno}: {reason}"
    module = getattr(error, "obj", None)  # of an AttributeError
    if where := _ours(getattr(module, "__file__", None)):
        return f"{where} has no {error.name}, which the project calls"  # type: ignore[attr-defined]
    return None


def _ours(file: str | None) -> str | None:
    path = Path(file or "/")
    inside = path.is_relative_to(ROOT / FOLDER)
    return path.relative_to(ROOT).as_posix() if inside else None


def leave_if_broken(error: Exception) -> None:
    """Before anything can catch an error, while modules are imported: say it and end, if it came up
    in a file of yours."""
    if place := place_of(error):
        print(place, file=sys.stderr)
        raise SystemExit(2) from None
