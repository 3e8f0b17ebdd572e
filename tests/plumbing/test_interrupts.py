"""Ctrl-C at any point of a stage is one line: while it imports, reads, trains, writes and ends."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from src.base.imports import ROOT
from tests.conftest import set_params

# Python imports this when it starts. The process interrupts itself where it first opens or imports
# what the variable POINT names.
CUSTOM = """
import os, signal, sys

wanted = os.environ.pop("POINT").split(":")

def hook(event, arguments):
    if event == wanted[0] and wanted[1] in str(arguments[0]):
        wanted[1] = "/nothing"
        os.kill(os.getpid(), signal.SIGINT)

sys.addaudithook(hook)
"""


def interrupted(project: Path, folder: Path, stage: str, point: str) -> tuple[int, str]:
    """Exit code and stderr of a stage that is interrupted at a point."""
    (folder / "sitecustomize.py").write_text(CUSTOM)
    ended = subprocess.run(
        [sys.executable, "-m", f"src.{stage}"],
        cwd=project,
        env={**os.environ, "PYTHONPATH": str(folder), "POINT": point},
        capture_output=True,
        text=True,
        timeout=600,
    )
    return ended.returncode, ended.stderr


EARLY = ["import:src.plumbing.dvc_files", "import:yaml", "open:params.yaml"]
PREPARE = ["import:numpy", "import:PIL", "open:prepared"]
TRAIN = ["import:torch", "import:timm", "open:train.csv", "open:weights/none", "open:val-images"]
WRITING = ["open:.cache/checkpoints", "open:model.json", "open:history.csv"]
POINTS = [("prepare", point) for point in (*EARLY, *PREPARE)]
POINTS += [("train", point) for point in (*EARLY, *TRAIN, *WRITING)]


@pytest.mark.slow(seconds=10)
@pytest.mark.parametrize(("stage", "point"), POINTS)
def test_an_interrupt_is_one_line(copied: Path, tmp_path: Path, stage: str, point: str) -> None:
    set_params(copied, epochs=1)
    code, errors = interrupted(copied, tmp_path, stage, point)
    # Where a text was being executed, as of a dataclass, Python itself ends by the signal.
    assert code in (130, -signal.SIGINT), (code, errors)
    assert errors.splitlines()[-1] == "interrupted"
    assert "Traceback" not in errors


ENDS = """
import sys, threading, time
from src.plumbing.command import guarded

def work():
    threading.Thread(target=time.sleep, args=(60,)).start()
    print("ready", flush=True)
    time.sleep(60)

sys.exit(guarded(work))
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_second_one_while_it_ends_says_nothing(number: signal.Signals) -> None:
    """Python waits for threads then, and for what is to be done at its end."""
    process = subprocess.Popen(
        [sys.executable, "-c", ENDS],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout
    assert process.stderr
    assert process.stdout.readline() == "ready\n"
    process.send_signal(number)
    assert process.stderr.readline() in ("interrupted\n", "terminated\n")
    process.send_signal(number)
    _, errors = process.communicate(timeout=30)
    assert errors == ""
    assert process.returncode == -number
