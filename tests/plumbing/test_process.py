"""How a stage's process ends, and that it has its files to itself: in real processes."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from src.base.imports import ROOT
from src.data.packed import PackedSplit
from src.experiments.queue import tasks
from src.model.saved import load_model
from src.plumbing.errors import InputError
from src.plumbing.process import runs, wait_for
from src.plumbing.stage import Stage
from tests.conftest import python, set_params, working_in

READY = "print('ready', flush=True)\n"
# A loop that ends when it is asked to, and one that goes on.
LOOP = """
import errno, sys, time
from src.plumbing import process
from src.plumbing.command import guarded
def work():
    with process.deferred() as stopping:
        print("ready", flush=True)
        while not ({until}):
            time.sleep(0.01)
        print("left", flush=True)
        {error}
    print("not reached")
sys.exit(guarded(work))
"""


UNDER_DVC = {**os.environ, "DVC_STAGE": "train", "PYTHONPATH": str(ROOT)}


def begin(*arguments: str, **options: object) -> "subprocess.Popen[str]":
    """A Python with these arguments, whose output can be read."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    command = [sys.executable, *arguments]
    return subprocess.Popen(command, text=True, **(pipes | options))  # type: ignore[call-overload]


def start(code: str, *arguments: str, **options: object) -> "subprocess.Popen[str]":
    """A process that has printed `ready`."""
    process = begin("-c", code, *arguments, **options)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def end(process: "subprocess.Popen[str]") -> tuple[int, str, str]:
    """(exit code, stdout, stderr) of a process that comes to its end."""
    printed, errors = process.communicate(timeout=120)
    return process.returncode, printed, errors


@pytest.mark.skipif(sys.platform != "linux", reason="GNU's OpenMP tells what it read")
@pytest.mark.parametrize(("given", "spins"), [(None, False), ("ACTIVE", True)])
def test_threads_that_wait_leave_the_cores_to_others(given: str | None, spins: bool) -> None:
    """Unless the user wants them to spin. The variable is read when torch is loaded."""
    environment = {key: value for key, value in os.environ.items() if key != "OMP_WAIT_POLICY"}
    environment |= {"OMP_DISPLAY_ENV": "VERBOSE"} | ({"OMP_WAIT_POLICY": given} if given else {})
    code = "from src.plumbing import command; command.guarded(lambda: __import__('torch'))"
    ended, _, errors = end(begin("-c", code, env=environment))
    assert ended == 0
    assert ("GOMP_SPINCOUNT = '0'" not in errors) == spins
    assert "GOMP_SPINCOUNT" in errors


@pytest.mark.parametrize(
    ("number", "code", "line"),
    [
        (signal.SIGTERM, 143, "terminated\n"),
        (signal.SIGHUP, 143, "terminated\n"),
        (signal.SIGINT, 130, "interrupted\n"),
    ],
)
def test_a_signal_is_a_line_and_a_code(number: int, code: int, line: str) -> None:
    work = f"def work():\n    {READY}    time.sleep(60)\n"
    process = start(
        f"import sys, time\nfrom src.plumbing.command import guarded\n{work}sys.exit(guarded(work))"
    )
    process.send_signal(number)
    assert end(process) == (code, "", line)


# Whoever pressed Ctrl-C relies on the checkpoint that could not be written.
FULL = "raise OSError(errno.ENOSPC, 'No space left on device', 'checkpoint.pt')"


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        ("", 130, "interrupted\n"),
        ("raise RuntimeError('a worker was killed')", 130, "interrupted\n"),
        (FULL, 1, "cannot write checkpoint.pt: No space left on device\n"),
    ],
)
def test_a_loop_takes_a_signal_where_it_wants(error: str, code: int, line: str) -> None:
    process = start(LOOP.format(until="stopping()", error=error))
    process.send_signal(signal.SIGINT)
    assert end(process) == (code, "left\n", line)


def test_an_error_without_a_signal_stays_an_error() -> None:
    _, _, errors = end(start(LOOP.format(until="True", error="raise RuntimeError('x')")))
    assert "RuntimeError: x" in errors


def test_a_second_signal_does_not_wait() -> None:
    asked = "stopping() and (print('asked', flush=True), time.sleep(60))"
    process = start(LOOP.format(until=asked, error=""))
    process.send_signal(signal.SIGTERM)
    assert process.stdout is not None
    assert process.stdout.readline() == "asked\n"
    process.send_signal(signal.SIGTERM)
    assert end(process) == (143, "", "terminated\n")


@pytest.mark.parametrize("killed", ["dvc", "shell"])
def test_a_stage_ends_with_the_process_that_ran_it(killed: str, tmp_path: Path) -> None:
    """dvc -> shell -> stage, and one of the two above the stage is killed."""
    stage = tmp_path / "stage.py"
    stage.write_text(
        "import os, sys, time\nfrom src.plumbing import command, process\n"
        "def work():\n    process.end_with_parents()\n"
        "    print(os.getppid(), flush=True)\n    time.sleep(60)\n"
        "sys.exit(command.guarded(work))"
    )
    # `; true` keeps the shell from becoming the stage itself.
    command = f"{sys.executable} {stage}; true"
    code = f"import subprocess\nsubprocess.run(['/bin/sh', '-c', {command!r}])"
    dvc = begin("-c", code, env=UNDER_DVC)
    assert dvc.stdout is not None
    shell = int(dvc.stdout.readline())
    os.kill(dvc.pid if killed == "dvc" else shell, signal.SIGKILL)
    _, _, errors = end(dvc)  # returns when the stage has closed its end
    assert errors.endswith("so the stage ends too\nterminated\n")


@pytest.mark.parametrize("through_a_shell", [False, True])
def test_a_stage_whose_dvc_died_before_it_looked_ends_too(
    through_a_shell: bool, tmp_path: Path
) -> None:
    """Python takes a while to start. The stage that looks too late sees no change any more."""
    stage = tmp_path / "stage.py"
    stage.write_text(
        "import psutil, sys, time\nfrom src.plumbing import command, process\n"
        "dvc = psutil.Process(int(sys.argv[1]))\n"
        "def work():\n"
        "    while dvc.status() != psutil.STATUS_ZOMBIE:\n        time.sleep(0.01)\n"
        "    process.end_with_parents()\n    time.sleep(60)\n"
        "sys.exit(command.guarded(work))"
    )
    command = f"[{sys.executable!r}, {str(stage)!r}, str(os.getpid())]"
    if through_a_shell:
        command = f"['/bin/sh', '-c', ' '.join({command}) + '; true']"
    code = f"import os, subprocess\nsubprocess.Popen({command})\nos.kill(os.getpid(), 9)"
    _, _, errors = end(begin("-c", code, env=UNDER_DVC, start_new_session=True))
    assert errors.endswith("so the stage ends too\nterminated\n")


def test_a_name_that_the_terminal_cannot_show_ends_nothing() -> None:
    code = "from src.plumbing.command import guarded; guarded(lambda: print('caf\u00e9 \u0444'))"
    ended = python(ROOT, "-c", code, PYTHONIOENCODING="ascii")
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "caf\\xe9 \\u0444\n", "")


def test_a_process_that_ended_does_not_run_also_when_nobody_asked_how() -> None:
    ended = subprocess.Popen([sys.executable, "-c", "pass"])
    listed = psutil.Process(ended.pid)
    while listed.status() != psutil.STATUS_ZOMBIE:
        time.sleep(0.01)
    begun = time.monotonic()
    wait_for([listed], 600)
    assert time.monotonic() - begun < 300
    assert not tasks._alive(SimpleNamespace(pid=ended.pid, returncode=None))
    ended.wait()
    assert not runs(listed)
    assert not tasks._alive(SimpleNamespace(pid=ended.pid, returncode=None))


def test_a_process_that_goes_on_is_killed_when_its_time_is_over() -> None:
    goes_on = start(f"{READY}import time\ntime.sleep(600)")
    assert runs(psutil.Process(goes_on.pid))
    assert tasks._alive(SimpleNamespace(pid=goes_on.pid, returncode=None))
    wait_for([psutil.Process(goes_on.pid)], 0)
    assert goes_on.wait(timeout=120) == -signal.SIGKILL


def test_a_worker_of_the_queue_that_starts_an_experiment_is_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between fork and exec the new process has the words of the worker."""
    monkeypatch.chdir(tmp_path)
    code = f"import os, sys\nif os.fork():\n    {READY}sys.stdin.read()"
    names = ("queue-worker", "queue-worker", "another")
    started = [start(code, name, stdin=subprocess.PIPE) for name in names]
    assert {one.pid for one in tasks.workers()} == {process.pid for process in started[:2]}
    for process in started:
        end(process)


def test_two_processes_of_one_stage_work_one_after_the_other(project: Path) -> None:
    """The second waits for the first, which holds the stage's lock, and says so."""
    code = (
        "from pathlib import Path\nimport sys\nfrom src.plumbing import locks\n"
        "with locks.hold(Path('.cache/locks/stage-prepare.lock'), 'runs'):\n"
        f"    {READY}    sys.stdin.read()\n    print(Path('data/prepared').exists())"
    )
    first = start(code, cwd=project, stdin=subprocess.PIPE)
    second = begin("-m", "src.prepare", cwd=project, stdout=subprocess.DEVNULL)
    assert second.stderr is not None
    waits = f"process {first.pid} runs prepare here; waiting until it ends\n"
    assert waits in iter(second.stderr.readline, "")
    assert end(first)[1] == "False\n"
    assert end(second) == (0, None, "")
    assert (project / "data/prepared/meta.json").exists()


def test_an_input_that_dvc_chose_before_an_edit_is_refused(copied: Path) -> None:
    """DVC fills in `${train_on}` at its start; params.yaml may say something else by now."""
    with working_in(copied):
        assert Stage("train").entry.cmd == "python -m src.train 'data/prepared' 'data/weights/none'"
    set_params(copied, train_on="subset")
    ended = python(copied, "-m", "src.train", "data/prepared", "data/weights/none")
    assert ended.returncode == 1
    assert ended.stderr.startswith("train: params.yaml changed while an earlier stage ran")
    assert len(ended.stderr.splitlines()) == 1


@pytest.mark.parametrize("argument", ["--help", "lr=3"])
def test_arguments_given_by_hand_are_refused(copied: Path, argument: str) -> None:
    ended = python(copied, "-m", "src.train", argument)
    assert ended.returncode == 2
    assert ended.stderr.startswith("train takes no arguments: its settings stand in params.yaml")


def test_a_missing_package_says_what_to_do(project: Path) -> None:
    (project / "src/images/packing.py").write_text("import no_such_package\n")
    ended = python(project, "-m", "src.prepare")
    assert ended.returncode == 2
    assert ended.stderr.startswith(f"no_such_package is not installed in {sys.executable}: ")


# Root reads everything, so the process gives up its rights.
CLOSED = """
import os, sys
from src.plumbing.command import guarded
if os.getuid() == 0:
    os.setgroups([]); os.setgid(65534); os.setuid(65534)
sys.exit(guarded(lambda: open(sys.argv[1], sys.argv[2]).close()))
"""


def test_no_permission_to_read_differs_from_a_failure_to_write() -> None:
    with tempfile.TemporaryDirectory() as name:  # pytest's own folders are closed to others
        folder = Path(name)
        folder.chmod(0o755)
        (folder / "locked").mkdir(mode=0o700)
        for file in ("table.csv", "locked/table.csv"):
            (folder / file).touch(mode=0o600)
        for path, mode, code, line in (
            ("table.csv", "r", 2, "table.csv cannot be read (no permission): `chmod u+rX "),
            ("locked/table.csv", "r", 2, "locked cannot be read (no permission): `chmod u+rX "),
            ("new.csv", "w", 1, "cannot write "),
            ("x" * 300, "r", 2, "the name is too long: give a shorter one"),
        ):
            ended = python(ROOT, "-c", CLOSED, str(folder / path), mode)
            assert ended.returncode == code, ended.stderr
            assert line in ended.stderr
            assert len(ended.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("stage", "ask", "words"),
    [
        ("train", lambda: load_model("models"), "models holds no model"),
        (
            "prepare",
            lambda: PackedSplit("data/prepared", "val"),
            "data/prepared holds no packed data set",
        ),
    ],
)
def test_what_a_stage_is_about_to_make_is_not_missing(
    stage: str, ask: Callable[[], object], words: str, tmp_path: Path
) -> None:
    """DVC deletes outputs before a stage runs. The data of `prepare` are one that nobody named."""
    code = (
        "from pathlib import Path\nfrom src.plumbing import locks\nimport sys\n"
        f"with locks.hold(Path('.cache/locks/stage-{stage}.lock'), 'runs'):\n"
        f"    {READY}    sys.stdin.read()"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    running = start(code, cwd=tmp_path, stdin=subprocess.PIPE, env=environment)
    with working_in(tmp_path):
        line = f"{words} yet: process {running.pid} runs {stage} here; wait until it ends"
        with pytest.raises(InputError, match=line):
            ask()
        end(running)
        with pytest.raises(InputError, match=f"run `dvc repro {stage}`"):
            ask()


def test_a_block_that_does_not_take_a_signal_gets_it_all_the_same() -> None:
    """It may wait for what never comes: a lock, or a helper that stands still."""
    code = LOOP.format(until="time.sleep(600)", error="").replace(
        "    with process", "    process.TAKE_SECONDS = 0.5\n    with process"
    )
    process = start(code)
    begun = time.monotonic()
    process.send_signal(signal.SIGTERM)
    assert end(process) == (143, "", "terminated\n")
    assert time.monotonic() - begun < 60


def test_a_block_that_is_at_work_keeps_the_signal_for_later() -> None:
    """A validation of minutes ends first; what was learnt since the last checkpoint is not lost."""
    validation = "for _ in range(100): process.at_work(); time.sleep(0.02)"
    code = LOOP.format(until="stopping()", error="").replace(
        "    with process", "    process.TAKE_SECONDS = 0.5\n    with process"
    )
    code = code.replace("        while not", f"        {validation}\n        while not")
    process = start(code)
    process.send_signal(signal.SIGTERM)
    assert end(process) == (143, "left\n", "terminated\n")


def test_a_block_that_takes_a_signal_has_the_time_it_needs() -> None:
    """To write a large checkpoint, say."""
    code = LOOP.format(until="stopping()", error="time.sleep(2)").replace(
        "    with process", "    process.TAKE_SECONDS = 0.5\n    with process"
    )
    process = start(code)
    process.send_signal(signal.SIGTERM)
    assert end(process) == (143, "left\n", "terminated\n")


def test_a_block_in_a_block_is_a_part_of_it() -> None:
    """Workers are started in such a block, also while `train` takes signals between steps."""
    inner = "\n        with process.deferred():\n            pass\n        print("
    code = LOOP.format(until="stopping()", error="").replace("\n        print(", inner, 1)
    process = start(code)
    process.send_signal(signal.SIGTERM)
    assert end(process) == (143, "left\n", "terminated\n")
