"""The tracker with real processes: a killed one, four at once, a server that dies or is slow."""

import http.client
import http.server
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from src.base.imports import ROOT
from src.plumbing.stage import Stage
from src.tracking import run as tracking
from src.tracking.about import system
from src.tracking.journal import shipping, unsent
from src.tracking.log import Log
from src.tracking.store import store
from tests.conftest import free_port
from tests.tracking.tracked_project import DIGEST, evaluate, history, make_tracked_project, runs

pytestmark = pytest.mark.slow(seconds=30)

DELAY, PATIENCE = 3.0, "2"  # seconds until the slow server answers, and that a stage waits for it


@pytest.fixture(autouse=True)
def project(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """As for the fast tests of the tracker: with an empty store, and as working directory."""
    monkeypatch.setattr(system, "FIRST", 3600.0)
    return make_tracked_project(tmp_path / "project", tmp_path_factory, monkeypatch)


# Another process that works on the stage until it is told to end.
WORKER = """
import sys
from src.plumbing.stage import Stage
from src.tracking import run as tracking
from src.tracking.about import system
system.FIRST = 3600.0
with tracking.start(Stage("train")) as run:
    run.log_metrics({"train/loss": 0.5}, 1)
    run.log_metrics({"train/loss": 0.25}, 2)
    print("logged", flush=True)
    sys.stdin.read()
"""


def begin(code: str, folder: Path) -> subprocess.Popen[bytes]:
    """Run code in a folder, with the modules of this repository."""
    return subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def log_losses(run: Log, steps: Iterable[int]) -> float:
    """Log a loss for each step; how long the longest call took, in seconds."""
    longest = 0.0
    for step in steps:
        started = time.perf_counter()
        run.log_metrics({"loss": 1 / step}, step)
        longest = max(longest, time.perf_counter() - started)
    return longest


def finished_run(project: Path) -> Any:
    """The one run in the store, which must be finished."""
    [stored] = runs(project)
    assert stored.info.status == "FINISHED"
    return stored


def files_in_store(project: Path) -> list[str]:
    """The logged files of that run below `pictures`."""
    client, _ = store.open_store(project)
    listed = client.list_artifacts(finished_run(project).info.run_id, "pictures")
    return [file.path for file in listed]


def test_a_killed_process_loses_and_doubles_nothing(project: Path) -> None:
    with begin(WORKER, project) as first:
        assert first.stdout
        assert first.stdout.readline() == b"logged\n"
        first.kill()
    [stored] = runs(project)
    assert stored.info.status == "RUNNING"
    journal = project / f".cache/journal/{stored.info.run_id}.jsonl"
    with open(journal, "a") as file:
        file.write('{"key": "train/lo')  # what a power cut leaves
    with tracking.start(Stage("train")) as run:  # goes on from the checkpoint after step 1
        run.log_metrics({"train/loss": 0.25}, step=2)
        run.log_metrics({"train/loss": 0.125}, step=3)
    stored = finished_run(project)
    assert history(project, stored, "train/loss") == [(1, 0.5), (2, 0.25), (3, 0.125)]
    assert len(journal.read_text().splitlines()) == 3


# A stage in a workspace of its own, as those of the queue; all write into the store of the project.
WORKSPACE = """
from src.plumbing.stage import Stage
from src.tracking import run as tracking
with tracking.start(Stage("train")) as run:
    for step in range(50):
        run.log_metrics({"train/loss": 1 / (1 + step)}, step)
    run.log_image("examples/last.png", b"picture")
"""


def test_four_processes_may_write_to_a_fresh_store_at_once(project: Path) -> None:
    (project / "mlflow.db").unlink()
    processes = []
    for number in range(4):
        workspace = project / f".dvc/tmp/exps/tmp{number}"
        ignored = shutil.ignore_patterns(".dvc", ".cache", "mlartifacts")
        shutil.copytree(project, workspace, ignore=ignored)
        params = (workspace / "params.yaml").read_text()
        (workspace / "params.yaml").write_text(params.replace("seed: 0", f"seed: {number}", 1))
        processes.append(begin(WORKSPACE, workspace))
    printed = [process.communicate(timeout=600) for process in processes]
    assert printed == [(b"", b"")] * 4  # no lines about tables being created, either
    assert [process.returncode for process in processes] == [0] * 4
    stored = runs(project)
    assert sorted(run.data.params["seed"] for run in stored) == [str(n) for n in range(4)]
    for run in stored:
        assert run.info.status == "FINISHED"
        loss = history(project, run, "train/loss")
        assert loss == [(step, 1 / (1 + step)) for step in range(50)]
        folder = project / "mlartifacts" / run.info.run_id / "artifacts"
        assert (folder / "examples/last.png").read_bytes() == b"picture"


@pytest.fixture
def server(project: Path, tmp_path: Path) -> Iterator[Callable[[str], str]]:
    """Starts and stops a real server: `server("start")` returns its address."""
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    shutil.copy(project / "mlflow.db", tmp_path / "server.db")
    processes: list[subprocess.Popen[bytes]] = []

    def command(what: str) -> str:
        if what == "start":
            processes.append(start())
        else:
            stop(processes.pop())
        return address

    def start() -> subprocess.Popen[bytes]:
        options = ["--backend-store-uri", f"sqlite:///{tmp_path}/server.db", "--workers", "1"]
        options += ["--artifacts-destination", str(tmp_path / "served")]
        options += ["--host", "127.0.0.1", "--port", str(port)]
        process = subprocess.Popen(
            [sys.executable, "-m", "mlflow", "server", *options],
            env={**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        end = time.monotonic() + 600
        while True:
            try:
                urllib.request.urlopen(f"{address}/health", timeout=5).close()
                return process
            except OSError:
                assert time.monotonic() < end
                time.sleep(0.2)

    yield command
    for process in processes:
        stop(process)


def stop(process: subprocess.Popen[bytes]) -> None:
    os.killpg(process.pid, signal.SIGKILL)  # the group that this test started
    process.wait()


def test_a_server_that_dies_and_comes_back(
    server: Callable[[str], str],
    project: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(shipping, "INTERVAL", 0.05)
    monkeypatch.setattr(shipping, "PAUSE", 0.05)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server("start"))
    stage = Stage("train")
    with tracking.start(stage) as run:
        run.log_metrics({"loss": 0.5, "nan": float("nan"), "inf": float("inf")}, step=1)
        run.log_input("digits", DIGEST, "training")
        run.log_artifact("params.yaml", "pictures")
        [stored] = runs(project)
        end = time.monotonic() + 120
        while not history(project, stored, "loss"):
            assert time.monotonic() < end
            time.sleep(0.1)
        server("stop")
        # More than one batch; no call waits for the server.
        assert log_losses(run, range(2, 1502)) < 5
        end = time.monotonic() + 120
        while "points wait in" not in (told := capsys.readouterr().err):
            assert time.monotonic() < end
            time.sleep(0.1)
        assert len(told.splitlines()) == 1
        server("start")
    assert capsys.readouterr().err == ""
    points = [(1, 0.5), *((step, 1 / step) for step in range(2, 1502))]
    assert history(project, finished_run(project), "loss") == points
    assert files_in_store(project) == ["pictures/params.yaml"]
    assert not (project / "mlartifacts").exists()


def test_a_server_that_was_never_there_gets_everything_once(
    server: Callable[[str], str],
    project: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server("start"))
    server("stop")
    stage = Stage("train")
    with tracking.start(stage) as run:
        log_losses(run, range(1, 1202))
        run.log_artifact("params.yaml", "pictures")
    evaluate()
    told = capsys.readouterr().err
    assert "points wait in" in told
    assert "Traceback" not in told
    server("start")
    first, again = unsent.send_all(project), unsent.send_all(project)
    assert (first.made, first.points, first.files, first.trouble) == (1, 1202, 1, [])
    assert (again.made, again.points, again.files, again.trouble) == (0, 0, 0, [])
    stored = finished_run(project)
    assert history(project, stored, "loss") == [(step, 1 / step) for step in range(1, 1202)]
    assert history(project, stored, "test/accuracy") == [(0, 0.75)]


@pytest.fixture
def servers(server: Callable[[str], str]) -> Iterator[tuple[str, str]]:
    """The address of a real server, and another under which it answers `DELAY` seconds late."""
    direct = server("start")

    class Handler(http.server.BaseHTTPRequestHandler):
        def forward(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            time.sleep(DELAY)
            connection = http.client.HTTPConnection(direct.removeprefix("http://"), timeout=60)
            connection.request(self.command, self.path, body, dict(self.headers))
            response = connection.getresponse()
            content = response.read()
            connection.close()
            with suppress(ConnectionError):  # the client has given up
                self.send_response(response.status)
                self.send_header("Content-Type", response.headers["Content-Type"])
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = forward

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as proxy:
        proxy.daemon_threads = False  # they end before the server behind them does
        thread = threading.Thread(target=proxy.serve_forever)
        thread.start()
        yield direct, f"http://127.0.0.1:{proxy.server_address[1]}"
        proxy.shutdown()
        thread.join()


SYNC = (
    "from pathlib import Path; from src.tracking.journal import unsent; unsent.send_all(Path.cwd())"
)


def test_a_server_whose_answers_come_late(
    servers: tuple[str, str],
    project: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The stage gives it up, in one line, and goes on at full speed; sync has the patience."""
    direct, late = servers
    monkeypatch.setenv("MLFLOW_TRACKING_URI", late)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", PATIENCE)
    with tracking.start(Stage("train")) as run:
        longest = log_losses(run, range(1, 202))
        run.log_artifact("params.yaml", "pictures")
    assert longest < DELAY / 2  # no call waits for the server
    told = capsys.readouterr().err
    assert "points wait in" in told
    assert "Traceback" not in told
    for _ in range(2):  # the second finds nothing to do
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        del environment["MLFLOW_HTTP_REQUEST_TIMEOUT"]  # that of a stage
        subprocess.run([sys.executable, "-c", SYNC], env=environment, check=True)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", direct)
    points = [(step, 1 / step) for step in range(1, 202)]
    assert history(project, finished_run(project), "loss") == points
    assert files_in_store(project) == ["pictures/params.yaml"]
