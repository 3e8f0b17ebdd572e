"""A commit run again from its sources alone, in a temporary clone with a store of its own.

Nothing that the pipeline made comes along: no cache, no run cache, no outputs but those in git. The
source data that DVC tracks are taken from the project's cache, or from its remote.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import yaml

from src.plumbing import dvc_files, process
from src.plumbing.errors import GateError, InputError
from src.tracking.store import address

SHOWN = 3  # last lines of a command that failed (choice)


@contextmanager
def clone_of(root: Path, rev: str) -> Iterator[Path]:
    """A folder with the files of commit `rev` (any commit that git knows, such as the one of an
    experiment) and the source data that they name; it vanishes when the block ends."""
    with tempfile.TemporaryDirectory(prefix="verify-", ignore_cleanup_errors=True) as temporary:
        # The experiment's name must not tell the runs apart: the folder is called like the project.
        folder = Path(temporary).resolve() / root.name
        # `--shared` lets the clone read the commits of experiments, which a plain clone leaves out.
        _run(root, "git", "clone", "--quiet", "--shared", "--no-checkout", str(root), str(folder))
        _run(folder, "git", "checkout", "--quiet", "--detach", rev)
        _bring_data(root, folder)
        yield folder


def run_pipeline(folder: Path) -> None:
    """All stages, whatever an earlier run left; GateError if one of them fails."""
    command = ["dvc", "repro", "--force", "--no-run-cache"]
    environment = isolated(folder)
    dvc = subprocess.Popen(
        command, cwd=folder, env=environment, stdout=sys.stderr, stderr=subprocess.STDOUT
    )
    try:
        code = dvc.wait()
    finally:
        if dvc.poll() is None:  # interrupted
            _end(dvc)
    if code != 0:
        raise GateError(f"verify: the pipeline does not run through (exit code {code}); see above")


def _end(dvc: "subprocess.Popen[bytes]") -> None:
    """End DVC and wait for its stage, which ends with it, so that nothing writes into the folder
    any more; one that does not end is killed."""
    import psutil

    with suppress(psutil.NoSuchProcess):
        below = psutil.Process(dvc.pid).children(recursive=True)
        dvc.terminate()
        dvc.wait()
        process.wait_for(below, process.INSIST_SECONDS)


def isolated(folder: Path) -> dict[str, str]:
    """The environment without what would lead a stage to the project: its runs go into a store in
    `folder`."""
    kept = {
        key: value for key, value in os.environ.items() if not key.startswith(("DVC_", "MLFLOW_"))
    }
    return {
        **kept,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{kept.get('PATH', os.defpath)}",
        "MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db",
    }


def _bring_data(root: Path, folder: Path) -> None:
    """The data of every .dvc file: from the project's cache, or else from its remote."""
    listed = _run(folder, "git", "ls-files", "-z", "--", ":(glob)**/*.dvc").split("\0")
    tracked = [name for name in listed if name]
    if not tracked:
        return
    cache = Path(_run(root, "dvc", "cache", "dir").strip())
    # A cache is laid out like a remote; reading it as one leaves it as it is.
    _run(folder, "dvc", "remote", "add", "--quiet", "--local", "project-cache", str(cache))
    for remote in (["--remote", "project-cache"], []):
        done = _ended(folder, "dvc", "pull", *remote, *tracked)
        if done.returncode == 0:
            return
    names = ", ".join(_outs(folder / name) for name in tracked[:SHOWN])
    raise InputError(
        f"verify: the data {names} are neither in the project's cache nor in a remote of it: "
        f"bring them back with `dvc checkout` or `dvc pull` "
        f"({_last_error(done.stderr, _run(folder, 'dvc', 'remote', 'list'))})"
    )


def _last_error(printed: str, remotes: str) -> str:
    """The last error that DVC printed, or else its last words, without what the addresses of
    `remotes`, listed one a line, hide."""
    lines = [line.strip() for line in printed.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR: ")]
    found = (errors or lines or ["`dvc pull` failed"])[-1].removeprefix("ERROR: ")
    for url in (word for word in remotes.split() if "://" in word):
        found = found.replace(url, address.public(url))
    return address.hide(found).rstrip(": ")


def _outs(path: Path) -> str:
    content = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    return ", ".join(str(out.get("path", path.stem)) for out in content.get("outs") or [])


def _run(folder: Path, *command: str) -> str:
    """What a command prints; InputError with its last words if it fails."""
    done = _ended(folder, *command)
    if done.returncode != 0:
        words = " ".join((done.stderr or done.stdout).strip().splitlines()[-SHOWN:])
        raise InputError(f"`{' '.join(command[:2])}` failed: {address.hide(words)}")
    return done.stdout


def _ended(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """A command that ran to its end; InputError if it is not installed."""
    environment = {**isolated(folder), "GIT_TERMINAL_PROMPT": "0"}
    tool = shutil.which(command[0], path=environment["PATH"])
    if tool is None:
        raise InputError(f"{command[0]} is not installed, or not on PATH")
    return subprocess.run(
        [tool, *command[1:]], cwd=folder, env=environment, capture_output=True, text=True
    )


def different_versions(folder: Path) -> dict[str, tuple[str, str]]:
    """The packages that can change bits whose (installed, locked) versions differ."""
    from importlib import metadata

    different = {}
    for package, locked in dvc_files.read_versions(folder).items():
        try:
            installed = metadata.version(package)
        except metadata.PackageNotFoundError:
            installed = "none"
        if installed != locked:
            different[package] = (installed, locked)
    return different
