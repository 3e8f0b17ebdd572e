"""The table of experiments: what stands in it, and that it stays within 120 columns."""

import csv
import io
import os
import shutil
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import pytest
import yaml
from rich.console import Console

from src import table
from src.base.imports import ROOT
from src.plumbing.dvc_files import VERSIONS_FILE
from src.plumbing.hashes import md5_of
from src.table import Row
from tests import template
from tests.conftest import set_params
from tests.experiments.conftest import Call, refusal
from tests.pipeline.clone import run_queue
from tests.tracking.tracked_project import VARIABLES, git

MOMENT = datetime(2026, 1, 2, 3, 4)
STEP = """
import json, pathlib
params = dict(line.split()[:2] for line in open("params.yaml") if line[:1].isalpha())
seed, lr = float(params["seed:"]), float(params["lr:"])
assert seed != 13
folder = pathlib.Path("results/evaluate")
folder.mkdir(parents=True, exist_ok=True)
groups = {"val": {"accuracy": 0.9 + seed / 100}, "test": {"accuracy": lr}}
(folder / "metrics.json").write_text(json.dumps(groups))
"""
DVC_YAML = """
stages:
  evaluate:
    cmd: python step.py
    deps: [step.py]
    params: [lr, seed]
    metrics:
      - results/evaluate/metrics.json: {cache: false}
"""


def row(name: str, state: str = "", /, **params: object) -> Row:
    accuracy = None if state else 0.98765
    dotted = {key.replace("__", "."): value for key, value in params.items()}
    test = None if state else 0.25
    return Row(name, state, accuracy, test, MOMENT, table._texts(dotted))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project of one stage as working directory, outside of git."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_text(template.params_text())
    Path("step.py").write_text(STEP)
    Path("dvc.yaml").write_text(DVC_YAML)
    Path("requirements").mkdir()
    shutil.copy(ROOT / VERSIONS_FILE, "requirements")
    return tmp_path


def printed(
    rows: list[Row], capsys: pytest.CaptureFixture[str], hidden: int = 0, final: bool = False
) -> list[str]:
    table.show(rows, hidden, final)
    return capsys.readouterr().out.splitlines()


def test_only_params_that_differ_have_a_column(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [
        row("workspace", lr=0.001, seed=0, prepare__size=32, threads=2),
        row("main (1234567)", lr="1e-3", seed=0, prepare__size=32, threads=2),
        row("lunar-tape", lr=0.003, seed=0, prepare__size=64, threads=2),
    ]
    lines = printed(rows, capsys)
    assert lines[0].split() == ["val", "prepare."]
    assert lines[1].split() == ["experiment", "accuracy", "created", "lr", "size"]
    assert lines[4].split() == ["lunar-tape", "0.9877", "2026-01-02", "03:04", "0.003", "64"]
    # Two spellings of one value are no difference.
    assert table.differing(rows[:2]) == []


def test_only_the_last_look_shows_test_and_is_counted(
    folder: Path, call: Call, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [row("workspace", lr=1), row("main", lr=2)]
    lines = printed(rows, capsys, final=True)
    assert lines[0].split() == ["val", "test"]
    assert lines[2].split()[:3] == ["workspace", "0.9877", "0.2500"]
    monkeypatch.setattr(table, "collect", lambda every: rows)
    log = folder / "docs/experiments.md"
    log.parent.mkdir()
    log.write_text("# What was tried\n")
    assert "needs a line" in refusal(call(table.main, "--final"))
    log.write_text("Looks at test so far: 2\n")
    for options in ("", "--all", "--csv"):
        code, out, err = call(table.main, *options.split())
        assert (code, err, "0.25" in out, "test/accuracy" in out) == (0, "", False, False)
    assert log.read_text() == "Looks at test so far: 2\n"
    for number, options in enumerate(("--final", "--final --csv"), 3):
        code, out, err = call(table.main, *options.split())
        assert (code, "0.25" in out) == (0, True)
        assert err.startswith(f"look {number} at test: ")
        assert log.read_text() == f"Looks at test so far: {number}\n"


def test_state_is_shown_when_one_did_not_succeed(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [row("workspace", lr=1), row("dim-sum", "failed", lr=2), row("in-line", "queued", lr=3)]
    lines = printed(rows, capsys, hidden=4)
    assert lines[1].split()[:2] == ["experiment", "state"]
    assert lines[3].split() == ["dim-sum", "failed", "-", "2026-01-02", "03:04", "2"]
    assert any(line.startswith("dvc queue logs dim-sum ") for line in lines)
    assert any("--all" in line and "(4)" in line for line in lines)
    assert "state" not in " ".join(printed(rows[:1], capsys))


def test_of_two_experiments_that_wait_under_one_name_one_would_be_lost(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """DVC calls both a success and keeps the first. Experiments on other commits do not count."""
    rows = [row("workspace", lr=1), row("same", "queued", lr=2), row("same", "running", lr=3)]
    lines = printed(rows, capsys)
    assert any(line.startswith("same: 2 are called so, and DVC keeps the first") for line in lines)
    for state in ("", "failed"):
        rows[1:] = [row("same", state, lr=2), row("same", "queued", lr=3)]
        assert not any("are called so" in line for line in printed(rows, capsys))


def test_many_params_stay_within_the_width(capsys: pytest.CaptureFixture[str]) -> None:
    keys = [f"a_rather_long_name_{number}" for number in range(12)]
    rows = [row("workspace", **dict.fromkeys(keys, 0)), row("main", **dict.fromkeys(keys, 0))]
    for number, key in enumerate(keys):
        name = "an-experiment-with-a-very-long-name-indeed-" + str(number)
        rows.append(row(name, "failed", **dict.fromkeys(keys, 0) | {key: "data/some/long/path/x"}))
    lines = printed(rows, capsys)
    assert max(map(len, lines)) <= table.WIDTH
    names, others = column(lines, "experiment"), column(lines, "other params")
    for number, key in enumerate(keys):  # nothing that differs is lost
        assert f"an-experiment-with-a-very-long-name-indeed-{number}" in names
        assert key in others or key in " ".join(lines[:2])


def column(lines: list[str], title: str) -> str:
    """The cells of a column, of which each may take several lines, without blanks."""
    number = next(number for number, line in enumerate(lines) if title in line)
    start = lines[number].index(title)
    rest = lines[number][start + len(title) :]
    width = len(title) + len(rest) - len(rest.lstrip()) if rest.strip() else table.WIDTH
    return "".join(line[start : start + width].replace(" ", "") for line in lines[number + 1 :])


def test_long_values_take_several_lines_and_the_table_fits() -> None:
    long = "data/images/of/the/first/campaign/north/part/"
    rows = [row("workspace", weights=long + "a"), row("main", weights=long + "b")]
    for number in range(12):
        params = {f"section__a_rather_long_key_{key}": long + str(key * number) for key in range(9)}
        rows.append(row(f"an-experiment-with-a-long-name-{number}", "failed", **params))
    for width in (80, 100, 119, table.WIDTH):
        printed = io.StringIO()
        console = Console(width=width, file=printed)
        console.print(table.layout(rows, console, final=True))
        lines = printed.getvalue().splitlines()
        assert max(map(len, lines)) <= width
        assert f"{long}88" in column(lines, "other params")


def test_old_metrics_are_not_shown_beside_edited_params(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lock = {
        "cmd": "python step.py",
        "deps": [{"path": "step.py", "md5": md5_of("step.py")}],
        "params": {"params.yaml": {"lr": 1e-3, "seed": 0}},
    }
    Path("dvc.lock").write_text(yaml.safe_dump({"schema": "2.0", "stages": {"evaluate": lock}}))
    shown = row("workspace")
    assert table._without_old_metrics(shown) == shown
    set_params(folder, lr="0.5")
    changed = table._without_old_metrics(shown)
    assert (changed.state, changed.val, changed.test) == ("changed", None, None)
    lines = printed([changed, row("main")], capsys)
    assert lines[2].split()[:4] == ["workspace", "changed", "-", "2026-01-02"]
    assert "workspace: changed since its metrics were made; run `dvc repro`" in lines
    set_params(folder, lr="0.001")
    Path("step.py").write_text("edited = True\n")
    assert table._without_old_metrics(shown).state == "changed"


def test_old_metrics_are_not_shown_beside_committed_params(
    capsys: pytest.CaptureFixture[str],
) -> None:
    params = {"seed": 0, "lr": 1e-3, "augment_flip": True, "class_weights": [1, 2.5]}
    lock = yaml.safe_dump({"stages": {"train": {"cmd": "a", "params": {"params.yaml": params}}}})

    def shown(**values: object) -> Row:
        given = params | {"class_weights": [1.0, 2.5]} | values
        metrics = {table.METRICS: {"data": {"val": {"accuracy": 0.9}}}}
        data = {"params": {"params.yaml": {"data": given}}, "metrics": metrics}
        item: dict = {
            "rev": "a" * 40,
            "name": "main",
            "experiments": [],
            "error": None,
            "data": data,
        }
        return table._without_old_metrics(table._row(item, ""), lock)

    assert (shown().state, shown().val) == ("", 0.9)
    changed = shown(lr=0.5)
    assert (changed.state, changed.val) == ("changed", None)
    lines = printed([row("workspace"), changed], capsys)
    assert lines[3].split()[:4] == ["main", "(aaaaaaa)", "changed", "-"]
    assert lines[5].startswith("main (aaaaaaa): committed with other params than its metrics")
    assert shown(class_weights=[1, 3]).state == shown(augment_flip=False).state == "changed"


def test_csv_has_all_in_full(capsys: pytest.CaptureFixture[str]) -> None:
    long = "data/a/path/that/is/much/too/long/for/a/column"
    rows = [row("workspace", weights="none", lr=1), row("odd, name", "queued", weights=long, lr=1)]
    header, first, second = csv.reader(table.to_csv(rows, final=False).splitlines())
    assert header == ["experiment", "state", "val/accuracy", "created", "weights"]
    assert first[:3] == ["workspace", "success", "0.98765"]
    assert second == ["odd, name", "queued", "", "2026-01-02T03:04:00", long]
    header, first, _ = csv.reader(table.to_csv(rows, final=True).splitlines())
    assert header[2:4] == ["val/accuracy", "test/accuracy"]
    assert first[2:4] == ["0.98765", "0.25"]


def test_outside_of_a_project_it_is_one_line(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert refusal(call(table.main)).startswith("`dvc exp show` failed: ")


@pytest.mark.slow
def test_experiments_of_every_kind(
    call: Call, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent), prepend=os.pathsep)
    for kind in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{kind}_NAME", "Somebody")
        monkeypatch.setenv(f"GIT_{kind}_EMAIL", "somebody@example.org")

    def dvc(*arguments: str) -> None:
        subprocess.run(["dvc", *arguments], check=True, capture_output=True)

    git("init", "--quiet", "--initial-branch=main")
    dvc("init", "--quiet")
    dvc("repro")
    git("add", ".")
    git("commit", "--quiet", "--message", "start")
    dvc("exp", "run", "--name", "early", "-S", "seed=2")
    git("checkout", "--quiet", ".")
    git("commit", "--quiet", "--allow-empty", "--message", "next")
    dvc("exp", "run", "--temp", "--name", "higher", "-S", "lr=3e-3")
    dvc("exp", "run", "--queue", "--name", "unlucky", "-S", "seed=13")
    run_queue(folder)
    dvc("exp", "run", "--queue", "--name", "waiting", "-S", "optimizer=sgd", "-S", "lr=1e-5")

    rows = {row.name.split()[0]: row for row in table.collect(every=False)}
    assert list(rows)[:2] == ["workspace", "main"]
    assert set(rows) == {"workspace", "main", "higher", "unlucky", "waiting"}
    assert {name: row.state for name, row in rows.items() if row.state} == {
        "unlucky": "failed",
        "waiting": "queued",
    }
    assert (rows["main"].val, rows["main"].test) == (0.9, 0.001)
    assert (rows["higher"].val, rows["higher"].test) == (0.9, 0.003)
    # Not the metrics of the commit from which they started.
    assert (rows["waiting"].val, rows["unlucky"].test) == (None, None)
    assert rows["waiting"].params["optimizer"] == "sgd"
    assert rows["workspace"].params["prepare.size"] == "32"
    assert set(table.differing(list(rows.values()))) == {"lr", "seed", "optimizer"}

    every = [row.name.split()[0] for row in table.collect(every=True)]
    assert every[0] == "workspace"
    assert {*rows, "early"} <= set(every)
    assert len(every) == len(rows) + 2  # the earlier commit and its experiment
    code, printed, _ = call(table.main)
    assert (code, "earlier commits (1)" in printed) == (0, True)
