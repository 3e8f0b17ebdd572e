"""Remove what is finished: `python -m src.clean` (make clean).

Results, runs, what still has to be sent to MLflow, and the checkpoints of unfinished trainings
stay. The working copies of killed experiments, which DVC leaves behind, go.
"""

import shutil
import sys
from contextlib import suppress
from pathlib import Path

from src.base.words import counted
from src.plumbing import command, locks, workspace
from src.tracking.journal import journal
from src.tracking.store import files

# What a refused `prepare` left to look at, and figures that are drawn anew; then what tools leave.
LEFTOVERS = (".cache/prepare", ".cache/compare", ".pytest_cache", ".mypy_cache", ".ruff_cache")
# Where DVC works on an experiment of its queue, and of `--temp`.
WORKING_COPIES = (".dvc/tmp/exps/tmp*", ".dvc/tmp/exps/standalone/tmp*")


def main() -> None:
    """The command line."""
    parser = command.parser("clean", __doc__)
    parser.parse_args()
    workspace.require_project()
    root = workspace.main_repository()
    code = {file.parent for file in root.glob("[!.]*/*.py")}
    compiled = [path for folder in code for path in folder.rglob("__pycache__")]
    for path in _found(root, LEFTOVERS) + compiled:
        shutil.rmtree(path, ignore_errors=True)
    removed, kept = finished(root)
    many = counted(removed, "checkpoint")
    print(f"clean: {many} of finished trainings removed, {kept} of others kept")
    if copies := _found(root, WORKING_COPIES):
        many = "1 working copy" if len(copies) == 1 else f"{len(copies)} working copies"
        if number := _process_in(root):
            print(f"clean: {many} of experiments kept: process {number} runs")
        else:
            gone = [path for path in copies if not (path / files.MLFLOW_FOLDER).exists()]
            for path in gone:
                shutil.rmtree(path, ignore_errors=True)
            many = "1 working copy" if len(gone) == 1 else f"{len(gone)} working copies"
            print(f"clean: {many} of killed experiments removed")
            for path in (path for path in copies if path not in gone):
                print(f"clean: {path.relative_to(root)} kept: it has files of MLflow runs")


def finished(root: Path) -> tuple[int, int]:
    """Remove the checkpoints of finished trainings, unless a process holds them or they are younger
    than that end, as of a training that began again. Returns how many went and how many stay."""
    folders = sorted((root / ".cache/checkpoints").glob("*"))
    removed = 0
    for folder in folders:
        with locks.try_hold(journal.lock_path(root, folder.name)) as free:
            changed = max((file.stat().st_mtime for file in folder.glob("*")), default=0.0)
            if free and journal.finished_since(root, folder.name, changed):
                shutil.rmtree(folder)
                removed += 1
    return removed, len(folders) - removed


def _process_in(root: Path) -> int:
    """The id of a process that may work on an experiment: of DVC, which starts in the project's
    folder, or of a stage in a working copy. 0 if there is none."""
    import psutil

    for one in psutil.process_iter():
        with suppress(psutil.Error):  # it has ended, or is another user's
            folder = Path(one.cwd())
            is_dvc = any(Path(word).name.startswith("dvc") for word in one.cmdline()[:3])
            if folder.is_relative_to(root if is_dvc else root / ".dvc/tmp/exps"):
                return one.pid
    return 0


def _found(root: Path, patterns: tuple[str, ...]) -> list[Path]:
    return [path for pattern in patterns for path in root.glob(pattern)]


if __name__ == "__main__":
    sys.exit(command.guarded(main))
