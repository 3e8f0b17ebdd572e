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

from src.plumbing import dvc_errors, git, process, workspace
from src.plumbing.errors import GateError, InputError
from src.tracking.store import address

SHOWN = 3  # last lines of a command that failed (choice)


@contextmanager
def clone_of(root: Path, rev: str) -> Iterator[Path]:
    """A folder with the files of commit `rev` (any commit that git knows, such as the one of an
    experiment) and the source data that they name; it vanishes when the block ends."""
    with tempfile.TemporaryDirectory(prefix="verify-", ignore_cleanup_errors=True) as temporary:
        # Called like the project, as MLflow's experiment is named after the folder.
        folder = Path(temporary).resolve() / root.name
        # `--shared` lets the clone read the commits of experiments, which a plain clone leaves out.
        # Nor do the user's hooks run in it, or the ends of lines change.
        plain = ("--config", f"core.hooksPath={os.devnull}", "--config", "core.autocrlf=false")
        shared = ("--shared", "--no-checkout", *plain)
        git.printed("clone", "--quiet", *shared, str(root), str(folder))
        git.printed("checkout", "--quiet", "--detach", rev, folder=folder)
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
    """End DVC and its stage, by a kill if need be, so that nothing writes into the folder."""
    import psutil

    with suppress(psutil.NoSuchProcess):
        below = psutil.Process(dvc.pid).children(recursive=True)
        dvc.terminate()
        dvc.wait()
        process.wait_for(below, process.INSIST_SECONDS)


def isolated(folder: Path) -> dict[str, str]:
    """The environment without what leads to the project; its runs go into a store in `folder`."""
    kept = {
        key: value
        for key, value in git.variables().items()
        if not key.startswith(("DVC_", "MLFLOW_"))
    }
    uri = f"sqlite:///{folder}/mlflow.db"
    return {**kept, "PATH": workspace.search_path(), "MLFLOW_TRACKING_URI": uri}


def _bring_data(root: Path, folder: Path) -> None:
    """The data of every .dvc file: from the project's cache, or else from its remote."""
    listed = git.printed("ls-files", "-z", "--", ":(glob)**/*.dvc", folder=folder).split("\0")
    tracked = [name for name in listed if name]
    if not tracked:
        return
    cache = Path(_dvc(root, "cache", "dir").strip())
    # A cache is laid out like a remote; reading it as one leaves it as it is.
    _dvc(folder, "remote", "add", "--quiet", "--local", "project-cache", str(cache))
    for remote in (["--remote", "project-cache"], []):
        done = _run_dvc(folder, "pull", *remote, *tracked)
        if done.returncode == 0:
            return
    names = ", ".join(_outs(folder / name) for name in tracked[:SHOWN])
    printed = done.stderr.decode("utf-8", "replace")
    raise InputError(
        f"verify: the data {names} are neither in the project's cache nor in a remote of it: bring "
        "them back with `dvc checkout` or `dvc pull` "
        f"({_last_error(printed, _dvc(folder, 'remote', 'list'))})"
    )


def _last_error(printed: str, remotes: str) -> str:
    """DVC's reason, without what the addresses in `remotes` hide."""
    found = dvc_errors.reason(printed)
    for url in (word for word in remotes.split() if "://" in word):
        found = found.replace(url, address.public(url))
    return address.hide(found).rstrip(": ")


def _outs(path: Path) -> str:
    content = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    return ", ".join(str(out.get("path", path.stem)) for out in content.get("outs") or [])


def _dvc(folder: Path, *arguments: str) -> str:
    """What `dvc` prints in `folder`; InputError with its reason if it fails."""
    done = _run_dvc(folder, *arguments)
    if done.returncode:
        why = dvc_errors.reason(done.stderr.decode("utf-8", "replace"))
        raise InputError(f"`dvc {arguments[0]}` failed: {address.hide(why)}")
    return done.stdout.decode("utf-8", "replace")


def _run_dvc(folder: Path, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    """Run `dvc` to its end; InputError if it is not installed."""
    environment = {**isolated(folder), "GIT_TERMINAL_PROMPT": "0"}
    if (tool := shutil.which("dvc", path=environment["PATH"])) is None:
        raise InputError("dvc is not installed, or not on PATH")
    return subprocess.run([tool, *arguments], cwd=folder, env=environment, capture_output=True)
