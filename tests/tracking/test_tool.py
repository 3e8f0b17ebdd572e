"""The run of a tool that looks at the workspace."""

from pathlib import Path

import pytest

from src.tracking.about import uncommitted
from src.tracking.journal import unsent
from src.tracking.store import store
from src.tracking.tool import log_run
from tests.tracking.tracked_project import DIGEST, history, runs


def log(project: Path, **given: object) -> str | None:
    """A run of lr_find with next to nothing in it."""
    found = {"metrics": {"loss": [2.0, 1.0]}, "files": [], "data": {}, **given}
    return log_run(project, "lr_find", "a look", {"lr": "0.1"}, note="", **found)  # type: ignore[arg-type]


def artifact(project: Path, run_id: str) -> bytes:
    return (project / f"mlartifacts/{run_id}/artifacts" / uncommitted.ARTIFACT).read_bytes()


def test_a_difference_in_any_encoding_is_kept_as_it_is(project: Path) -> None:
    Path("src/latin.py").write_bytes(b"# caf\xe9\r\n")
    run_id = log(project)
    assert run_id
    assert b"+# caf\xe9\r\n" in artifact(project, run_id)
    assert artifact(project, run_id) == uncommitted.difference()
    assert runs(project)[0].info.status == "FINISHED"


@pytest.mark.parametrize("start", ["", "a"])
def test_a_difference_that_is_cut_is_logged(project: Path, start: str) -> None:
    for name in ("one", "two"):
        line = "# " + "\u00e9" * 40 + "\n"
        Path(f"src/{name}.py").write_text(f"# {start}\n" + line * 9_000)
    run_id = log(project)
    assert run_id
    assert artifact(project, run_id).decode().endswith(uncommitted.CUT.decode())


def test_a_file_that_is_missing_costs_a_line(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_id = log(project, files=[project / "nosuch.png"], data={"data/prepared": DIGEST})
    [stored] = runs(project)
    assert (stored.info.run_id, stored.info.status) == (run_id, "FINISHED")
    assert history(project, stored, "loss") == [(0, 2.0), (1, 1.0)]
    assert stored.data.params == {"lr": "0.1"}
    assert stored.data.tags["stage"] == "lr_find"
    [data] = stored.inputs.dataset_inputs
    assert data.dataset.digest == DIGEST
    line = f"tracking: cannot log {project}/nosuch.png: there is no such file\n"
    assert capsys.readouterr().err == line


def test_without_a_store_the_run_waits(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "name", lambda root: "the store")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:////proc/nothing/mlflow.db")
    for _ in range(2):  # each is a run of its own
        assert log(project, files=[project / "params.yaml"]) is None
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    sent = unsent.send_all(project)
    assert (sent.made, sent.points, sent.files) == (2, 4, 2)
    assert [run.info.status for run in runs(project)] == ["FINISHED"] * 2
    assert history(project, runs(project)[0], "loss") == [(0, 2.0), (1, 1.0)]


def test_a_run_that_is_interrupted_ends_as_killed(project: Path) -> None:
    class Interrupting(list[float]):
        def __iter__(self) -> None:  # type: ignore[override]
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        log(project, metrics={"loss": Interrupting()})
    assert runs(project)[0].info.status == "KILLED"
