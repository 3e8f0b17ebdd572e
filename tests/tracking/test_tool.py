"""The run of a tool that looks at the workspace."""

from pathlib import Path

import pytest

from src.tracking.about import uncommitted
from src.tracking.tool import log_run
from tests.tracking.tracked_project import runs


def log(project: Path, **given: object) -> str | None:
    """A run of lr_find with next to nothing in it."""
    found = {"params": {"lr": "0.1"}, "metrics": {"loss": [2.0, 1.0]}, "files": [], **given}
    return log_run(project, "lr_find", "a look", data={}, note="", **found)  # type: ignore[arg-type]


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


def test_a_run_that_cannot_be_filled_ends_as_failed(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert log(project, files=[project / "nosuch.png"]) is None
    [stored] = runs(project)
    assert stored.info.status == "FAILED"
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(f"tracking: the run {stored.info.run_id} of lr_find lacks a part: ")


def test_a_run_that_is_interrupted_ends_as_killed(project: Path) -> None:
    class Interrupting(list[float]):
        def __iter__(self) -> None:  # type: ignore[override]
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        log(project, metrics={"loss": Interrupting()})
    assert runs(project)[0].info.status == "KILLED"
