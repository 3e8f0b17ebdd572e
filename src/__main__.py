"""The stages and tools, with a line each: `python -m src`."""

import ast
import re
import sys
from pathlib import Path

from src.base.imports import ROOT
from src.plumbing import command, dvc_files


def main() -> None:
    """The command line."""
    files = sorted(Path(__file__).parent.glob("[!_]*.py"))
    modules = {file.stem: _first_sentence(file) for file in files}
    runs = dvc_files.modules(ROOT)
    stages = {name: modules.get(module.removeprefix("src."), "") for name, module in runs.items()}
    modules = {name: line for name, line in modules.items() if f"src.{name}" not in runs.values()}
    width = max(map(len, (*stages, *modules)))
    for title, about in (
        ("Stages, in the order in which `dvc repro` runs them; `dvc repro NAME` runs one:", stages),
        ("Tools, run as `python -m src.NAME`:", modules),
    ):
        print(title, *(f"  {name:{width}}  {line}" for name, line in about.items()), sep="\n")


def _first_sentence(file: Path) -> str:
    """That of the module's docstring, read without importing the module."""
    code = ast.parse(file.read_text(encoding="utf-8"))
    text = " ".join((ast.get_docstring(code) or "").partition("\n\n")[0].split())
    return re.sub(r"^Stage `\S+`: |(?<=\.) .*", "", text)


if __name__ == "__main__":
    sys.exit(command.guarded(main))
