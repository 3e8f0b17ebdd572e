"""`python -m src.verify` before anything runs, and the tag of a run. See test_slow_verify.py."""

import ctypes
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from src import verify
from src.base.imports import ROOT
from src.experiments.target import resolve
from src.experiments.verify import fresh_clone, tiers
from src.plumbing import process
from src.plumbing.errors import InputError
from src.tracking import lookup
from tests.experiments.conftest import Call, NewRun, refusal
from tests.experiments.stored_results import Project
from tests.tracking.tracked_project import edit, git


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    return Project(tmp_path / "made").copy(tmp_path / "project", monkeypatch)


def test_a_lock_that_cannot_be_read_is_said_in_a_line(project: Project, call: Call) -> None:
    edit("dvc.lock", "schema:", "<<<<<<< HEAD\nschema:")
    git("commit", "--quiet", "--all", "--message", "broken")
    assert "dvc.lock cannot be read" in refusal(call(verify.main, "HEAD"))
    with pytest.raises(InputError, match=r"dvc\.lock cannot be read"):
        tiers.judge(resolve("HEAD"), project.root, same_kind=None)


def test_a_tier_that_holds_no_more_is_taken_back(project: Project, new_run: NewRun) -> None:
    for before, after in (({verify.TAG: "bit"}, verify.NO), ({}, None)):
        run_id = new_run(before)
        verify._take_back(project.root, run_id)
        assert lookup.tags_of(project.root, run_id).get(verify.TAG) == after


@pytest.mark.slow
def test_data_that_cannot_be_brought_say_what_the_remote_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A repository with data that DVC tracks and that lie nowhere."""
    folder = tmp_path / "with-data"
    folder.mkdir()
    monkeypatch.chdir(folder)

    def dvc(*arguments: str) -> None:
        environment = fresh_clone.isolated(folder)
        subprocess.run(["dvc", *arguments], check=True, capture_output=True, env=environment)

    git("init", "--quiet")
    dvc("init", "--quiet")
    Path("data.txt").write_text("data")
    dvc("add", "--quiet", "data.txt")
    dvc("remote", "add", "--default", "far", "gs://somebody:s3cret@bucket/store")
    shutil.rmtree(".dvc/cache")
    git("add", ".")
    git("commit", "--quiet", "--message", "data")
    with (
        pytest.raises(InputError, match=r"the data data\.txt are neither in") as caught,
        fresh_clone.clone_of(folder, "HEAD"),
    ):
        pass
    said = str(caught.value).partition("`dvc pull` ")[2]
    assert "gs is supported, but requires 'dvc-gs'" in said
    assert "s3cret" not in said


def test_the_password_of_a_remote_is_not_shown() -> None:
    url = "https://somebody:s3/cr@t@example.org/store"
    printed = f"ERROR: an earlier one\nERROR: cannot connect to {url}/files: refused:\n\nHelp?\n"
    shown = "cannot connect to https://example.org/store/files: refused"
    assert fresh_clone._last_error(printed, f"far\t{url} (default)\n") == shown
    assert fresh_clone._last_error("no remote\n", "") == "no remote"


# Takes a second to end, as one that finishes a step; with "stuck" it never does.
STAGE = """
import os, sys, time
from src.plumbing import command, process
def work():
    process.end_with_parents()
    print("stage", os.getpid(), flush=True)
    while True:
        try:
            time.sleep(600)
        except process.Terminated:
            if "stuck" not in sys.argv:
                break
    time.sleep(1)
    open("written", "w").close()
sys.exit(command.guarded(work))
"""
VERIFY = """
import sys
from pathlib import Path
from src.experiments.verify import fresh_clone
from src.plumbing import process
process.handle_signals()
process.INSIST_SECONDS = float(sys.argv[1])
try:
    fresh_clone.run_pipeline(Path.cwd())
finally:
    print("ended", Path("written").exists())
"""


@pytest.fixture
def adopts_orphans() -> Iterator[None]:
    """Adopts orphans and never reaps them, as a container's first process may: they stay listed."""
    if sys.platform != "linux":
        pytest.skip("only Linux gives orphans to another process than the first")
    set_child_subreaper, libc = 36, ctypes.CDLL(None)  # linux/prctl.h
    assert libc.prctl(set_child_subreaper, 1, 0, 0, 0) == 0
    yield
    assert libc.prctl(set_child_subreaper, 0, 0, 0, 0) == 0
    for child in psutil.Process().children():
        if not process.runs(child):
            os.waitpid(child.pid, 0)


# DVC runs a stage through $SHELL: bash becomes the stage, dash stays between.
@pytest.mark.slow(seconds=3)
@pytest.mark.usefixtures("adopts_orphans")
@pytest.mark.parametrize("shell", ["/bin/bash", "/bin/sh"])
@pytest.mark.parametrize(("stuck", "seconds"), [("", 600.0), ("stuck", 0.5)])
def test_ended_it_waits_for_its_stage(
    stuck: str, seconds: float, shell: str, tmp_path: Path
) -> None:
    """Else the stage would write into the folder that is being removed."""
    (tmp_path / ".dvc").mkdir()
    (tmp_path / ".dvc/config").write_text("[core]\n    no_scm = true\n    analytics = false\n")
    (tmp_path / "stage.py").write_text(STAGE)
    (tmp_path / "dvc.yaml").write_text(f"stages: {{a: {{cmd: python stage.py {stuck}}}}}\n")
    verifying = subprocess.Popen(
        [sys.executable, "-c", VERIFY, str(seconds)],
        cwd=tmp_path,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "SHELL": shell},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert verifying.stderr is not None
    lines = iter(verifying.stderr.readline, "")
    stage = next(line for line in lines if line.startswith("stage "))
    verifying.terminate()
    printed, _ = verifying.communicate(timeout=60)
    assert printed == f"ended {not stuck}\n"
    with suppress(psutil.NoSuchProcess):
        assert not process.runs(psutil.Process(int(stage.split()[1])))
