"""The folder that the user works in, the repository that it belongs to, and its programs."""

import os
import shlex
import sys
import tomllib
from pathlib import Path

from src.plumbing.errors import InputError

TEMPORARY_WORKSPACES = ".dvc/tmp/exps"  # where DVC runs --temp and queued experiments
PROJECT_FILES = ("params.yaml", "dvc.yaml")
NAMED_IN = "pyproject.toml"


def main_repository(cwd: Path | None = None) -> Path:
    """The repository that the user cloned, also when `cwd` (default: the working directory) is a
    temporary workspace of DVC inside it. `.cache` and the MLflow store live there."""
    here = (cwd or Path.cwd()).resolve()
    workspace = next((path for path in (here, *here.parents) if (path / ".dvc").is_dir()), here)
    if given := os.environ.get("DVC_ROOT"):
        root = Path(given).resolve()
        # DVC's own points to this workspace or to the repository that the workspace belongs to;
        # one that the user exported for another project, or for one around this, does not.
        if root == workspace or (root / TEMPORARY_WORKSPACES).resolve() in workspace.parents:
            return root
    before, found, _ = workspace.as_posix().rpartition(f"/{TEMPORARY_WORKSPACES}/")
    return Path(before) if found else workspace


def require_project() -> None:
    """InputError in a subfolder of a project, where the paths of the project lead nowhere."""
    here = Path.cwd()
    if any((here / name).exists() for name in PROJECT_FILES):
        return
    for folder in here.parents:
        if all((folder / name).is_file() for name in PROJECT_FILES):
            raise InputError(
                f"run this in the folder of the project: `cd {shlex.quote(str(folder))}` first"
            )


def project_name(root: Path) -> str:
    """The name that is committed in pyproject.toml, so it is the same in every clone; the folder's
    name without that file. InputError if the file cannot be read or names nothing."""
    try:
        project = tomllib.loads((root / NAMED_IN).read_text(encoding="utf-8"))["project"]["name"]
    except FileNotFoundError:
        return root.resolve().name
    except (OSError, ValueError) as error:  # also what is no TOML, or no UTF-8
        raise InputError(f"{NAMED_IN} cannot be read: {' '.join(str(error).split())}") from None
    except (KeyError, TypeError):
        project = None
    if not isinstance(project, str) or not project.strip():
        raise InputError(f'{NAMED_IN}: give the project a name: [project] name = "flowers"')
    return project.strip()


def read_here(path: str) -> str | None:
    """The text of a file of the workspace; None if it is not there. InputError if it is no text."""
    file = Path(path)
    try:
        return file.read_text(encoding="utf-8") if file.is_file() else None
    except UnicodeDecodeError:
        raise InputError(f"{path} is no UTF-8 text: `git checkout {path}` brings it back") from None


def search_path() -> str:
    """PATH with this environment's programs first: stages call `python`, DVC's workers `dvc`."""
    return f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
