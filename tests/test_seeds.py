"""Groups of seeds: which are there, what they say; what decides a configuration; many trials."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from src import params, pipeline, search, seeds
from src.errors import InputError
from src.repository import METRICS, STAGES
from src.stage import Stage
from src.trials import configuration, search_space, tasks
from tests.closure import ROOT
from tests.conftest import working_in
from tests.stored_results import md5
from tests.tracked_project import commit, git


def lock_of(values: dict) -> str:
    """A dvc.lock with the inputs and metrics that the working directory has, in the form that DVC
    writes; the other outputs are not there."""
    stages = {}
    declared = pipeline.declared_stages(STAGES)
    entries = {name: pipeline.stage_entry(name, values) for name in declared}
    made = {out: md5(out) for entry in entries.values() for out in entry.outs}
    made[METRICS] = md5(Path(METRICS).read_text())
    for name, found in configuration.inputs(values).items():
        found["deps"] |= {dep: made[dep] for dep in entries[name].deps if dep in made}
        of_params = {k: v for k, v in found["params"].items() if ":" not in k}
        of_versions = {k.partition(":")[2]: v for k, v in found["params"].items() if ":" in k}
        stages[name] = {
            "cmd": name,
            "deps": [{"path": path, "md5": md5} for path, md5 in found["deps"].items()],
            "params": {
                "params.yaml": of_params,
                **({"requirements/versions.yaml": of_versions} if of_versions else {}),
            },
            "outs": [{"path": out, "md5": made[out]} for out in entries[name].outs],
        }
    return yaml.safe_dump({"schema": "2.0", "stages": stages})


@pytest.fixture
def repository(project: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A git repository whose commit claims the result of its configuration, seed 0."""
    monkeypatch.chdir(project)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    metrics = Path(METRICS)
    metrics.parent.mkdir(parents=True)
    group = {"n": 360, "accuracy": 0.9, "accuracy_low": 0.87, "accuracy_high": 0.93, "log_loss": 1}
    metrics.write_text(json.dumps({"val": group, "test": group}))
    Path("dvc.lock").write_text(lock_of(params.load()))
    git("init", "--quiet")
    commit()
    return project


def test_a_seed_is_found_by_what_it_is(repository: Path) -> None:
    values = params.load()
    assert seeds.there(values) == {0: 0.9}
    # Another rate, another code, another package: other configurations.
    assert seeds.there({**values, "lr": 0.5}) == {}
    code = repository / "src/training/loop.py"
    code.write_text(code.read_text() + "\n")
    assert seeds.there(values) == {}


def test_a_project_may_be_cut_down_to_fewer_stages(repository: Path) -> None:
    content = yaml.safe_load(Path("dvc.yaml").read_text())
    del content["stages"]["subset"]
    deps = content["stages"]["overfit-check"]["deps"]
    deps[deps.index("data/subset")] = "data/prepared"
    Path("dvc.yaml").write_text(yaml.safe_dump(content))
    values = params.load()
    Path("dvc.lock").write_text(lock_of(values))
    git("commit", "--quiet", "--all", "--message", "without subset")
    assert seeds.there(values) == {0: 0.9}


@pytest.mark.parametrize("changed", ["models/model.json", "data/subset"])
def test_what_an_earlier_net_or_other_pictures_gave_is_no_result(
    repository: Path, changed: str
) -> None:
    """As `dvc repro train` or `dvc repro subset` leaves it: later stages ran before."""
    lock = yaml.safe_load(Path("dvc.lock").read_text())
    for stage in lock["stages"].values():
        for out in stage["outs"]:
            if out["path"] == changed:
                out["md5"] = "f" * 32
    Path("dvc.lock").write_text(yaml.safe_dump(lock))
    git("commit", "--quiet", "--amend", "--all", "--message", "partly run")
    assert seeds.there(params.load()) == {}


def test_the_name_stands_for_all_but_what_is_varied(repository: Path) -> None:
    values = params.load()
    name = configuration.digest(values, ("seed",))
    assert name == configuration.digest({**values, "seed": 7}, ("seed",))
    assert name != configuration.digest({**values, "lr": 0.5}, ("seed",))
    assert name == configuration.digest({**values, "machine.workers": 3}, ("seed",))
    (repository / "src/training/loop.py").write_text("changed = 1\n")
    assert name != configuration.digest(values, ("seed",))


def test_the_summary_is_students() -> None:
    lines = seeds.summary({0: 0.90, 1: 0.92, 2: 0.94})
    # mean 0.92, s 0.02, t(0.975, 2) = 4.3027: 4.3027 * 0.02 / sqrt(3) = 0.0497
    assert "mean 0.9200, standard deviation 0.0200" in lines[3]
    assert "0.8703 .. 0.9697" in lines[4]
    assert "0.8206 .. 1.0000" in lines[5]  # 4.3027 * 0.02 * sqrt(4 / 3) = 0.0994


@pytest.mark.parametrize(
    ("tool", "arguments", "said"),
    [
        (seeds, ["1"], "N must be in 2..1000, got 1"),
        (seeds, ["3", "-S", "seed=4"], "-S seed=... contradicts"),
        (seeds, ["3", "-S", "lr=abc"], "params.yaml: lr must be a number > 0, got 'abc'"),
        (seeds, ["3", "--workers", "99999"], "--workers must be in 1..64, got 99999"),
        (seeds, ["3", "--workers", "0"], "--workers must be in 1..64, got 0"),
        (search, ["0"], "N must be in 1..9999"),
        (search, ["3", "-S", "lr=0.1"], "lr is varied by recipes/search.yaml"),
        (search, [], "this search has no trials yet"),
    ],
)
def test_a_mistake_ends_in_one_line(
    tool, arguments: list[str], said: str, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    shutil.copytree(ROOT / "recipes", repository / "recipes")
    monkeypatch.setattr(sys, "argv", [tool.__name__, *arguments])
    with pytest.raises(InputError, match=said):
        tool.main()


def test_the_leaderboard_of_200_trials_takes_no_more_processes_than_of_20(
    repository: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(ROOT / "recipes", repository / "recipes")
    space, values = search_space.read(), params.load()
    prefix = search.prefix_of(space, 0, values)
    head = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
    rev = head.stdout.strip()
    monkeypatch.setattr(sys, "argv", ["search"])
    started: list[int] = []
    original = subprocess.run

    def counted(*arguments: Any, **more: Any) -> Any:
        started[-1] += 1
        return original(*arguments, **more)

    for count in (20, 200):
        refs = "".join(
            f"update refs/exps/{rev[:2]}/{rev[2:]}/{prefix}{number:04d} {rev}\n"
            for number in range(count)
        )
        original(["git", "update-ref", "--stdin"], input=refs, text=True, check=True)
        assert len(tasks.states(prefix)) == count
        started.append(0)
        with monkeypatch.context() as patch:
            patch.setattr(subprocess, "run", counted)
            search.main()
    assert started[0] == started[1] > 0
    table = repository / f"results/search/{prefix.rstrip('-')}.csv"
    assert len(table.read_text().splitlines()) == 201


def test_a_stage_that_ended_is_told_from_one_that_was_killed(tmp_path: Path) -> None:
    class Info:
        stdout = str(tmp_path / "log")

    for text, state in (
        ("ERROR: failed to reproduce 'train': failed to run: x, exited with 1", "failed"),
        ("ERROR: failed to reproduce 'train': failed to run: x, exited with 2", "failed"),
        ("ERROR: failed to reproduce 'train': failed to run: x, exited with -9", "killed"),
        ("ERROR: failed to reproduce 'train': failed to run: x, exited with 143", "killed"),
        ("Running stage 'train'", "killed"),
    ):
        Path(Info.stdout).write_text(text)
        assert tasks._how_it_ended(Info) == state
    assert tasks._how_it_ended(None) == "killed"


def test_a_task_whose_result_is_taken_in_is_not_one_whose_worker_died(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tasks, "COLLECT_SECONDS", 1.2)
    dead = SimpleNamespace(stash_rev="a")
    assert tasks._stays("a", lambda: [dead])
    looks = iter([[dead], [SimpleNamespace(stash_rev="b")]])
    assert not tasks._stays("a", lambda: next(looks))


def test_stage_object_is_not_needed(stage_of, repository: Path) -> None:
    """The inputs that a configuration names are those that the stage itself hashes."""
    values = params.load()
    stage: Stage = Stage("prepare")
    found = configuration.inputs(values)["prepare"]
    with working_in(repository):
        assert found["deps"] == stage.deps_md5
