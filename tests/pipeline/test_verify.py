"""`python -m src.verify`: the real pipeline again, from its sources alone."""

import json
import sqlite3
import sys
from pathlib import Path

import pytest
from mlflow import MlflowClient

from src.plumbing.hashes import md5_of
from tests.conftest import set_params
from tests.pipeline.clone import commit, lock, run

pytestmark = pytest.mark.slow(seconds=60)


def verified(folder: Path) -> dict[str, str]:
    """The tag of each run that has it."""
    with sqlite3.connect(folder / "mlflow.db") as store:
        return dict(store.execute("SELECT run_uuid, value FROM tags WHERE key = 'verified'"))


def add_alike(folder: Path, run_id: str) -> str:
    """A newer run with the inputs and the model of another."""
    client = MlflowClient(tracking_uri=f"sqlite:///{folder}/mlflow.db")
    old = client.get_run(run_id)
    tags = {key: old.data.tags[key] for key in ("stage", "fingerprint", "model.md5")}
    return str(client.create_run(old.info.experiment_id, tags=tags).info.run_id)


def rows(folder: Path) -> int:
    with sqlite3.connect(folder / "mlflow.db") as store:
        (count,) = store.execute("SELECT count(*) FROM metrics").fetchone()
        return int(count)


def test_the_run_of_an_experiment_is_reproduced_to_the_bit(
    clone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))  # where verify works
    where = json.loads(run(clone, sys.executable, "-m", "src.where", "higher", "--json"))
    before, points = lock(clone), rows(clone)
    alike = add_alike(clone, where["runs"]["train"]["run_id"])
    printed = run(clone, sys.executable, "-m", "src.verify", alike)
    assert "every output is equal" in printed
    assert "is reproduced, tier bit" in printed
    assert verified(clone) == {alike: "bit"}
    assert rows(clone) == points  # nothing but the tag was written
    assert lock(clone) == before
    assert run(clone, "git", "status", "--porcelain") == ""
    assert not any(tmp_path.glob("verify-*"))  # torch leaves an empty folder of its own there


def test_a_planted_difference_is_named(clone: Path) -> None:
    set_params(clone, tracking="false")
    commit(clone, "untracked")
    start = run(clone, "git", "rev-parse", "HEAD").strip()

    def refused(*words: str) -> None:
        commit(clone, "planted")
        printed = run(clone, sys.executable, "-m", "src.verify", code=1)
        assert all(word in printed for word in words), printed
        run(clone, "git", "reset", "--quiet", "--hard", start)

    path = clone / "src/training/loop.py"
    path.write_text(path.read_text().replace("LOG_EVERY = 50", "LOG_EVERY = 51"))
    refused("was not made from its own files", "src/training/loop.py has changed")
    path = clone / "data/builtin/README.md"
    path.write_bytes(path.read_bytes().replace(b"e", b"f", 1))
    refused("prepare: data/builtin/README.md has changed")
    path = clone / "requirements/versions.yaml"
    path.write_text(path.read_text().replace("numpy: ", "numpy: 0."))
    refused("prepare: numpy is 0.")
    set_params(clone, lr="0.002")
    refused("overfit-check: lr is 0.002, was 0.001")
    for name in ("evaluate/metrics.json", "train/history.csv"):
        path = clone / "results" / name
        path.write_text(path.read_text().replace("0.", "1.", 1))
        refused("in git are not those of its dvc.lock", f"results/{name} is not what")
    # A result that these inputs do not give: one digit of a metric and its hash.
    metrics = clone / "results/evaluate/metrics.json"
    old = md5_of(metrics)
    metrics.write_text(metrics.read_text().replace("0.", "1.", 1))
    new = md5_of(metrics)
    text = lock(clone)
    assert old in text
    (clone / "dvc.lock").write_text(text.replace(old, new))
    refused("evaluate: output results/evaluate/metrics.json differs", "is NOT reproduced")


def test_what_is_not_there_is_said_in_a_line(clone: Path) -> None:
    for name, words in (
        ("nosuch", "no experiment or commit is called 'nosuch'"),
        ("0123456789abcdef0123456789abcdef", "no commit, experiment or MLflow run is called"),
    ):
        printed = run(clone, sys.executable, "-m", "src.verify", name, code=2)
        assert words in printed
