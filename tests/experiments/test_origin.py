"""A model that was not made from the inputs beside which it stands in dvc.lock: who shows it, says
so. tests/pipeline/test_edits.py does it with `dvc commit`."""

import json
import shutil
from pathlib import Path

import pytest

from src import compare, table, verify, where
from src.experiments import origin, stored, target
from src.plumbing import git, identity
from src.tracking.log import MODEL_MD5
from tests.experiments.conftest import Call, NewRun, refusal
from tests.experiments.stored_results import Project, add_group, md5
from tests.tracking.tracked_project import MODEL

OTHER = "0" * 64
LINE = "not made from these inputs: models/model.json is of others than dvc.lock names"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """HEAD, and experiments: as they should be, of an unknown origin, and of HEAD's training."""
    made = Project(tmp_path_factory.mktemp("origin") / "project")
    add_group(made, "good", [5, 6], lr=0.002)
    made.add("unknown", 2, lr=0.003, made_from=OTHER)
    made.add("of-head", 2, lr=0.004, made_from=fingerprint(made.root, "HEAD"))
    made.add("absent", 2, lr=0.005, made_from=OTHER, cached=False)
    made.write()
    return made


@pytest.fixture
def project(made: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    return made.copy(tmp_path / "project", monkeypatch)


def fingerprint(root: Path, rev: str) -> str:
    lock = git.output("show", f"{rev}:./dvc.lock", folder=root)
    return identity.fingerprint_of(stored.stages_of(lock or "")["train"])


def train_of(name: str) -> identity.Entry:
    return target.resolve(name).locked()[1]["train"]


def test_the_line_names_what_differs_where_a_commit_has_it(project: Project) -> None:
    root = project.root
    assert origin.remark(train_of("HEAD"), root) == origin.remark(train_of("good-0"), root) == ""
    end = ", as after `dvc commit`; `dvc repro --force train` makes one of these"
    assert origin.remark(train_of("unknown"), root) == LINE + end
    assert origin.remark(train_of("of-head"), root) == f"{LINE} (lr=0.004){end}"
    assert origin.remark(train_of("absent"), root) == ""  # its description is not here


def test_where_says_it_and_shows_the_run_that_made_it(project: Project, new_run: NewRun) -> None:
    right = where.find(target.resolve("good-0"), project.root)
    assert right.origin == ""
    assert "not made from" not in where.render(right, None)
    run_id = new_run({"fingerprint": fingerprint(project.root, "HEAD")})
    found = where.find(target.resolve("of-head"), project.root)
    assert where.render(found, None).splitlines()[1].startswith(f"{LINE} (lr=0.004)")
    assert found.runs["train"]["run_id"] == run_id


def test_where_says_it_in_the_workspace(project: Project, call: Call) -> None:
    lock = git.output("show", f"{target.resolve('unknown').rev}:./dvc.lock")
    Path("dvc.lock").write_text(lock or "")
    cached = stored.in_cache(train_of("unknown")["outs"][identity.MODEL], project.root)
    Path("models").mkdir()
    shutil.move(str(cached), identity.MODEL)
    code, printed, _ = call(where.main, "--json")
    assert (code, json.loads(printed)["origin"][: len(LINE)]) == (0, LINE)


def test_without_its_description_the_weights_lead_to_a_run(
    project: Project, new_run: NewRun
) -> None:
    """The relative: somebody pulled the commit, not the model; the server knows who made it."""
    run_id = new_run({"fingerprint": OTHER, MODEL_MD5: train_of("absent")["outs"][MODEL]})
    found = where.find(target.resolve("absent"), project.root)
    start = "none of these inputs; of others, with the same weights: run, http"
    assert found.missing["train"].startswith(start)
    assert run_id in found.missing["train"]


def test_the_table_does_not_show_its_figures(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = []
    for name in ("good-0", "of-head"):
        rev = target.resolve(name).rev
        params = table._texts(train_of(name)["params"])
        shown = table.Row(name, "", 0.9, 0.9, None, params)
        rows.append(table._without_old_metrics(shown, git.output("show", f"{rev}:./dvc.lock")))
    assert [(row.state, row.val, row.test) for row in rows] == [
        ("", 0.9, 0.9),
        ("other inputs", None, None),
    ]
    table.show(rows, 0, final=False)
    line = "of-head: not made from the inputs in dvc.lock; src.where says more\n"
    assert line in capsys.readouterr().out


def test_it_is_not_compared(project: Project, call: Call) -> None:
    assert call(compare.main, "HEAD", "lr=0.002")[0] == 0
    for arguments in (("HEAD", "unknown"), ("lr=0.004", "HEAD")):
        assert LINE in refusal(call(compare.main, *arguments))


def test_it_is_not_verified(project: Project, call: Call) -> None:
    code, printed, said = call(verify.main, "unknown")
    assert (code, printed) == (1, "")
    assert said.startswith("verify: experiment unknown (")
    assert f" was {LINE}" in said


def test_seeds_and_search_name_it(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    results = stored.results_at(
        {name: str(target.resolve(name).rev) for name in ("good-0", "unknown")}
    )
    origin.warn_of(results.values(), project.root)
    said = capsys.readouterr().err
    assert said.startswith(f"unknown was {LINE}")
    assert said.count("\n") == 1


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"fingerprint": 1'])
def test_a_description_that_names_no_fingerprint_says_nothing(text: str) -> None:
    outs = {identity.MODEL: md5(text)}
    entry = {"cmd": "", "deps": {}, "params": {}, "outs": outs}
    assert identity.other_origin(entry, text) == ""
