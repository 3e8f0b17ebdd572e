"""The deps and params of the stages in dvc.yaml, read from the code."""

import re

import yaml

from src.base.imports import ROOT, closure, is_docstring_alone
from src.plumbing.errors import InputError

# Folders that a stage uses whole: one dependency instead of many. DVC takes about 1 ms for each.
# One inside another stands after it.
WHOLE = (
    "src/base",
    "src/checks",
    "src/data",
    "src/images",
    "src/images/quality",
    "src/model",
    "src/model/nets",
    "src/preparation",
    "src/reports",
    "src/training",
)


def dependencies(module: str) -> set[str]:
    """What stands among the deps of a stage: the files of its closure, but a folder of WHOLE as one
    if all of its files belong to it."""
    found = closure(module)
    for folder in WHOLE:
        inside = {path.relative_to(ROOT).as_posix() for path in (ROOT / folder).rglob("*.py")}
        code = {path for path in inside if not is_docstring_alone(ROOT / path)}
        if code and code <= found:
            found = (found - code) | {folder}
    return found


def require_declared(pipeline: str) -> None:
    """InputError if code that a stage of this project can run is none of its deps in `pipeline`,
    the text of dvc.yaml: an edit there would re-run nothing, and dvc.lock would vouch for another
    result. Stages that somebody added are theirs to declare."""
    for name, entry in yaml.safe_load(pipeline)["stages"].items():
        module = f"src.{name.replace('-', '_')}"
        if str(entry.get("cmd")).split()[:3] != ["python", "-m", module]:
            continue
        deps = tuple(entry["deps"])
        for path in sorted(closure(module)):
            if path not in deps and not path.startswith(tuple(f"{dep}/" for dep in deps)):
                raise InputError(
                    f"dvc.yaml: stage {name} uses {path}, which is none of its deps, so that an "
                    "edit there would change nothing: `python -m src.deps` writes the deps"
                )


def rewrite(text: str) -> str:
    """dvc.yaml with the code among the deps of each stage brought up to date; the rest as it is."""

    def stage(match: re.Match[str]) -> str:
        entry, module = match[0], match[1]
        code = "".join(f"      - {path}\n" for path in sorted(dependencies(module)))
        first = entry.index("      - src/")
        return entry[:first] + code + re.sub(r" {6}- src/.*\n", "", entry[first:])

    return re.sub(r"(?m)^    cmd: python -m (\S+)(?:.*\n)+?(?=    params:)", stage, text)
