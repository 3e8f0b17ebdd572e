"""Groups of seeds: which are there, what they say; what decides a configuration; many trials."""

import json
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest
import yaml

from src import search, seeds
from src.base.imports import ROOT
from src.experiments import stored
from src.experiments.queue import queue, tasks
from src.experiments.queue.configuration import Configuration
from src.experiments.search import space
from src.plumbing import dvc_files, locks, process
from src.plumbing.errors import GateError, InputError
from src.plumbing.git import head
from src.plumbing.identity import METRICS
from src.plumbing.stage import Stage
from tests.conftest import set_params
from tests.experiments.conftest import Call, refusal
from tests.experiments.stored_results import lock_of, md5
from tests.tracking.tracked_project import commit, git


def lock_now(**changed: str) -> str:
    """A dvc.lock with the working directory's inputs and metrics; other outputs are not there."""
    entries = {}
    found = Configuration(changed, ())
    stages = {name: dvc_files.stage_entry(name, found.params) for name in found.inputs}
    made = {out: md5(out) for stage in stages.values() for out in stage.outs}
    made[METRICS] = md5(Path(METRICS).read_text())
    for name, inputs in found.inputs.items():
        deps = inputs["deps"] | {dep: made[dep] for dep in stages[name].deps if dep in made}
        outs = {out: made[out] for out in stages[name].outs}
        entries[name] = {"cmd": name, "params": inputs["params"], "deps": deps, "outs": outs}
    return lock_of(entries)


def all_seeds(**changed: str) -> Configuration:
    return Configuration(changed, ("seed",))


def accuracies(**changed: str) -> dict[int, float]:
    return seeds.accuracies(all_seeds(**changed))


def commit_result(accuracy: float, **changed: str) -> None:
    """A commit with the result of params.yaml with these values."""
    group = {"n": 360, "accuracy": accuracy, "accuracy_low": 0.87, "accuracy_high": 0.93}
    Path(METRICS).parent.mkdir(parents=True, exist_ok=True)
    Path(METRICS).write_text(json.dumps(dict.fromkeys(("val", "test"), group | {"log_loss": 1})))
    Path("dvc.lock").write_text(lock_now(**changed))
    commit()


@pytest.fixture
def repository(project: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A git repository whose commit claims the result of its configuration, seed 0."""
    monkeypatch.chdir(project)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    git("init", "--quiet")
    commit_result(0.9)
    return project


def test_a_seed_is_found_by_what_it_is(repository: Path) -> None:
    assert accuracies() == {0: 0.9}
    # Another rate, another code: other configurations.
    assert accuracies(lr="0.5") == {}
    code = repository / "src/training/loop.py"
    code.write_text(code.read_text() + "\n")
    assert accuracies() == {}


def test_of_two_results_of_a_seed_the_newer_counts_as_for_compare(repository: Path) -> None:
    commit_result(0.8)
    assert accuracies() == {0: 0.8}


def test_code_edited_while_the_queue_runs_loses_no_seed(
    repository: Path, monkeypatch: pytest.MonkeyPatch, call: Call
) -> None:
    def run(*_: Any) -> None:
        commit_result(0.8, seed="1")
        (repository / "src/training/loop.py").write_text("edited = 1\n")

    monkeypatch.setattr(queue, "run", run)
    assert "mean 0.8500" in call(seeds.main, 2)[1]


def test_code_that_the_queue_would_not_see_is_named(repository: Path) -> None:
    configuration = Configuration({}, ())
    (repository / "src/training/__pycache__").mkdir(exist_ok=True)
    (repository / "src/training/__pycache__/loop.pyc").touch()
    (repository / "src/notes.txt").touch()  # no stage reads it
    configuration.require_in_git()
    # DVC hashes what .gitignore leaves out.
    (repository / ".gitignore").write_text("scratch.py\n")
    (repository / "src/training/scratch.py").touch()
    with pytest.raises(InputError, match=r"^src/training/scratch.py is not in git, and the queue"):
        configuration.require_in_git()
    git("add", "--force", "src/training/scratch.py")
    configuration.require_in_git()


def test_what_changes_while_trials_are_queued_does_not_get_their_names(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    configuration = all_seeds()
    queued: list[str] = []
    forgotten: list[str] = []

    def enqueue(name: str, overrides: list[str]) -> None:
        with locks.try_hold(queue.LOCK) as free:
            assert not free  # another command queues none of them
        queued.append(name)
        if len(queued) == 2:
            set_params(repository, epochs=7)

    monkeypatch.setattr(queue, "enqueue", enqueue)
    monkeypatch.setattr(tasks, "forget", forgotten.extend)
    wanted: dict[str, list[str]] = {f"seeds-a-{seed}": [] for seed in range(3)}
    for _ in range(2):  # the second time nothing more is queued
        with pytest.raises(GateError, match=r"^epochs changed while trials were queued: put it"):
            queue.queue_missing(wanted, configuration)
    assert (queued, forgotten) == (["seeds-a-0", "seeds-a-1"], ["seeds-a-1"])
    set_params(repository, epochs=3, seed=5)
    configuration.require_unchanged()
    (repository / "src/training/loop.py").write_text("changed = 1\n")
    with pytest.raises(GateError, match=r"^src/training changed"):
        configuration.require_unchanged()


def test_a_signal_leaves_dvc_its_time_to_put_the_workspace_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "dvc"
    script.write_text(
        f"#!{sys.executable}\n"
        "import os, pathlib, signal, time\n"
        "os.kill(os.getppid(), signal.SIGTERM)\n"
        "time.sleep(0.3)\n"
        "pathlib.Path('ended').write_text(str(os.getsid(0) == os.getpid()))\n"
    )
    script.chmod(0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "executable", str(script))
    before = signal.signal(signal.SIGTERM, process._on_signal)
    try:
        with pytest.raises(process.Terminated):
            queue.enqueue("seeds-a-0", [])
    finally:
        signal.signal(signal.SIGTERM, before)
    # The signals of a terminal go to all processes of its session.
    assert Path("ended").read_text() == "True"


def test_workers_of_a_command_that_was_stopped_count(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    started: list[str] = []
    monkeypatch.setattr(queue, "_dvc", lambda *words: started.append(words[-1]))
    for running, jobs in ((0, 2), (1, 2), (2, 2), (3, 2)):
        monkeypatch.setattr(tasks, "workers", lambda running=running: [object()] * running)
        queue._start(jobs)
    assert started == ["2", "2"]  # DVC counts those that answer it
    assert capsys.readouterr().out == "3 workers are at work here already, not 2\n"


def test_after_ctrl_c_it_says_that_the_workers_go_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(queue, "queue_missing", lambda *_: [])
    monkeypatch.setattr(tasks, "states", lambda _: {"search-a-0000": "queued"})
    monkeypatch.setattr(queue, "_start", lambda _: None)
    monkeypatch.setattr(queue.time, "sleep", Mock(side_effect=KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        queue.run({"search-a-0000": []}, 1, Mock())
    assert "the workers go on" in capsys.readouterr().err


def test_a_drawn_value_that_is_refused_names_the_space_and_the_trial(
    repository: Path, call: Call
) -> None:
    (repository / "recipes").mkdir()
    (repository / "recipes/search.yaml").write_text("lr: {uniform: [1e-3, 5000]}\n")
    _, _, error = call(search.main, 3)
    assert re.match(r"recipes/search.yaml: trial \d: lr must be", error)


def test_a_project_may_be_cut_down_to_fewer_stages(repository: Path) -> None:
    content = yaml.safe_load(Path("dvc.yaml").read_text())
    del content["stages"]["subset"]
    deps = content["stages"]["overfit-check"]["deps"]
    deps[deps.index("data/subset")] = "data/prepared"
    Path("dvc.yaml").write_text(yaml.safe_dump(content))
    Path("dvc.lock").write_text(lock_now())
    git("commit", "--quiet", "--all", "--message", "without subset")
    assert accuracies() == {0: 0.9}


def test_a_stage_of_ones_own_counts_where_it_leads_to_the_result(repository: Path) -> None:
    """One that makes what another stage reads decides; one that reports what came out does not."""
    before = all_seeds().name()
    content = yaml.safe_load(Path("dvc.yaml").read_text())
    report = {"cmd": "python -m src.report", "deps": ["models/model.json"], "outs": ["report.md"]}
    Path("dvc.yaml").write_text(yaml.safe_dump({"stages": {**content["stages"], "report": report}}))
    assert all_seeds().name() == before
    assert accuracies() == {0: 0.9}
    Path("labels.csv").touch()
    made = {"cmd": "python -m src.clean_labels", "deps": ["labels.csv"], "outs": ["data/prepared"]}
    del content["stages"]["prepare"]["outs"]
    Path("dvc.yaml").write_text(yaml.safe_dump({"stages": {**content["stages"], "made": made}}))
    assert set(all_seeds().inputs) == {*content["stages"], "made"}


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
    assert accuracies() == {}


def test_the_name_stands_for_all_but_what_is_varied(repository: Path) -> None:
    name = all_seeds().name()
    assert name == all_seeds(seed="7").name()
    assert name != all_seeds(lr="0.5").name()
    assert name == Configuration({"machine.workers": "3"}, ("seed",)).name()
    (repository / "src/training/loop.py").write_text("changed = 1\n")
    assert name != all_seeds().name()


def test_a_key_that_some_trials_do_not_draw_counts(repository: Path, tmp_path: Path) -> None:
    file = tmp_path / "search.yaml"
    file.write_text(
        "optimizer: {choice: [adamw, sgd]}\nlr: {log_uniform: [0.01, 0.1], if: {optimizer: sgd}}\n"
    )
    dimensions = space.read(file)

    def prefix(**changed: str) -> str:
        return search.prefix_of(dimensions, 0, search.common(dimensions, changed))

    assert prefix() == prefix(optimizer="sgd") != prefix(lr="0.5")


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
    tool: ModuleType, arguments: list[str], said: str, repository: Path, call: Call
) -> None:
    shutil.copytree(ROOT / "recipes", repository / "recipes")
    assert said in refusal(call(tool.main, *arguments))


def test_the_leaderboard_of_200_trials_takes_no_more_processes_than_of_20(
    repository: Path, processes: list[Any], call: Call
) -> None:
    shutil.copytree(ROOT / "recipes", repository / "recipes")
    dimensions = space.read()
    prefix = search.prefix_of(dimensions, 0, search.common(dimensions, {}))
    rev = head()
    started: list[int] = []
    for count in (20, 200):
        refs = "".join(
            f"update refs/exps/{rev[:2]}/{rev[2:]}/{prefix}{number:04d} {rev}\n"
            for number in range(count)
        )
        # As `dvc exp rename` leaves one.
        refs += f"update refs/exps/{rev[:2]}/{rev[2:]}/{prefix}best {rev}\n"
        subprocess.run(["git", "update-ref", "--stdin"], input=refs, text=True, check=True)
        assert len(tasks.states(lambda name: name.startswith(prefix))) == count + 1
        stored._cache.cache_clear()  # as in a new process
        before = len(processes)
        assert call(search.main)[0] == 0
        started.append(len(processes) - before)
    assert started[0] == started[1] > 0
    table = repository / f"results/search/{prefix.rstrip('-')}.csv"
    assert len(table.read_text().splitlines()) == 201


def test_a_stage_that_ended_is_told_from_one_that_was_killed(tmp_path: Path) -> None:
    info = SimpleNamespace(stdout=str(tmp_path / "log"))
    for text, state in (
        ("ERROR: failed to reproduce 'train': failed to run: x, exited with 1", "failed"),
        ("ERROR: failed to reproduce 'train': failed to run: x, exited with 2", "failed"),
        ("ERROR: failed to reproduce 'train': failed to run: x, exited with -9", "killed"),
        ("ERROR: failed to reproduce 'train': failed to run: x, exited with 143", "killed"),
        ("Running stage 'train'", "killed"),
    ):
        Path(info.stdout).write_text(text)
        assert tasks._how_it_ended(info) == state
    assert tasks._how_it_ended(None) == "killed"


def test_a_task_whose_result_is_taken_in_is_not_one_whose_worker_died(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tasks, "COLLECT_SECONDS", 1.2)
    dead = SimpleNamespace(stash_rev="a")
    assert tasks._stays("a", lambda: [dead])
    looks = iter([[dead], [SimpleNamespace(stash_rev="b")]])
    assert not tasks._stays("a", lambda: next(looks))


def test_the_inputs_are_those_of_the_stage(repository: Path) -> None:
    assert all_seeds().inputs["prepare"]["deps"] == Stage("prepare").deps_md5


def test_a_path_that_the_queue_cannot_take_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "Vögel"
    folder.mkdir()
    monkeypatch.chdir(folder)
    with pytest.raises(InputError, match=r"takes no path beyond ASCII: move the project from .*/V"):
        queue.queue_missing({"a-1": []}, Mock())
