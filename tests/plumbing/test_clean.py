"""`make clean` removes what is finished and keeps what is not."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from src import clean
from src.plumbing import locks
from src.tracking.journal.journal import Record, lock_path, record_path

STATES = {
    "a" * 64: "finished",
    "b" * 64: "killed",
    "c" * 64: "finished",
    "d" * 64: None,
    "e" * 64: "finished",
}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Checkpoints: finished, killed, repeated, without a record, begun again without a record."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    for name in ("params.yaml", "dvc.yaml"):
        (tmp_path / name).touch()
    for fingerprint, state in STATES.items():
        folder = tmp_path / ".cache/checkpoints" / fingerprint
        folder.mkdir(parents=True)
        (folder / "checkpoint-0.pt").write_bytes(b"state")
        if state:
            Record(record_path(tmp_path, fingerprint), "r", "1", "train", "train", state).save()
    younger = time.time() + 60
    os.utime(tmp_path / ".cache/checkpoints" / ("e" * 64) / "checkpoint-0.pt", (younger, younger))
    for name in (
        "src/a.py",
        "src/__pycache__/a.pyc",
        "mine/a.py",
        "mine/deeper/__pycache__/b.pyc",
        ".cache/prepare/report.json",
        ".mypy_cache/x",
        ".cache/journal/r.jsonl",
        ".cache/waiting/r/tags.json",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


def test_only_what_is_finished_goes(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["clean"])
    with locks.hold(lock_path(project, "c" * 64), "trains"):  # it is done again right now
        clean.main()
    printed = capsys.readouterr().out
    assert printed == "clean: 1 checkpoint of finished trainings removed, 4 of others kept\n"
    left = {path.name for path in (project / ".cache/checkpoints").iterdir()}
    assert left == {"b" * 64, "c" * 64, "d" * 64, "e" * 64}
    for name in ("src/__pycache__", "mine/deeper/__pycache__", ".cache/prepare", ".mypy_cache"):
        assert not (project / name).exists()
    for name in (".cache/journal/r.jsonl", ".cache/waiting/r/tags.json"):
        assert (project / name).exists()


@pytest.mark.parametrize("where", ["", ".dvc/tmp/exps/standalone/tmp1"])
def test_working_copies_go_when_nothing_runs(
    where: str, project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """DVC begins in the project's folder, `where` is empty; its stage works in the copy."""
    monkeypatch.setattr(sys, "argv", ["clean"])
    copies = [project / ".dvc/tmp/exps" / name for name in ("tmp0", "standalone/tmp1")]
    for copy in copies:
        (copy / "src").mkdir(parents=True)
    (project / ".dvc/tmp/exps/run").mkdir()
    program = project / ("stage" if where else "dvc")
    program.write_text("print(flush=True)\ninput()\n")
    with subprocess.Popen(
        [sys.executable, program],
        cwd=project / where,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as busy:
        assert busy.stdout is not None
        busy.stdout.readline()
        clean.main()
        line = f"clean: 2 working copies of experiments kept: process {busy.pid} runs\n"
        assert capsys.readouterr().out.endswith(line)
        assert all(copy.exists() for copy in copies)
        busy.communicate(b"\n")
    files = copies[0] / "mlruns/1/run/artifacts/curves.png"  # of a run, by an earlier version
    files.parent.mkdir(parents=True)
    files.touch()
    clean.main()
    lines = "clean: 1 working copy of killed experiments removed\n"
    lines += "clean: .dvc/tmp/exps/tmp0 kept: it has files of MLflow runs\n"
    assert capsys.readouterr().out.endswith(lines)
    assert (copies[1].exists(), files.exists()) == (False, True)
    assert (project / ".dvc/tmp/exps/run").exists()
