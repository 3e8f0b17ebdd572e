"""From an experiment, a commit or the workspace to its metrics and its MLflow runs."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from src import where
from src.base.imports import ROOT
from src.experiments import target
from src.plumbing import dvc_files, hashes, identity
from src.plumbing.errors import InputError
from src.plumbing.identity import METRICS
from src.tracking.journal import journal
from src.tracking.store import store
from tests import template
from tests.conftest import STAGES, set_params
from tests.experiments.conftest import Call
from tests.experiments.stored_results import lock_of_stages
from tests.tracking.tracked_project import VARIABLES, edit, empty_store, git

DATA = "data/prepared"
MODEL = "models/model.json"
VERDICT = "results/overfit_check/verdict.json"
DVC_YAML = f"""
stages:
  prepare: {{cmd: a, deps: [src/prepare.py], params: [prepare.size], outs: [{DATA}]}}
  subset: {{cmd: b, deps: [src/subset.py, {DATA}], params: [subset.seed], outs: [data/subset]}}
  overfit-check: {{cmd: c, deps: [data/subset], params: [lr], outs: [{VERDICT}]}}
  train: {{cmd: d, deps: [src/train.py, {DATA}, {VERDICT}], params: [lr, seed], outs: [{MODEL}]}}
  evaluate: {{cmd: e, deps: [src/evaluate.py, {MODEL}], params: [batch_size], metrics: [{METRICS}]}}
"""


def write_result(accuracy: float, model: str = "network") -> None:
    """Outputs of the stages as they might be, and the dvc.lock that DVC would write for them."""
    group: dict[str, float] = {"n": 360, "accuracy_low": 0.85, "accuracy_high": 0.999}
    group |= {"macro_f1": 0.9, "log_loss": 0.04, "baseline_accuracy": 0.966}
    texts = {DATA: "data", "data/subset": "data", VERDICT: "{}", MODEL: model}
    for name in STAGES:
        texts[f"src/{name.replace('-', '_')}.py"] = f"name = '{name}'\n"
    texts[METRICS] = json.dumps({"val": group | {"accuracy": accuracy}, "test": group})
    for path, text in texts.items():
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_text(text)
    Path("dvc.lock").write_text(lock_of_stages())


def fingerprint(stage: str = "train") -> str:
    entry = identity.locked_stage(Path("dvc.lock").read_text(), stage)
    return identity.fingerprint_of(entry) if entry else ""


def record(root: Path, name: str, run_id: str, stage: str = "train") -> None:
    """What the tracker notes for the run of a stage of the workspace's dvc.lock."""
    path = journal.record_path(root, fingerprint(stage))
    where = store.name(root)
    journal.Record(path, run_id, "1", name, stage, "finished", store=where).save()


def rev(name: str) -> str:
    return subprocess.check_output(["git", "rev-parse", name], text=True).strip()


def make_experiment(name: str, accuracy: float, root: Path, **params: object) -> None:
    """An experiment as DVC leaves it: a commit that only a ref below refs/exps names."""
    baseline = rev("HEAD")
    set_params(root, **params)
    write_result(accuracy, f"network of {name}")
    record(root, f"train {name}", f"run-of-{name}")
    git("checkout", "--quiet", "--detach")
    git("commit", "--quiet", "--all", "--message", "experiment")
    git("update-ref", f"refs/exps/{baseline[:2]}/{baseline[2:]}/{name}", "HEAD")
    git("checkout", "--quiet", "-")


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository: a commit without dvc.lock, then one with; an experiment with lr 0.003."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "dvc.yaml").write_text(DVC_YAML)
    (tmp_path / "params.yaml").write_text(template.params_text())
    set_params(tmp_path, lr="0.00001", workers=0)  # whatever the project has today
    (tmp_path / "requirements").mkdir()
    shutil.copy(ROOT / dvc_files.VERSIONS_FILE, tmp_path / "requirements")
    (tmp_path / ".gitignore").write_text("/.cache/\n")
    git("init", "--quiet", "--initial-branch=main")
    git("add", ".")
    git("commit", "--quiet", "--message", "start")
    write_result(0.98)
    record(tmp_path, "train first", "run-of-workspace")
    record(tmp_path, "overfit-check first", "run-of-check", "overfit-check")
    git("add", ".")
    git("commit", "--quiet", "--message", "a subject that is longer than the forty letters shown")
    make_experiment("lunar-tape", 0.99, tmp_path, lr=0.003)
    return tmp_path


def find(root: Path, name: str | None = None) -> where.Found:
    return where.find(target.resolve(name), root)


def accuracy(found: where.Found) -> float:
    return (found.metrics or {})["val"]["accuracy"]


def test_workspace(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = find(root)
    assert accuracy(found) == 0.98
    assert (found.changed, found.missing) == ([], {})
    text = where.render(found, None)
    assert max(len(line) for line in text.splitlines() if "http:" not in line) <= 100
    for part in ("train first", "http://127.0.0.1:5000/#/experiments/1/runs/run-of-workspace?"):
        assert part in text
    row = "val        360    0.9800  0.8500 - 0.9990    0.9000    0.0400               0.9660"
    assert row in text
    monkeypatch.setenv(
        "MLFLOW_TRACKING_URI", "https://me:secret@mlflow.example.org/team?token=secret"
    )
    record(root, "train first", "run-of-workspace")
    record(root, "overfit-check first", "run-of-check", "overfit-check")
    text = where.render(find(root), None)
    assert "https://mlflow.example.org/team/#/experiments/1/runs/run-of-workspace?" in text
    assert not any(part in text for part in ("secret", "make ui"))


def test_the_run_of_an_evaluation_with_other_settings(root: Path) -> None:
    record(root, "train baseline", "a" * 32)
    record(root, "evaluate evaluate.flip=true", "b" * 32, "evaluate")
    found = find(root)
    assert [run["run_id"][0] for run in found.runs.values()] == ["a", "r", "b"]
    assert "  evaluate       evaluate evaluate.flip=true\n" in where.render(found, None)


def test_the_run_of_a_stage_of_ones_own(root: Path) -> None:
    lock = Path("dvc.lock").read_text()
    entry = (
        "  report:\n    cmd: python -m src.report\n    deps:\n    - path: models\n      md5: '1'\n"
    )
    Path("dvc.lock").write_text(lock + entry)
    assert "report" not in find(root).runs
    record(root, "report first", "run-of-report", "report")
    assert find(root).runs["report"]["name"] == "report first"
    assert "report first" in where.render(find(root), None)


def test_a_run_in_a_store_that_was_in_use_before(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///a%20b.db")
    text = where.render(find(root), None)
    assert "MLflow runs in sqlite:///" in text
    assert "train first in sqlite:///mlflow.db\n" in text
    assert "open it with MLFLOW_TRACKING_URI=sqlite:///mlflow.db\n" in text
    assert "http:" not in text
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://me:secret@mlflow.example.org")
    record(root, "train there", "run-there")
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    found = find(root).runs["train"]
    assert found["run_id"] == "run-of-workspace"  # that of the present store is kept
    kept = list((root / ".cache/runs").glob("*-*.json"))
    for path in kept:
        path.unlink()
    found = find(root).runs["train"]
    assert (found["run_id"], found["store"]) == ("run-there", "https://mlflow.example.org")
    assert found["address"].startswith("https://mlflow.example.org/#/experiments/1/runs/run-there?")


def test_experiment_without_a_checkout(root: Path) -> None:
    named = target.resolve("lunar-tape")
    found = where.find(named, root)
    assert accuracy(found) == 0.99
    assert found.runs["train"]["run_id"] == "run-of-lunar-tape"
    text = where.render(found, named.experiment)
    assert "dvc exp apply lunar-tape" in text
    assert f"on commit {rev('HEAD')[:7]}" in text
    assert max(len(line) for line in text.splitlines() if "http:" not in line) <= 100
    assert subprocess.check_output(["git", "status", "--porcelain"]) == b""
    assert find(root, named.rev).runs["train"] == found.runs["train"]
    assert find(root, "main").runs["train"]["run_id"] == "run-of-workspace"


def test_the_experiment_below_head_goes_before_one_of_the_same_name(root: Path) -> None:
    git("commit", "--quiet", "--allow-empty", "--message", "next")
    assert find(root, "lunar-tape").runs["train"]["run_id"] == "run-of-lunar-tape"
    make_experiment("lunar-tape", 0.95, root, seed=3)
    assert accuracy(find(root, "lunar-tape")) == 0.95
    git("commit", "--quiet", "--allow-empty", "--message", "next")
    with pytest.raises(InputError, match="2 experiments are called lunar-tape: give one of"):
        target.resolve("lunar-tape")


def test_a_name_without_a_result(root: Path, call: Call) -> None:
    queue = [("failed", "bad-luck", "HEAD"), ("stash", "bad-luck", "HEAD")]
    for stash, name, commit in [*queue, ("stash", "in-line", "HEAD~1")]:
        message = f"commit: dvc-exp:{rev('HEAD')}:{rev('HEAD')}:{name}"
        git("update-ref", "--create-reflog", "-m", message, f"refs/exps/celery/{stash}", commit)
    for name, line in {
        "lunar-tap": "no experiment or commit is called 'lunar-tap', did you mean lunar-tape?",
        "mian": "no experiment or commit is called 'mian', did you mean main?",
        "": "no experiment or commit is called ''; see `make table`",
        "ab" * 16: f"no commit, experiment or MLflow run is called '{'ab' * 16}'",
        "zzzz": "no experiment or commit is called 'zzzz'; see `make table`",
        "main~1": f'commit {rev("main~1")[:7]} "start": there is no dvc.lock yet; '
        "`make repro` makes it",
        "bad-luck": "experiment bad-luck failed: `dvc queue logs bad-luck` says why",
        "in-line": "experiment in-line is queued or running: `dvc queue status` shows it",
    }.items():
        assert call(where.main, name) == (2, "", line + "\n")
    assert not Path("mlflow.db").exists()  # looking for a run creates no store


def test_metrics_of_another_network_are_not_shown(root: Path) -> None:
    original = Path(METRICS).read_text()
    Path(METRICS).write_text(original.replace("0.98", "0.99"))
    assert find(root).metrics is None
    Path(METRICS).unlink()  # as while evaluate runs
    text = where.render(find(root), None)
    assert "no results/evaluate/metrics.json of this network" in text
    Path(METRICS).write_text(original)
    # Train has run again, evaluate has not: the first is what train made.
    edit("dvc.lock", hashes.md5_of(MODEL), "0" * 32)
    assert find(root).metrics is None


def test_what_changed_since_the_last_run(root: Path) -> None:
    set_params(root, lr="1e-5")  # dvc.lock spells it 1.0e-05
    assert find(root).changed == []
    set_params(root, lr="0.5", workers=3)
    Path("src/train.py").write_text("edited = True\n")
    text = where.render(find(root), None)
    assert "changed since: lr=0.5, src/train.py; run `dvc repro`\n" in text
    assert find(root, "main").changed == []
    set_params(root, lr="abc")
    assert find(root).changed == ["params.yaml: lr must be a number > 0, got 'abc'"]


def test_a_lock_without_a_trained_network(root: Path) -> None:
    whole = Path("dvc.lock").read_text()
    stages = yaml.safe_load(whole)["stages"]
    for content, line in (
        (yaml.safe_dump({"stages": {"prepare": stages["prepare"]}}), "has no entry of train"),
        ("", "has no entry of train"),
        ("<<<<<<< HEAD\n" + whole, "cannot be read"),
        ("- a\n- b\n", "cannot be read"),
        (whole.replace("  train:\n    cmd:", "  train:\n    command:"), "cannot be read"),
    ):
        Path("dvc.lock").write_text(content)
        with pytest.raises(InputError, match=line):
            find(root)


def test_neither_record_nor_store_makes_no_store(root: Path) -> None:
    shutil.rmtree(root / ".cache")
    assert where.render(find(root), None).count("none here") == 2
    assert not (root / "mlflow.db").exists()


def test_command_line_answers_without_mlflow(root: Path) -> None:
    code = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r}); sys.argv[1:] = ['--json']\n"
        "from src.where import main; main()\n"
        "assert not {'mlflow', 'rich', 'torch', 'dvc'} & sys.modules.keys()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["runs"]["train"]["run_id"] == "run-of-workspace"


def test_a_store_that_cannot_be_opened_costs_a_line(
    root: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(root / ".cache")
    for name, uri in {
        "a b%20#c?d.db": "sqlite:///a b%2520%23c%3Fd.db?timeout=5",
        "e.db": f"sqlite:///{root}/e.db?timeout=5",
    }.items():
        (root / name).write_text("garbage " * 100)
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        text = where.render(find(root), None)
        line = f"MLflow does not answer ({root / name} cannot be opened: file is not a database)"
        assert text.count(line) == 1  # and the store is not asked again
    assert capfd.readouterr() == ("", "")


@pytest.mark.slow
def test_without_a_record_the_run_with_the_fingerprint_whoever_made_it(
    root: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.rmtree(root / ".cache")
    shutil.copy(empty_store(tmp_path_factory, monkeypatch), root)
    set_params(root, tracking="false")  # says nothing of those who log
    assert "none here" in where.render(find(root), None)
    client = store.connect(root)
    assert not client.get_experiment_by_name(root.name)  # to look is not to make one
    experiment_id = client.create_experiment("of the first clone")
    for name, tag, state in (
        ("older", fingerprint(), "FINISHED"),
        ("newer", fingerprint(), "FINISHED"),
        ("newest", fingerprint(), "KILLED"),
        ("other", "0" * 64, "FINISHED"),
    ):
        tags = {"fingerprint": tag, "mlflow.user": f"Ada the {name}"}
        run = client.create_run(experiment_id, run_name=name, tags=tags)
        client.set_terminated(run.info.run_id, state)
    found = find(root)
    assert (found.runs["train"]["name"], found.runs["train"]["state"]) == ("newer", "finished")
    assert list(found.missing) == ["overfit-check"]
    text = where.render(found, None)
    assert "  train          newer, by Ada the newer\n" in text
    assert f"/#/experiments/{experiment_id}/runs/{found.runs['train']['run_id']}?" in text
    # A failed experiment leaves nothing in git, but its run.
    experiment_id = store.open_store(root)[1]
    run = client.create_run(experiment_id, run_name="lost", tags={"dvc.exp_name": "too-fast"})
    client.set_terminated(run.info.run_id, "FAILED")
    line = rf"^too-fast left no result in git; its run lost \(failed\) .*{run.info.run_id}\b"
    with pytest.raises(InputError, match=line):
        target.resolve("too-fast")


@pytest.mark.slow
def test_a_server_that_is_down_costs_a_line(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.rmtree(root / ".cache")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    text = where.render(find(root), None)
    assert text.count("MLflow does not answer") == 1
    assert text.count("none here") == 2
    assert "0.9800" in text


def test_a_run_is_that_of_the_evaluation_whose_figures_it_has() -> None:
    """The same model may have been evaluated with other settings in other commits."""
    settings = "data=0123.dir evaluate.flip=false evaluate.refresh_batchnorm=none threads=2"
    given = {"evaluate.flip": False, "evaluate.refresh_batchnorm": "none", "threads": 2}

    def alike(**other: object) -> int:
        params = given | {f"evaluate.{key}": value for key, value in other.items()}
        return target._equal_settings(
            {"evaluate.settings": settings}, {"evaluate": {"params": params}}
        )

    assert alike() > alike(flip=True) > alike(flip=True, refresh_batchnorm="test")


def test_intervals_over_groups_say_so() -> None:
    def shown(**more: float) -> str:
        metrics = {"val": {"n": 360, "accuracy": 0.9, **more}}
        missing = dict.fromkeys(where.LISTED, "none here")
        return where.render(where.Found("x", None, metrics=metrics, missing=missing), None)

    assert "intervals over groups: 12 of val" in shown(groups=12)
    assert "groups" not in shown()
