"""A git repository with two tiny stages that are never run, so its files may hold anything."""

import os
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import yaml

from src.plumbing.dvc_files import VERSIONS_FILE
from src.plumbing.identity import locked_stage
from src.plumbing.stage import Stage
from src.tracking import run as tracking
from src.tracking.journal.journal import Record, load_record
from src.tracking.store import store
from tests import template
from tests.sharing import once_for_all

DVC_YAML = """
stages:
  train:
    cmd: python -m src.train 'data/${train_on}' '${weights}'
    deps: [src/training/loop.py, "data/${train_on}", "${weights}"]
    params: [lr, seed, augment_flip, train_on, weights, requirements/versions.yaml: [numpy]]
    outs: [models/model.safetensors]
  evaluate:
    cmd: python -m src.evaluate
    deps: [data/prepared, models/model.safetensors]
    params: [batch_size]
    outs: [results/evaluate]
"""
FILES = {
    "dvc.yaml": DVC_YAML,
    "src/training/loop.py": "loop = 1\n",
    "src/tracking/run.py": "tracking = 1\n",
    "data/prepared/meta.json": "{}\n",
    "data/subset/meta.json": '{"small": true}\n',
    "data/weights/none": "none\n",
    "models/model.safetensors": "weights\n",
}
MODEL = "models/model.safetensors"
DIGEST = "0123456789abcdef0123456789abcdef.dir"  # 36 characters, as DVC writes it
# Addresses: of a store that cannot be opened, and of a second one, without runs, in the project.
NOWHERE, OTHER = "sqlite:////proc/nothing/mlflow.db", "sqlite:///other.db"
# What would lead a test to another repository, run or server.
VARIABLES = (
    "DVC_ROOT",
    "DVC_EXP_NAME",
    "DVC_EXP_BASELINE_REV",
    "MLFLOW_TRACKING_URI",
    "MLFLOW_EXPERIMENT_NAME",
    "MLFLOW_EXPERIMENT_ID",
    "MLFLOW_RUN_ID",
)


def make_project(folder: Path, patch: pytest.MonkeyPatch) -> Path:
    """The project in `folder`, committed with the dvc.lock of its stages, as working directory."""
    for name in VARIABLES:
        patch.delenv(name, raising=False)
    for name, content in FILES.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    (folder / "params.yaml").write_text(template.params_text())
    patch.chdir(folder)
    write_versions(numpy=metadata.version("numpy"))
    write_lock()
    git("init", "--quiet")
    commit()
    return folder


def set_name(project: Path, name: str) -> None:
    """Give the project a name of its own; empty: none, so it is called by its folder."""
    if name:
        (project / "pyproject.toml").write_text(f'[project]\nname = "{name}"\n')


def write_versions(**versions: str) -> None:
    path = Path(VERSIONS_FILE)
    path.parent.mkdir(exist_ok=True)
    path.write_text(yaml.safe_dump(versions))


def git(*arguments: str) -> None:
    identity = ("-c", "user.name=Somebody", "-c", "user.email=somebody@example.org")
    subprocess.run(["git", *identity, *arguments], check=True, capture_output=True)


def commit() -> None:
    git("add", ".")
    git("commit", "--quiet", "-m", "state")


def write_lock() -> None:
    """The dvc.lock that DVC would write for the stages as they are now."""
    stages = {}
    for name in ("train", "evaluate"):
        stage = Stage(name)
        params = {"params.yaml": {key: stage.params._values[key] for key in stage.entry.params}}
        if stage.entry.versions:
            params[VERSIONS_FILE] = {key: stage.versions[key] for key in stage.entry.versions}
        deps = [{"path": path, "hash": "md5", "md5": md5} for path, md5 in stage.deps_md5.items()]
        stages[name] = {"cmd": stage.entry.cmd, "deps": deps, "params": params}
    lock = yaml.safe_dump({"schema": "2.0", "stages": stages})
    assert locked_stage(lock, "train")
    Path("dvc.lock").write_text(lock)


def inputs(project: Path) -> dict[str, tuple[bytes, bool]]:
    """The files that a result is made from: what is in them, and whether they can be run."""
    found = [project / "dvc.yaml", project / "params.yaml"]
    for folder in ("src", "requirements", "data"):
        found += [path for path in (project / folder).rglob("*") if path.is_file()]
    return {
        path.relative_to(project).as_posix(): (path.read_bytes(), os.access(path, os.X_OK))
        for path in found
    }


@contextmanager
def store_at(address: str) -> Iterator[None]:
    """Inside the block the runs go to the store with this address."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", address)
        yield


def wait_until(done: Callable[[], object]) -> None:
    """Wait for what another thread does, at most two minutes."""
    end = time.monotonic() + 120
    while not done():
        assert time.monotonic() < end
        time.sleep(0.02)


def edit(path: str, old: str, new: str) -> None:
    """Replace a text that the file must hold."""
    content = Path(path).read_text()
    assert old in content
    Path(path).write_text(content.replace(old, new, 1))


def make_tracked_project(
    folder: Path, factory: pytest.TempPathFactory, patch: pytest.MonkeyPatch
) -> Path:
    """`make_project` with two stores in it. Making their tables takes 4 s of CPU."""
    make_project(folder, patch)
    for name in ("mlflow.db", "other.db"):
        shutil.copy(empty_store(factory, patch), folder / name)
    return folder


def empty_store(factory: pytest.TempPathFactory, patch: pytest.MonkeyPatch) -> Path:
    """An mlflow.db without runs, and without the project's experiment. Read only."""
    with once_for_all("empty-store", factory) as folder:
        if not (folder / "mlflow.db").exists():
            patch.setenv("MLFLOW_EXPERIMENT_NAME", "other")
            store.open_store(folder)
            patch.delenv("MLFLOW_EXPERIMENT_NAME")
    return folder / "mlflow.db"


def artifacts(root: Path, run: Any) -> Path:
    return root / "mlartifacts" / run.info.run_id / "artifacts"


def runs(root: Path) -> list[Any]:
    """The runs of the project's experiment, the newest first."""
    client, experiment_id = store.open_store(root)
    found = client.search_runs([experiment_id], order_by=["attributes.start_time DESC"])
    return list(found)


def train_record(root: Path) -> Record:
    record = load_record(root, Stage("train").fingerprint, store.name(root))
    assert record
    return record


def history(root: Path, run: Any, key: str) -> list[tuple[int, float]]:
    client, _ = store.open_store(root)
    return [(point.step, point.value) for point in client.get_metric_history(run.info.run_id, key)]


def train(value: float = 0.5) -> None:
    """A training that succeeds, with the tags by which its run is found."""
    stage = Stage("train")
    with tracking.start(stage) as run:
        run.log_metrics({"train/loss": value}, step=1)
        run.set_tags({"model.md5": Stage("evaluate").deps_md5[MODEL]})


def train_until(error: type[BaseException], step: int = 1) -> None:
    """A training that `error` ends after an epoch: the first one, unless it goes on at `step`."""

    def log_and_raise() -> None:
        with tracking.start(Stage("train")) as run:
            run.log_metrics({"loss": 0.5**step, "nan": float("nan")}, step=step)
            raise error

    with pytest.raises(error):
        log_and_raise()


def evaluate(accuracy: float = 0.75, table: str = "", of: str = "") -> None:
    """Evaluate the training with the fingerprint `of` (else the present one), with its `table`."""
    stage = Stage("evaluate")
    with tracking.reopen(stage, of or Stage("train").fingerprint, stage.deps_md5[MODEL]) as run:
        run.log_metrics({"test/accuracy": accuracy}, step=0)
        if table:
            run.describe(table)


def wait_until_up(server: "subprocess.Popen[bytes]", address: str, log: Path) -> None:
    """Wait until a server answers at an address."""
    end = time.monotonic() + 600
    while True:
        assert server.poll() is None, log.read_text()
        assert time.monotonic() < end, log.read_text()
        try:
            urllib.request.urlopen(address, timeout=5).close()
            return
        except OSError:
            time.sleep(0.2)
