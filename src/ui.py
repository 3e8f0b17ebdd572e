"""Browse the runs: `python -m src.ui [--port N]` (make ui) serves MLflow's pages until
Ctrl-C, on this machine only.

`mlflow server` as it comes starts ten processes and takes 2.6 GB; without its job runner and with
one worker it is two processes and 0.5 GB (measured).
"""

import http.client
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

from src.plumbing import command, workspace
from src.plumbing.errors import GateError, InputError
from src.tracking.store import store
from src.tracking.store.address import hide, reason
from src.tracking.store.pages import HOST, PORT, TRAINING_VIEW, server_address, write_note

TRIED_PORTS = 50
OTHER_NAMES = (
    'Under another host name, as behind a proxy, MLflow answers "Invalid Host header": set '
    "MLFLOW_SERVER_ALLOWED_HOSTS to NAME,NAME:*,127.0.0.1:*, and for the lists of runs "
    "MLFLOW_SERVER_CORS_ALLOWED_ORIGINS to the address in the browser, https://NAME."
)
START_SECONDS = 120.0  # it takes 6.5 s on an idle core (measured)
STOP_SECONDS = 10.0
ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def free_port(first: int) -> int:
    """`first`, or the next port that nobody listens on; InputError if there is none."""
    if not 1 <= first <= 65535:
        raise InputError(f"--port must be in 1..65535, got {first}")
    for port in range(first, min(first + TRIED_PORTS, 65536)):
        with socket.socket() as probe:
            # As the server does it: a port that was used a moment ago is free.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
            return port
    raise InputError(f"no free port from {first} on: give another one with --port")


def serve(root: Path, first_port: int) -> None:
    """Serve the store of the project until a signal ends it. The server's own words go to
    .cache/ui.log. GateError if it does not start."""
    print("starting MLflow's server ...", file=sys.stderr, flush=True)
    uri = store.tracking_uri(root)
    try:
        _, experiment_id = store.open_store(root)
    except InputError:
        raise
    except Exception as error:  # whatever MLflow raises
        raise InputError(f"the store of the runs cannot be opened: {reason(error)}") from None
    port = free_port(first_port)
    address = f"http://{HOST}:{port}/"
    log = root / ".cache" / "ui.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    # The address of the database may hold a password: by the environment, not for all to see.
    environment = {
        **os.environ,
        "MLFLOW_BACKEND_STORE_URI": uri,
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    }
    if folder := store.files_folder(root):  # also of experiments that are made on the pages
        environment.setdefault("MLFLOW_DEFAULT_ARTIFACT_ROOT", folder.as_uri())
    command = [sys.executable, "-P", "-m", "mlflow", "server", "--workers", "1"]
    command += ["--host", HOST, "--port", str(port)]
    # A closed terminal ends this like SIGTERM: the server has no terminal of its own.
    signal.signal(signal.SIGHUP, signal.getsignal(signal.SIGTERM))
    with open(log, "wb") as output:
        server = subprocess.Popen(
            command,
            cwd=root,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # its processes end together, and Ctrl-C reaches this one only
        )
    try:
        _wait_until_up(server, address, log)
        write_note(root, port)
        print(
            f"{address}#/experiments/{experiment_id}/runs{TRAINING_VIEW}\n"
            "Ctrl-C ends the server. Under another host name: see `python -m src.ui --help`.",
            flush=True,
        )
        server.wait()
        raise GateError(f"the MLflow server ended (exit code {server.returncode}): see {log}")
    finally:
        try:
            _ignore_signals()
        finally:  # a second one may come before that; it must not leave the server behind
            _stop(server)


def _wait_until_up(server: "subprocess.Popen[bytes]", address: str, log: Path) -> None:
    # A proxy from the environment must not stand between this process and its own server.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end:
        if server.poll() is not None:
            lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
            last = hide((lines or [""])[-1])
            raise GateError(f"the MLflow server did not start ({last}): see {log}")
        try:
            opener.open(address + "health", timeout=5).close()
            return
        # A connection to a port where nobody listens may be one to itself, and read what it asked.
        except (OSError, http.client.HTTPException):
            time.sleep(0.2)
    raise GateError(f"the MLflow server does not answer after {START_SECONDS:.0f} s: see {log}")


def _ignore_signals() -> None:
    for number in ENDING:
        signal.signal(number, signal.SIG_IGN)


def _stop(server: "subprocess.Popen[bytes]") -> None:
    """End the server and the processes that it started (they are a group of their own)."""
    _ignore_signals()
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(server.pid, number)
            server.wait(STOP_SECONDS)
        except ProcessLookupError:
            return
        except subprocess.TimeoutExpired:
            continue


def main() -> None:
    """The command line."""
    parser = command.parser("ui", "Browse the runs.")
    parser.epilog = OTHER_NAMES
    parser.add_argument(
        "--port", type=int, default=PORT, help=f"default: {PORT}, or the next free one"
    )
    arguments = parser.parse_args()
    address = server_address()
    if address:
        print(f"The runs are on the MLflow server of MLFLOW_TRACKING_URI:\n{address}")
        return
    workspace.require_project()
    try:
        serve(workspace.main_repository(), arguments.port)
    except KeyboardInterrupt:
        print("\nThe server has ended.")  # the way to end it: no failure


if __name__ == "__main__":
    sys.exit(command.guarded(main))
