"""Remove what is finished: `python -m src.clean` (make clean). Results, runs, what waits for the
tracker, and the checkpoints of trainings that are not finished stay."""

import argparse
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from src import pipeline, process, repository, stage
from src.tracking import journal

# What was kept of a `prepare` that said no, and pictures that are drawn anew.
KEPT_TO_LOOK_AT = ("prepare", "compare")
TOOLS = (".pytest_cache", ".mypy_cache", ".ruff_cache")
CODE = ("src", "tests", "bench", "requirements")


def main() -> None:
    """The command line."""
    argparse.ArgumentParser(prog="python -m src.clean", description=__doc__).parse_args()
    repository.require_project()
    root = pipeline.main_repository()
    for path in [*(root / name for name in TOOLS), *_compiled(root)]:
        shutil.rmtree(path, ignore_errors=True)
    removed, kept = finished(root)
    for name in KEPT_TO_LOOK_AT:
        shutil.rmtree(root / ".cache" / name, ignore_errors=True)
    print(f"clean: {removed} checkpoints of finished trainings removed, {kept} of others kept")


def finished(root: Path) -> tuple[int, int]:
    """Remove the checkpoints of trainings that have ended well, unless a process holds them or they
    are younger than that end: the training was begun again. How many went and how many stay."""
    folders = sorted((root / ".cache/checkpoints").glob("*"))
    removed = 0
    for folder in folders:
        with process.try_hold(journal.lock_path(root, folder.name)) as free:
            changed = max((file.stat().st_mtime for file in folder.glob("*")), default=0.0)
            if free and journal.finished_since(root, folder.name, changed):
                shutil.rmtree(folder)
                removed += 1
    return removed, len(folders) - removed


def _compiled(root: Path) -> Iterator[Path]:
    for name in CODE:
        yield from (root / name).rglob("__pycache__")


if __name__ == "__main__":
    sys.exit(stage.guarded(main))
