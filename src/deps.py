"""Bring the deps in dvc.yaml up to date with the code: `python -m src.deps`."""

import argparse
import sys

from src.base.imports import ROOT
from src.plumbing import command, deps


def main() -> None:
    """The command line."""
    argparse.ArgumentParser(
        prog="python -m src.deps", description=(__doc__ or "").split("\n")[0]
    ).parse_args()
    file = ROOT / "dvc.yaml"
    file.write_text(deps.rewrite(file.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(command.guarded(main))
