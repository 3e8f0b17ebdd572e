"""Two people, one server: what the first one ran is found by the second, and goes on there."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from src.plumbing import workspace
from tests.conftest import free_port
from tests.pipeline.clone import commit, new_clone, run

pytestmark = pytest.mark.slow(seconds=90)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """The address of a server that also stores the files of the runs."""
    address, log = f"http://127.0.0.1:{(port := free_port())}", tmp_path / "server.log"
    options = ["--backend-store-uri", f"sqlite:///{tmp_path}/server.db", "--workers", "1"]
    options += ["--artifacts-destination", str(tmp_path / "served"), "--port", str(port)]
    with open(log, "wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", *options],
            env={**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        end = time.monotonic() + 300
        while True:
            try:
                urllib.request.urlopen(f"{address}/health", timeout=5).close()
                break
            except OSError:
                assert process.poll() is None, log.read_text()
                assert time.monotonic() < end, log.read_text()
                time.sleep(0.2)
        yield address
    finally:
        os.killpg(process.pid, signal.SIGKILL)  # the group that this test started
        process.wait()


def test_the_second_clone_finds_the_runs_of_the_first_and_adds_to_them(
    server: str, tmp_path: Path
) -> None:
    from mlflow import MlflowClient

    def as_(user: str, folder: Path, *command: str) -> str:
        given = (f"GIT_AUTHOR_NAME={user}", f"MLFLOW_TRACKING_URI={server}")
        return run(folder, "env", *given, *command)

    first, second = tmp_path / "first", tmp_path / "a folder of another name"
    first.mkdir()
    new_clone(first)
    run(first, "dvc", "remote", "add", "--quiet", "--default", "storage", str(tmp_path / "storage"))
    as_("Ada", first, "dvc", "repro")
    commit(first, "results")
    run(first, "dvc", "push", "--quiet")
    run(tmp_path, "git", "clone", "--quiet", str(first), second.name)

    where = (sys.executable, "-m", "src.where")
    for pulled in (False, True):  # the commit alone leads to the run
        if pulled:
            run(second, "dvc", "pull", "--quiet")
        printed = as_("Grace", second, *where)
        assert printed.count(", by Ada\n") == 2, printed
        there = json.loads(as_("Ada", first, *where, "--json"))["runs"]
        assert there["train"]["address"] in printed
        assert there["overfit-check"]["address"] in printed
    assert "none here" not in printed
    assert "changed since" not in printed

    as_("Grace", second, "dvc", "exp", "run", "--name", "higher", "-S", "lr=3e-3")
    client = MlflowClient(server)
    named = [item for item in client.search_experiments() if item.name != "Default"]
    assert [item.name for item in named] == [workspace.project_name(first)]
    runs = client.search_runs([named[0].experiment_id], "tags.stage = 'train'")
    users = {item.data.tags["mlflow.user"]: item.data.params["lr"] for item in runs}
    assert users == {"Ada": "0.001", "Grace": "0.003"}
    for item in runs:  # val before test, and no charts for the ends of intervals
        names = sorted(name for name in item.data.metrics if not name.startswith("system/"))
        sections = list(dict.fromkeys(name.partition("/")[0] for name in names))
        assert sections == ["train", "val", "zz_test"]
        assert not [name for name in names if name.endswith(("_low", "_high"))]

    # Each finds what they ran.
    mine = json.loads(as_("Grace", second, *where, "higher", "--json"))["runs"]["train"]
    assert mine["run_id"] != there["train"]["run_id"]
