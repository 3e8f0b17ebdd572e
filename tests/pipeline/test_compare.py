"""`src.compare` on real experiments, the pages' way to a branch, and time as the store grows."""

import json
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import copy_project, set_params
from tests.docs import pages
from tests.experiments.stored_results import Project
from tests.pipeline.clone import commit, environment, run

pytestmark = pytest.mark.slow(seconds=90)


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
    found = json.loads(run(clone, sys.executable, "-m", "src.compare", "HEAD", "higher", "--json"))
    [item] = found["comparisons"]
    assert item["changed"]["params"] == {"lr": ["0.001", "0.003"]}
    assert item["changed"]["code"] == []
    assert (item["verdict"], item["images"]["n"] > 20) == ("undecided", True)
    run(clone, "dvc", "exp", "run", "--queue", "--name", "waiting", "-S", "lr=0.5")
    waiting = run(clone, sys.executable, "-m", "src.compare", "HEAD", "waiting", code=2)
    assert "experiment waiting is queued or running" in waiting
    assert run(clone, "git", "status", "--porcelain") == before
    where = json.loads(run(clone, sys.executable, "-m", "src.where", "higher", "--json"))
    run_id = where["runs"]["train"]["run_id"]
    printed = run(clone, sys.executable, "-m", "src.compare", "HEAD", run_id)
    assert f"noted on the MLflow run of {run_id}" in printed


def test_the_way_of_the_pages_from_a_question_to_a_branch(clone: Path, tmp_path: Path) -> None:
    commands = [
        command.replace("src.seeds 5", "src.seeds 2")
        for command in pages.commands("docs/how-to/compare.md")
    ]
    assert sum("src.compare" in command or "src.seeds 2" in command for command in commands) == 5
    commands += pages.section("docs/how-to/keep-an-experiment.md", "As a branch of its own")
    run(tmp_path, "git", "init", "--quiet", "--bare", "origin.git")
    run(clone, "git", "remote", "add", "origin", str(tmp_path / "origin.git"))
    run(clone, "dvc", "remote", "add", "--quiet", "--default", "storage", str(tmp_path / "storage"))
    set_params(clone, tracking="false")
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
