"""Stages forked with the large packages imported: a fresh start takes ten times a stage.
This module imports nothing of src."""

import multiprocessing
import os
import runpy
import sys
from dataclasses import dataclass
from pathlib import Path

# Python's server forks a process for each start. It imports these, and nothing of src, once.
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["matplotlib.pyplot", "scipy.stats", "sklearn.linear_model", "timm"])


@dataclass
class Ended:
    """What `python -m` would have left."""

    code: int
    printed: str


def run_stage(project: Path, name: str) -> Ended:
    """`python -m src.<name>` in the project's folder."""
    output = project.parent / f"{project.name}-{name}.log"
    process = FORKS.Process(target=_main, args=(project, name, output))
    process.start()
    process.join()
    assert process.exitcode is not None
    return Ended(process.exitcode, output.read_text())


def _main(project: Path, name: str, output: Path) -> None:
    with open(output, "wb") as file:
        os.dup2(file.fileno(), sys.stdout.fileno())
        os.dup2(file.fileno(), sys.stderr.fileno())
    os.chdir(project)
    module = f"src.{name.replace('-', '_')}"
    sys.path.insert(0, str(project))
    sys.argv = [module]
    runpy.run_module(module, run_name="__main__")
