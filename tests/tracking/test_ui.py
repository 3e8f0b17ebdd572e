"""`make ui`: its address, and a real server that shows an artifact and leaves no process."""

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

import psutil
import pytest

from src import ui
from src.base.imports import ROOT
from src.plumbing.errors import InputError
from src.plumbing.process import left_after
from src.tracking.store import pages, store
from tests.conftest import free_port, python, run_main
from tests.tracking.tracked_project import VARIABLES, store_at


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in (*VARIABLES, "MLFLOW_UVICORN_OPTS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("uri", "address"),
    [
        ("", None),
        ("sqlite:////somewhere/mlflow.db", None),
        ("postgresql://me:secret@example.org/runs", None),
        ("http://127.0.0.1:5000", "http://127.0.0.1:5000/"),
        ("https://me:secret@example.org/team/", "https://example.org/team/"),
    ],
)
def test_address_of_a_server_is_without_credentials(
    project: Path, uri: str, address: str | None
) -> None:
    with store_at(uri):
        assert pages.server_address() == address
        assert pages.base_address(project) == (address or "http://127.0.0.1:5000/")


def test_a_server_elsewhere_is_only_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], project: Path
) -> None:
    with store_at("https://me:secret@example.org"):
        code, printed, said = run_main(ui.main, [], monkeypatch, capsys)
    assert (code, said) == (0, "")
    assert printed.endswith("\nhttps://example.org/\n")
    assert "secret" not in printed
    assert list(project.iterdir()) == []


def test_next_free_port() -> None:
    with socket.create_server((pages.HOST, 0)) as busy:
        port = busy.getsockname()[1]
        if port < 65535:
            assert port < ui.free_port(port) <= port + ui.TRIED_PORTS
    with socket.socket() as busy:
        try:
            busy.bind((pages.HOST, 65535))
            busy.listen()
        except OSError:
            pass  # somebody else has it: as good
        with pytest.raises(InputError, match="no free port from 65535 on"):
            ui.free_port(65535)
    for port in (0, -1, 70000):
        with pytest.raises(InputError, match=f"--port must be in 1..65535, got {port}"):
            ui.free_port(port)


def test_address_of_a_server_that_runs(project: Path) -> None:
    note = project / ".cache/ui.json"
    note.parent.mkdir()
    dead = subprocess.Popen(["true"])
    dead.wait()
    with socket.create_server((pages.HOST, 0)) as server:
        port = server.getsockname()[1]
        running = {"pid": os.getpid(), "port": port, "store": "sqlite:///mlflow.db"}
        running["project"] = str(project)
        note.write_text(json.dumps(running))
        assert pages.base_address(project) == f"http://127.0.0.1:{port}/"
        for other in ({"pid": dead.pid}, {"store": "sqlite:///other.db"}, {"port": "x"}):
            note.write_text(json.dumps(running | other))
            assert pages.running_address(project) is None
        note.write_text(json.dumps(running))
        with store_at("https://example.org"):
            assert pages.base_address(project) == "https://example.org/"
    assert pages.running_address(project) is None  # nobody listens any more
    for spoilt in ("", "[]", "{}"):
        note.write_text(spoilt)
        assert pages.running_address(project) is None


@pytest.mark.parametrize("kind", ["garbage", "folder"])
def test_a_file_that_is_no_store_is_one_line(
    kind: str, project: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    file = project / "mlflow.db"
    file.mkdir() if kind == "folder" else file.write_text("garbage " * 100)
    code, _, said = run_main(ui.main, [], monkeypatch, capfd)
    start, line = said.splitlines()
    assert (code, start) == (2, "starting MLflow's server ...")
    assert line.startswith(f"the store of the runs cannot be opened: {file} ")


def test_in_a_subfolder_nothing_is_made(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (project / "dvc.yaml").touch()
    (project / "params.yaml").touch()
    (project / "src").mkdir()
    monkeypatch.chdir(project / "src")
    line = f"run this in the folder of the project: `cd {project}` first\n"
    assert run_main(ui.main, [], monkeypatch, capsys) == (2, "", line)
    assert sorted(path.name for path in project.rglob("*")) == ["dvc.yaml", "params.yaml", "src"]


def test_a_port_that_gives_back_what_was_asked_is_asked_again(tmp_path: Path) -> None:
    """A connection from a port to itself: such a number may be given away as the nearer end."""
    asked = []
    with socket.create_server((pages.HOST, 0)) as server:

        def respond() -> None:
            for healthy in (False, True):
                connection, _ = server.accept()
                with connection:
                    asked.append(connection.recv(4096))
                    good = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
                    connection.sendall(good if healthy else asked[0])

        thread = threading.Thread(target=respond)
        thread.start()
        address = f"http://127.0.0.1:{server.getsockname()[1]}/"
        goes_on: Any = SimpleNamespace(poll=lambda: None)
        ui._wait_until_up(goes_on, address, tmp_path / "log")
        thread.join()
    assert len(asked) == 2


class Running:
    """The user interface as a process, and the address that it printed."""

    def __init__(self, port: int):
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-m", "src.ui", "--port", str(port)]
        self.process = subprocess.Popen(
            command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        assert self.process.stdout
        self.address = self.process.stdout.readline().strip()

    def server(self) -> list[psutil.Process]:
        """The processes of the server that it started: a session of their own."""
        listing = subprocess.check_output(["ps", "-eo", "pid=,ppid=,sess="], text=True)
        rows = [[int(number) for number in line.split()] for line in listing.splitlines()]
        sessions = {pid for pid, parent, _ in rows if parent == self.process.pid}
        return [psutil.Process(pid) for pid, _, session in rows if session in sessions]

    def end(self, number: signal.Signals) -> tuple[int, str]:
        """The exit code, and what stood on stderr."""
        self.process.send_signal(number)
        _, error = self.process.communicate(timeout=60)
        return self.process.returncode, error


@pytest.fixture
def start() -> Iterator[Any]:
    running: list[Running] = []

    def run(port: int) -> Running:
        running.append(Running(port))
        return running[-1]

    yield run
    for item in running:
        if item.process.poll() is None:
            item.end(signal.SIGTERM)


def get(address: str) -> bytes:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(address, timeout=30) as response:
        return bytes(response.read())


@pytest.mark.slow
def test_serves_runs_and_artifacts_and_leaves_nothing(project: Path, start: Any) -> None:
    from mlflow import MlflowClient

    client, experiment_id = store.open_store(project)
    run = client.create_run(experiment_id, run_name="train lr=0.003")
    client.log_text(run.info.run_id, "curves", "train/curves.txt")
    with socket.create_server((pages.HOST, port := free_port())):
        running = start(port)
        base, _, page = running.address.partition("#")
        assert page == f"/experiments/{experiment_id}/runs?workflowType=machine_learning"
        assert base.startswith("http://127.0.0.1:")
        assert base != f"http://127.0.0.1:{port}/"  # that one is taken
    assert b"<html" in get(base)
    path = f"get-artifact?path=train/curves.txt&run_uuid={run.info.run_id}"
    assert get(base + path) == b"curves"
    listing = json.loads(get(f"{base}ajax-api/2.0/mlflow/runs/get?run_id={run.info.run_id}"))
    made = MlflowClient(base).create_experiment("made on the pages")
    assert client.get_experiment(made).artifact_location == f"{project.as_uri()}/mlartifacts/{made}"
    assert listing["run"]["info"]["run_name"] == "train lr=0.003"
    assert pages.base_address(project) == base
    processes = running.server()
    assert 1 <= len(processes) <= 3
    code, error = running.end(signal.SIGINT)
    assert (code, error) == (0, "starting MLflow's server ...\n")
    assert pages.running_address(project) is None
    assert not left_after(processes, 30)

    running = start(port)
    assert running.address.startswith(f"http://127.0.0.1:{port}/#")
    processes = running.server()
    running.process.send_signal(signal.SIGTERM)  # a closing terminal may send two
    code, error = running.end(signal.SIGTERM)
    assert (code, error.splitlines()[-1]) == (143, "terminated")
    assert not left_after(processes, 30)


@pytest.mark.slow
def test_a_server_that_does_not_start_is_one_line(
    monkeypatch: pytest.MonkeyPatch, start: Any
) -> None:
    monkeypatch.setenv("MLFLOW_UVICORN_OPTS", "--no-such-option")
    running = start(5000)
    _, error = running.process.communicate(timeout=600)
    assert running.process.returncode == 1
    assert error.splitlines()[1].startswith("the MLflow server did not start (")
    assert len(error.splitlines()) == 2


def ask(base: str, name: str) -> tuple[int, str]:
    """What a browser gets that knows the server by another name and asks for the list of runs."""
    connection = http.client.HTTPConnection(urlsplit(base).netloc, timeout=30)
    headers = {
        "Host": name,
        "Origin": f"https://{name}",
        "Content-Type": "application/json",
    }
    body = json.dumps({"experiment_ids": ["1"]})
    connection.request("POST", "/ajax-api/2.0/mlflow/runs/search", body, headers)
    answer = connection.getresponse()
    return answer.status, answer.read().decode()


@pytest.mark.slow
def test_the_variables_that_help_names_let_another_host_name_in(
    project: Path, monkeypatch: pytest.MonkeyPatch, start: Any
) -> None:
    """As behind a proxy. Two are needed: with the first alone the lists of runs stay empty."""
    store.open_store(project)
    name = "runs.example.org"
    told = " ".join(python(ROOT, "-m", "src.ui", "--help").stdout.split())
    assert "Invalid Host header" in told
    pairs = re.findall(r"(MLFLOW_\w+) to (?:the [\w ]+, )?(\S+)[,.]", told)
    assert len(pairs) == 2
    for count, found in enumerate(
        [(403, "Invalid Host header"), (403, "Cross-origin request blocked"), (200, "")]
    ):
        for variable, value in pairs[:count]:
            monkeypatch.setenv(variable, value.replace("NAME", name))
        running = start(free_port())
        base = running.address.partition("#")[0]
        status, text = ask(base, name)
        assert status == found[0]
        assert found[1] in text
        assert b"<html" in get(base)  # as before under its own
        running.end(signal.SIGINT)


@pytest.mark.slow
def test_a_server_that_is_killed_ends_the_wait_for_it(project: Path, start: Any) -> None:
    """Whichever of its processes."""
    for number in (0, -1):
        running = start(free_port())
        processes = sorted(running.server(), key=lambda one: one.pid)
        processes[number].kill()
        _, error = running.process.communicate(timeout=60)
        assert running.process.returncode == 1
        assert error.splitlines()[-1].startswith("the MLflow server ended (exit code ")
        assert len(error.splitlines()) == 2
        assert not left_after(processes, 30)
