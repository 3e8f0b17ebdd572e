"""The page about a team: PostgreSQL, MLflow's server, an S3 server and two clones, all here."""

import json
import os
import pwd
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import free_port
from tests.docs import pages
from tests.docs.listed import TEAM
from tests.pipeline.clone import environment

BINARIES = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
pytestmark = [
    pytest.mark.slow(seconds=170),
    pytest.mark.skipif(not BINARIES, reason="needs apt-get install postgresql"),
]
PASSWORD = "not in a file of the project"
SET_UP = "make setup && source .venv/bin/activate && "
INSTALLS = ("sudo apt-get ", "uv pip install ")
HOST = "mlflow.example.org:5000"


@contextmanager
def running(
    command: list[str], log: Path, env: Mapping[str, str], **options: Any
) -> Iterator[subprocess.Popen[bytes]]:
    """A server in a process group of its own, which ends with the block."""
    with open(log, "ab") as output:
        process = subprocess.Popen(
            command, env=env, stdout=output, stderr=output, start_new_session=True, **options
        )
    try:
        yield process
    finally:
        os.killpg(process.pid, signal.SIGINT)  # PostgreSQL would leave shared memory at SIGKILL
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def wait_until(answers: list[str], process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + 300
    while subprocess.run(answers, capture_output=True).returncode:
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < end, log.read_text()
        time.sleep(0.2)


def up(address: str) -> list[str]:
    return ["curl", "--silent", "--output", "/dev/null", "--max-time", "5", address]


@pytest.fixture
def database(tmp_path: Path) -> Iterator[dict[str, str]]:
    """A PostgreSQL server; what its clients read from the environment, as its owner. It does not
    run as root, nor in a folder that only root can enter."""
    owner = "postgres" if os.geteuid() == 0 else None
    folder, log = Path(tempfile.mkdtemp(prefix="team-")), tmp_path / "postgres.log"
    if owner:
        shutil.chown(folder, owner)
    name = owner or pwd.getpwuid(os.geteuid()).pw_name
    there = {"PGHOST": str(folder), "PGPORT": str(free_port()), "PGUSER": name}
    env = {**os.environ, "LC_ALL": "C.UTF-8"}
    run_as: dict[str, Any] = {"user": owner, "group": owner, "extra_groups": []} if owner else {}
    methods = ("--auth-local=trust", "--auth-host=scram-sha-256")
    initdb = [str(BINARIES[-1] / "initdb"), *methods, "--no-sync", f"--pgdata={folder}/data"]
    options = ["-D", f"{folder}/data", "-k", str(folder), "-h", "127.0.0.1", "-p", there["PGPORT"]]
    ready = [str(BINARIES[-1] / "pg_isready"), "--host", str(folder), "--port", there["PGPORT"]]
    try:
        subprocess.run(initdb, cwd=folder, env=env, check=True, stdout=subprocess.PIPE, **run_as)
        server = [str(BINARIES[-1] / "postgres"), *options]
        with running(server, log, env, cwd=folder, **run_as) as process:
            wait_until(ready, process, log)
            yield there
    finally:
        shutil.rmtree(folder)


@pytest.fixture
def s3(tmp_path: Path) -> Iterator[str]:
    """The address of an S3 server with an empty bucket `clothes`."""
    port, log = free_port(), tmp_path / "s3.log"
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with running(command, log, os.environ) as process:
        wait_until(up(address := f"http://127.0.0.1:{port}"), process, log)
        request = urllib.request.Request(f"{address}/clothes", method="PUT")
        urllib.request.urlopen(request, timeout=30).close()
        yield address


def script(heading: str, **instead: str) -> list[str]:
    """The commands of a section that can be run, with what stands here for things of the page."""
    commands = [
        command for command in pages.section(TEAM, heading) if not command.startswith(INSTALLS)
    ]
    for old, new in instead.items():
        old = {"host": HOST, "s3": "https://s3.example.org", "url": "<your repository>"}[old]
        assert old in pages.text_of(TEAM)
        commands = [command.replace(old, new) for command in commands]
    return commands


def status_of(address: str, host: str) -> int:
    url = f"{address}/api/2.0/mlflow/experiments/get?experiment_id=0"
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers={"Host": host})) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def test_two_people_share_a_server_and_a_remote(
    clone: Path, tmp_path: Path, database: dict[str, str], s3: str
) -> None:
    host = f"localhost:{free_port()}"
    (tmp_path / "pgpass").write_text(f"127.0.0.1:{database['PGPORT']}:mlflow:mlflow:{PASSWORD}\n")
    (tmp_path / "pgpass").chmod(0o600)
    *database_commands, serve = script("The server, once", host=host)
    path = f"{BINARIES[-1]}:{os.environ['PATH']}"
    for command in database_commands:  # the first one asks for the new password, twice
        subprocess.run(
            command.removeprefix("sudo -u postgres ").split(),
            env={**os.environ, **database, "PATH": path},
            input=f"{PASSWORD}\n{PASSWORD}\n".encode(),
            start_new_session=True,  # else it would ask a terminal
            check=True,
        )
    served = {
        **environment(),
        "PGPORT": database["PGPORT"],
        "PGPASSFILE": str(tmp_path / "pgpass"),
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_WORKERS": "1",
    }
    serve = serve.replace("0.0.0.0 --port 5000", f"127.0.0.1 --port {host.partition(':')[2]}")
    serve = serve.replace("/srv/mlflow", str(tmp_path / "served"))
    log = tmp_path / "mlflow.log"

    @contextmanager
    def server() -> Iterator[None]:
        with running(["bash", "-c", f"exec {serve}"], log, served) as process:
            wait_until([*up(f"http://{host}/health"), "--fail"], process, log)
            yield

    exports = script("Everyone, in each shell", host=host)
    assert len(exports) == 2

    def as_(user: str, folder: Path, *commands: str) -> str:
        (tmp_path / f"{user}.config").write_text(f"[user]\n\tname = {user}\n")
        env = {**environment(), "GIT_CONFIG_GLOBAL": str(tmp_path / f"{user}.config")}
        del env["GIT_AUTHOR_NAME"]  # git's user.name it is
        ended = subprocess.run(
            ["bash", "-exc", "\n".join([*exports, *commands])],
            cwd=folder, env=env, capture_output=True, text=True, timeout=1800,
        )  # fmt: skip
        printed = ended.stdout + ended.stderr
        assert ended.returncode == 0, printed
        assert "Traceback" not in printed, printed
        return printed

    subprocess.run(["git", "init", "-q", "--bare", "-b", "main", tmp_path / "origin.git"])
    as_("Ada", clone, f"git remote add origin {tmp_path}/origin.git", "git push -qu origin main")
    with server():
        assert status_of(f"http://{host}", host) == 200
        assert status_of(f"http://{host}", "another.example.org") == 403
        as_("Ada", clone, *script("Ada", s3=s3))
        *ben, try_it, hand_on = script("Ben", url=f"{tmp_path}/origin.git")[:-2]
        show = script("Ben")[-2:]
        printed = as_("Ben", tmp_path, *(command.replace(SET_UP, "") for command in ben))
        assert printed.count(", by Ada\n") == 2, printed
        [shown] = pages.blocks(TEAM, "")
        assert shown.replace(HOST, host).partition("/runs/")[0] in printed, printed
    other = tmp_path / "elsewhere"
    assert "wait in" in as_("Ben", other, try_it)
    with server():
        printed = as_("Ben", other, hand_on, *script("When the server is down"))
        assert re.search(r"(?m)^sync: \d+ points and \d+ files of \d runs? sent to http", printed)
        printed = as_("Ada", clone, *show)
        assert re.search(r"(?m)^  train +train label_smoothing=0.1, by Ben$", printed), printed
        url = f"http://{host}/api/2.0/mlflow/experiments/search?max_results=9"
        with urllib.request.urlopen(url, timeout=60) as answer:
            found = json.load(answer)["experiments"]
        names = {item["name"] for item in found} - {"Default"}
        assert names == {"image-experiments"}
    assert len(list((tmp_path / "served").rglob("model.safetensors"))) == 2
    told = subprocess.run(["git", "grep", "--quiet", "-F", PASSWORD], cwd=other)
    assert told.returncode == 1  # it stands nowhere
    used = ("The server, once", "Everyone, in each shell", "Ada", "Ben", "When the server is down")
    known = [command for heading in used for command in pages.section(TEAM, heading)]
    assert known == pages.commands(TEAM)
