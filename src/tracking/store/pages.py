"""The addresses under which MLflow shows the store."""

import json
import os
import socket
from pathlib import Path

from src.base.files import write_json
from src.tracking.store import store
from src.tracking.store.address import public

HOST, PORT = "127.0.0.1", 5000
# A fresh browser would open the view for language models, without the runs of a training.
TRAINING_VIEW = "?workflowType=machine_learning"


def server_address() -> str | None:
    """MLFLOW_TRACKING_URI without credentials, ending in a slash; None if it names no server."""
    uri = os.environ.get("MLFLOW_TRACKING_URI", "")
    return public(uri) + "/" if uri.startswith(("http://", "https://")) else None


def base_address(root: Path) -> str:
    """Where the pages of the runs are, ending in a slash: the server's, or that of `make ui`."""
    return server_address() or running_address(root) or f"http://{HOST}:{PORT}/"


def running_address(root: Path) -> str | None:
    """The address of a `make ui` that runs now and serves the store of the project."""
    try:
        note = json.loads(note_path(root).read_text(encoding="utf-8"))
        os.kill(int(note["pid"]), 0)
        # A copy of the project has the note, too, but its store is another one.
        if (note["store"], note["project"]) != (store.name(root), str(root.resolve())):
            return None
        # The process may have been killed, and its number be that of another one by now.
        socket.create_connection((HOST, int(note["port"])), timeout=1).close()
        return f"http://{HOST}:{note['port']}/"
    except (OSError, ValueError, TypeError, KeyError, OverflowError):
        return None


def run_address(base: str, experiment_id: str, run_id: str) -> str:
    """The page of a run on the server at `base`; empty without one."""
    return f"{base}#/experiments/{experiment_id}/runs/{run_id}{TRAINING_VIEW}" if base else ""


def write_note(root: Path, port: int) -> None:
    """Note that this process serves the store of the project now."""
    about = {"project": str(root.resolve()), "store": store.name(root)}
    write_json(note_path(root), {"pid": os.getpid(), "port": port, **about})


def note_path(root: Path) -> Path:
    """Where `make ui` notes its address while it runs."""
    return root / ".cache" / "ui.json"
