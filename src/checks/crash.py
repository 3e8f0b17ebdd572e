"""A part of the set-up that stops, in plain words."""

import re

from src.checks.context import SetupError
from src.checks.report import Check, fail

SIZE = re.compile(r"shape|size|dimension|expected input|mat1|channels|out of bounds|out of range")
TYPE = re.compile(r"dtype|expected scalar type|Float|Long|Byte|Double|not implemented for")


def explain(error: SetupError) -> Check:
    """The finding `runs_<part>`, with the causes that the error's own words suggest."""
    inner, line = error.error, one_line(error.error)
    if isinstance(inner, MemoryError) or "memory" in line.lower():
        causes = ["out_of_memory"]
    elif "out of bounds" in line or "label" in line.lower():
        causes = ["labels_out_of_range", "num_classes"]
    elif "gives no batch" in line:
        causes = ["loader_incomplete"]
    elif "total steps" in line or "Tried to step" in line:  # OneCycleLR at its end
        causes = ["schedule_too_short"]
    elif TYPE.search(line) and not SIZE.search(line):
        causes = ["dtype_mismatch", "code_error"]
    elif SIZE.search(line):
        causes = ["shape_mismatch", "num_classes"]
    elif isinstance(inner, AttributeError | TypeError):
        causes = ["interface", "code_error"]
    else:
        causes = ["code_error"]
    text = f"{error.part} stopped with {type(inner).__name__}: {line}"
    return fail(f"runs_{error.part}", None, None, text, *causes)


def one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
