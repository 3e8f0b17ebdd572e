"""`python -m src.compare` on real experiments, the README's way from a question to a branch, and
how the time grows with the store."""

import json
import re
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from src.base.imports import ROOT
from tests.conftest import copy_project
from tests.experiments.stored_results import Project
from tests.pipeline.clone import commit, environment, restore, run

pytestmark = pytest.mark.slow


def seconds(folder: Path, *command: str) -> float:
    """Of the processor, so that what else runs on the machine does not count."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    run(folder, *command)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def test_200_experiments_are_answered_as_fast_as_20(tmp_path: Path) -> None:
    project = Project(tmp_path / "project")
    copy_project(project.root)
    commit(project.root, "code")
    commands = {
        "compare": (sys.executable, "-m", "src.compare", "HEAD", "many-1", "--json"),
        "where": (sys.executable, "-m", "src.where", "many-1"),
    }
    taken: dict[str, list[float]] = {name: [] for name in commands}
    for numbers in (range(20), range(20, 200)):
        for number in numbers:
            # Every tenth a seed of one configuration, the others configurations of their own.
            lr = 0.003 if number % 10 == 1 else 0.01 + number / 1e5
            project.add(f"many-{number}", 5, lr=lr, seed=number // 10)
        project.write()
        for name, command in commands.items():
            taken[name].append(seconds(project.root, *command))
    print(taken)
    for name, (few, many) in taken.items():
        assert many <= 3 * few, (name, few, many)


def test_what_a_real_experiment_changed(clone: Path) -> None:
    before = run(clone, "git", "status", "--porcelain")
    run(
        clone, "dvc", "exp", "run", "--temp", "--name", "two", "-S", "lr=3e-3", "-S", "momentum=0.8"
    )
    run(clone, "dvc", "exp", "run", "--temp", "--name", "pictures", "-S", "prepare.split_seed=1")
    found = json.loads(run(clone, sys.executable, "-m", "src.compare", "HEAD", "two", "--json"))
    [item] = found["comparisons"]
    assert item["changed"]["params"] == {"lr": ["0.001", "0.003"], "momentum": ["0.9", "0.8"]}
    assert item["changed"]["code"] == []
    assert (item["verdict"], item["pictures"]["n"] > 20) == ("undecided", True)
    assert "WARNING: 2 things changed" in run(
        clone, sys.executable, "-m", "src.compare", "HEAD", "two"
    )
    refused = run(clone, sys.executable, "-m", "src.compare", "HEAD", "pictures", code=2)
    assert len(refused.splitlines()) == 1
    assert "prepare.split_seed is 0 and 1" in refused
    run(clone, "dvc", "exp", "run", "--queue", "--name", "waiting", "-S", "lr=0.5")
    waiting = run(clone, sys.executable, "-m", "src.compare", "HEAD", "waiting", code=2)
    assert "experiment waiting is queued or running" in waiting
    run(clone, "dvc", "queue", "remove", "--all")
    assert run(clone, "git", "status", "--porcelain") == before
    where = json.loads(run(clone, sys.executable, "-m", "src.where", "two", "--json"))
    run_id = where["runs"]["train"]["run_id"]
    printed = run(clone, sys.executable, "-m", "src.compare", "HEAD", run_id)
    assert f"noted on the MLflow run of {run_id}" in printed


def commands_of(section: str) -> list[str]:
    """What stands behind `$ ` in a section of the README, without comments."""
    text = (ROOT / "README.md").read_text()
    [body] = re.findall(rf"(?ms)^## {re.escape(section)}\n(.*?)^## ", text)
    return re.findall(r"(?m)^\$ (.*?)(?: +#.*)?$", body)


def test_the_way_of_the_readme_from_a_question_to_a_branch(clone: Path, tmp_path: Path) -> None:
    commands = commands_of("Which change helped?")
    assert any("src.compare" in command for command in commands)
    run(tmp_path, "git", "init", "--quiet", "--bare", "origin.git")
    run(clone, "git", "remote", "add", "origin", str(tmp_path / "origin.git"))
    run(clone, "dvc", "remote", "add", "--quiet", "--default", "storage", str(tmp_path / "storage"))
    commit(clone, "remotes")
    for command in commands:
        done = subprocess.run(
            ["bash", "-c", command], cwd=clone, env=environment(), capture_output=True, text=True,
            timeout=1200,
        )  # fmt: skip
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    pushed = run(tmp_path / "origin.git", "git", "for-each-ref", "--format=%(refname)")
    assert "refs/heads/higher-rate" in pushed
    assert "refs/exps/" in pushed
    committed = run(clone, "git", "show", "higher-rate:docs/experiments.md")
    assert "- Tried: param lr: 0.001 → 0.003" in committed
    assert "lr: 0.003" in run(clone, "git", "show", "higher-rate:params.yaml")
    restore(clone)
