"""Where the files of runs are kept, unless a server keeps them: with their store.

MLflow notes the folder of each experiment and run for good, as an absolute path. So it is one that
stays when a temporary workspace goes; a store in a project follows the project to another place;
and no file is written into a folder of another project, nor is one made anew that moved away.
"""

import sqlite3
from contextlib import closing
from pathlib import Path
from urllib.parse import unquote, urlsplit

from src.plumbing.workspace import PROJECT_FILES, TEMPORARY_WORKSPACES

FOLDER = "mlartifacts"
MLFLOW_FOLDER = "mlruns"  # MLflow's own choice, below the working directory
DATABASES = ("postgresql", "mysql", "mssql")  # besides SQLite, which MLflow opens without a server
# Where the store names folders: of experiments, of runs, of logged and of registered models.
COLUMNS = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
)


def folder_of(root: Path, uri: str, file: Path | None) -> Path | None:
    """The folder for the files of a store's experiments: in the project for a SQLite `file` that
    lies in it, else beside the file; in the project for another database; None for a server."""
    home = root.resolve()
    if file:
        return (home if file.is_relative_to(home) else file.parent) / FOLDER
    return home / FOLDER if uri.partition(":")[0].partition("+")[0] in DATABASES else None


def trouble(root: Path, folder: Path | None, location: str) -> str:
    """Why nothing may be written to a location that the store names; empty if it may. `folder`: as
    `folder_of` has it for the store."""
    path = _local(location)
    if path is None or (folder and path.is_relative_to(folder)):
        return ""
    home = root.resolve()
    if _is_temporary(path):
        why = "a temporary workspace of DVC goes"
    elif path.is_relative_to(home):
        return ""
    elif not (above := path.parent if path.name.isdigit() else path).parent.is_dir():
        why = f"{above.parent} is not here"
    elif other := next(filter(_is_project, path.parents), None):
        why = f"{other} is another project"
    else:
        return ""
    return f"{why}, so no files of runs go into {path}"


def bring_along(root: Path, file: Path) -> str:
    """Let a SQLite store in the project name the files of its runs where they are now: the project
    was moved, copied or mounted elsewhere since. And let experiments whose folder is a temporary
    workspace keep new files in the project. A folder that somebody chose stays. Returns where the
    project was; empty if nothing moved. Raises sqlite3.Error."""
    home = root.resolve()
    with closing(sqlite3.connect(file, timeout=5)) as store, store:
        moved = {
            old
            for (location,) in store.execute("SELECT artifact_location FROM experiments")
            if (old := _project_of(_local(location or ""))) and old != home
            if not old.exists() or _is_project(old)
        }
        for old in moved:
            for before, after in ((old.as_uri(), home.as_uri()), (str(old), str(home))):
                for table, column in COLUMNS:
                    store.execute(
                        f"UPDATE {table} SET {column} = ? || substr({column}, ?) "
                        f"WHERE substr({column}, 1, ?) = ?",
                        (after, len(before) + 1, len(before) + 1, f"{before}/"),
                    )
        rows = store.execute("SELECT experiment_id, artifact_location FROM experiments").fetchall()
        lost = [number for number, location in rows if _is_temporary(_local(location or ""))]
        store.executemany(
            "UPDATE experiments SET artifact_location = ? WHERE experiment_id = ?",
            [((home / FOLDER).as_uri(), number) for number in lost],
        )
    return ", ".join(sorted(map(str, moved)))


def _local(location: str) -> Path | None:
    """The path of a folder on this machine; None for one of a server or a cloud."""
    if location.startswith("/"):
        return Path(location)
    parts = urlsplit(location)
    return Path(unquote(parts.path)) if parts.scheme == "file" else None


def _project_of(path: Path | None) -> Path | None:
    """The project in whose folder the files of an experiment are, as far as the path says it."""
    if path is None:
        return None
    before, found, _ = path.as_posix().partition(f"/{TEMPORARY_WORKSPACES}/")
    if found:
        return Path(before)
    if path.name == FOLDER:
        return path.parent
    return path.parents[1] if path.parent.name == MLFLOW_FOLDER else None


def _is_temporary(path: Path | None) -> bool:
    return path is not None and f"/{TEMPORARY_WORKSPACES}/" in path.as_posix()


def _is_project(folder: Path) -> bool:
    return all((folder / name).is_file() for name in PROJECT_FILES)
