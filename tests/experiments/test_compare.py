"""`python -m src.compare`: what changed, whether it is more than noise, and what it refuses."""

import json
import subprocess
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from src import compare, where
from src.experiments import stored, target
from src.experiments.compare import changes, figure, groups, predictions, text
from src.experiments.stored import Result
from src.plumbing import git
from src.plumbing.errors import InputError
from src.plumbing.identity import METRICS, fingerprint_of
from src.tracking import lookup
from src.tracking.log import DESCRIPTION
from tests.experiments.conftest import Call, NewRun, refusal
from tests.experiments.stored_results import PREDICTIONS, Project, add_group, md5
from tests.tracking.tracked_project import MODEL
from tests.tracking.tracked_project import git as run_git

Tool = Callable[..., tuple[int, str, str]]  # the arguments to exit code, stdout, stderr
BASE = [5, 6, 7, 8, 5, 7]  # that of seed 0 is HEAD's
BETTER = [3, 2, 2, 4, 2, 3]
CODE = "src/training/loop.py"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Six seeds of a baseline (0: HEAD), a better and an equal rate; and what `compare` refuses."""
    made = Project(tmp_path_factory.mktemp("compare") / "project")
    add_group(made, "base", BASE)
    add_group(made, "fast", BETTER, lr=0.003)
    add_group(made, "same", [6, 6, 6, 7, 6, 7], lr=0.002)
    made.add("both", 4, lr=0.003, model="resnet18")
    made.add("coded", 4, code="2")
    made.add("other-data", 4, data="e" * 32 + ".dir")
    made.add("unfinished", 4, lr=0.004, evaluated=False)
    made.add("grouped", 1, lr=0.006, groups=12)
    made.add("lost", 1, lr=0.005, cached=False, seed=99)
    made.write()
    return made


@pytest.fixture
def project(made: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    return made.copy(tmp_path / "project", monkeypatch)


@pytest.fixture
def tool(call: Call, project: Project) -> Tool:
    return partial(call, compare.main)


def rev_of(experiment: str) -> str:
    return next(item.rev for item in git.experiments() if item.name == experiment)


def result_at(rev: str) -> Result:
    """The result of a commit by its dvc.lock, without metrics."""
    [lock] = git.read_at([(rev, "dvc.lock")])
    return Result(rev, rev, stored.stages_of(str(lock)), {})


def test_a_change_that_helps_is_called_better(tool: Tool, project: Project) -> None:
    code, out, _ = tool("HEAD", "fast-3", "--json")
    assert code == 0
    found = json.loads(out)
    [item] = found["comparisons"]
    assert item["changed"]["params"] == {"lr": ["0.001", "0.003"]}
    assert item["changed"]["code"] == []
    assert item["seeds"] == [0, 1, 2, 3, 4, 5]
    assert item["verdict"] == "better"
    gains = [(one - other) / 360 for one, other in zip(BASE, BETTER, strict=True)]
    assert item["training"]["difference"] == pytest.approx(np.mean(gains), rel=1e-4)
    assert item["images_seeds"] == [3, 3]  # that of the name, which HEAD's group has too
    assert item["images"]["only_second"] - item["images"]["only_first"] == 8 - 4
    assert found["looks"] is None
    assert (project.root / found["figure"]).read_bytes().startswith(b"\x89PNG")
    assert subprocess.check_output(["git", "status", "--porcelain"]) == b""


def test_any_metric_can_decide(tool: Tool) -> None:
    """Of a loss less is better."""
    by_accuracy, by_loss = (
        json.loads(tool("HEAD", "fast-3", "--json", *more)[1])
        for more in ((), ("--metric", "log_loss"))
    )
    [hits], [losses] = by_accuracy["comparisons"], by_loss["comparisons"]
    assert (by_loss["metric"], losses["verdict"]) == ("log_loss", "better")
    assert losses["training"]["difference"] == -hits["training"]["difference"] < 0
    assert losses["training"]["better"] == hits["training"]["better"]
    assert losses["images"] == hits["images"]
    assert "Log loss on val, by seeds" in tool("HEAD", "fast-3", "--metric", "log_loss")[1]
    line = refusal(tool("HEAD", "fast-3", "--metric", "log_los"))
    assert "HEAD: no metric log_los in results/evaluate/metrics.json of seed 0" in line
    assert "did you mean log_loss?; it has n, accuracy, log_loss" in line


def test_the_same_groups_are_found_by_params(tool: Tool) -> None:
    by_name = json.loads(tool("HEAD", "fast-0", "--json")[1])
    code, out, err = tool("lr=1e-3", "lr=0.003", "--json")
    assert (code, err) == (0, "")
    by_params = json.loads(out)
    for one, other in zip(by_name["groups"], by_params["groups"], strict=True):
        assert one["by_seed"] == other["by_seed"]


def test_two_changes_warn(tool: Tool) -> None:
    code, out, _ = tool("HEAD", "both")
    assert code == 0
    assert "WARNING: 2 things changed (param model, param lr)" in out
    assert "undecided: 1 common seed, 5 are needed" in out
    assert "src.seeds 5; python -m src.seeds 5 -S model=resnet18 -S lr=0.003" in out
    assert "these images and these two networks, not about training again" in out
    assert max(len(line) for line in out.splitlines() if "WARNING" not in line) <= 100
    code, out, _ = tool("base-1", "fast-1")
    assert "WARNING" not in out
    code, out, _ = tool("HEAD", "coded")
    assert f"code     {CODE}" in out  # dvc.lock names its folder only


def test_code_that_moved_into_a_folder_did_not_change(project: Project) -> None:
    """A commit may list a file, and the next one the folder that it lies in."""
    before = result_at(git.head())
    listed = Path("dvc.lock").read_text().replace("path: src/training\n", f"path: {CODE}\n")
    after = replace(before, stages=stored.stages_of(listed))
    assert changes.between(before, after).code == []
    Path(CODE).write_text("edited = 1\n")
    run_git("commit", "--quiet", "-am", "edited")
    assert changes.between(before, replace(after, rev=git.head())).code == [CODE]


def test_an_edit_that_made_no_result_is_no_change(project: Project) -> None:
    """Committed without running it: the lock, and so the result, is that of the code before."""
    before = git.head()
    Path("src/training/new.py").write_text("new = 1\n")
    run_git("add", "src")
    run_git("commit", "--quiet", "-m", "edited")
    coded = result_at(rev_of("coded"))
    for rev in (before, git.head()):
        assert changes.between(result_at(rev), coded).code == [CODE]


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (("HEAD", "other-data"), "were evaluated on different data"),
        (("HEAD", "nosuch"), "no experiment or commit is called 'nosuch'"),
        (("HEAD", "unfinished"), "is not finished"),
        (("HEAD", "lost"), "lost has no predictions here"),
        (("HEAD", "base-4"), "are the same configuration but for the seed"),
        (("HEAD", "lr=0.7"), "no finished experiment has lr=0.7: `dvc exp run -S lr=0.7`"),
        (("HEAD", "lrr=0.7"), "unknown key lrr, did you mean lr?"),
        (("HEAD", "lr=abc"), "lr must be a number"),
        (("HEAD", "seed=3"), "leave seed= out"),
        (("HEAD", "lr=0.003,lr=0.002"), "gives a param twice"),
        (("HEAD", "prepare.size=64"), "prepare.size is no param of train or evaluate"),
        (("HEAD", "workspace"), "the workspace has changed"),
        (("HEAD",), "compare needs two names or more"),
    ],
)
def test_what_cannot_be_compared_is_refused_in_a_line(
    tool: Tool, names: tuple[str, ...], words: str
) -> None:
    assert words in refusal(tool(*names))


def test_the_curves_of_the_workspace_stand_beside_those_of_commits(project: Project) -> None:
    [group] = groups.find(["fast-2"], project.root)
    here = replace(group.named, rev=None)
    both = groups.Group("workspace", here, {2: group.named, 3: here})
    assert len(figure._histories(both)) == 2


def test_many_comparisons_are_corrected(tool: Tool) -> None:
    [alone] = json.loads(tool("HEAD", "fast-0", "--json")[1])["comparisons"]
    both = json.loads(tool("HEAD", "fast-0", "same-0", "--json")[1])["comparisons"]
    assert both[0]["p_corrected"] == pytest.approx(2 * alone["p_corrected"], rel=1e-4)
    assert both[1]["verdict"] == "undecided"
    said = "corrected for 2 comparisons (Holm), the interval is not"
    assert said not in tool("HEAD", "fast-0")[1]
    assert tool("HEAD", "fast-0", "same-0")[1].count(said) == 4  # t and McNemar, of two
    code, out, _ = tool("HEAD", "fast-0", "same-0", "--markdown", "--log", "many")
    assert (code, out.count(said)) == (0, 4)
    assert Path("docs/experiments.md").read_text().count(said) == 2


def test_looks_at_test_are_counted_and_entries_logged(tool: Tool, project: Project) -> None:
    path = project.root / "docs/experiments.md"
    assert tool("HEAD", "nosuch", "--final")[0] == 2
    assert "so far: 0\n" in path.read_text()
    for number in (1, 2):
        code, out, _ = tool("HEAD", "fast-0", "--final")
        assert (code, f"look {number} at test" in out) == (0, True)
    assert "Accuracy on test" in out
    assert "so far: 2\n" in path.read_text()
    before = path.read_text()
    tool("HEAD", "same-0", "--log", "the curve was\nflat")
    added = path.read_text().removeprefix(before.rstrip("\n"))
    assert added.startswith("\n\n## 20")
    assert "- Tried: param lr: 0.001 → 0.002\n- Why: the curve was flat\n" in added
    assert "- Came out: undecided: accuracy on val" in added


def test_markdown_says_what_the_terminal_says(tool: Tool) -> None:
    _, out, _ = tool("HEAD", "fast-0", "--markdown")
    assert out.startswith("### `fast-0` against `HEAD`: better\n\n- param lr: 0.001 → 0.003\n")
    assert "| `fast-0` | 6 |" in out
    assert "not about training again" in out


def test_what_is_noise_is_read_from_the_same_results(project: Project) -> None:
    found = stored.with_any_seed(result_at("HEAD").stages)
    assert sorted(found) == list(range(6))  # other rates, code, data: none
    assert found[3].metrics["val"]["accuracy"] == pytest.approx(1 - BASE[3] / 360)


def test_200_experiments_take_no_more_processes_than_20(
    project: Project, processes: list[Any]
) -> None:
    """What would grow with the store is a process for each experiment."""
    groups.find(["HEAD", "fast-0", "lr=0.002"], project.root)
    few = len(processes)
    for number in range(200):
        project.add(f"more-{number}", 5, lr=0.01 + number / 1e5, cached=False)
    project.write()
    processes.clear()
    groups.find(["HEAD", "fast-0", "lr=0.002"], project.root)
    assert len(processes) == few


def test_a_picture_of_a_long_name_is_written(tool: Tool) -> None:
    name = "\u732b" * 80  # three bytes each
    run_git("branch", name, rev_of("fast-2"))
    assert tool("HEAD", name)[0] == 0


def test_a_lock_that_is_no_text_is_said_in_a_line(tool: Tool) -> None:
    Path("dvc.lock").write_bytes(b"\xff\xfe")
    line = "dvc.lock is no UTF-8 text: `git checkout dvc.lock` brings it back\n"
    assert tool("HEAD", "workspace") == (2, "", line)


def test_the_run_of_a_check_is_refused(project: Project, new_run: NewRun) -> None:
    run_id = new_run({"stage": "overfit-check", "fingerprint": "0"})
    with pytest.raises(InputError, match=f"run {run_id} is an overfit-check: name its training's"):
        target.find_target(run_id, project.root)


@pytest.mark.slow
def test_a_run_id_leads_to_its_commit_and_gets_a_note(
    tool: Tool, call: Call, project: Project, new_run: NewRun
) -> None:
    [group] = groups.find(["fast-2"], project.root)
    tags = {"stage": "train", DESCRIPTION: "before"}
    run_id = new_run({**tags, "fingerprint": fingerprint_of(group.named.stages["train"])})
    [found] = groups.find([run_id], project.root)
    assert (found.named.rev, found.scores("val", "accuracy")) == (
        group.named.rev,
        group.scores("val", "accuracy"),
    )
    for _ in range(2):
        code, out, _ = tool("HEAD", run_id)
        assert code == 0
        assert f"noted on the MLflow run of {run_id}" in out
    printed = call(where.main, run_id)[1]
    assert printed.startswith(f"run {run_id} ({str(group.named.rev)[:7]})\n")
    note = lookup.tags_of(project.root, run_id)[DESCRIPTION]
    assert note.startswith("before\n\n## Compared\n\n### `")
    assert note.count(lookup.COMPARED) == 1
    other = new_run({"stage": "train"})
    code, _, err = tool("HEAD", other)
    assert (code, f"run {other} is running: it has no result" in err) == (2, True)


def test_a_run_leads_to_the_commit_that_has_its_model(
    tool: Tool, project: Project, new_run: NewRun
) -> None:
    """Two trainings of the same inputs, on two kinds of machine."""
    for machine in ("one", "other"):
        project.add(f"on-{machine}", 4, lr=0.006, machine=machine)
    project.write()
    trains, ids = {}, {}
    for name in ("on-one", "on-other"):
        trains[name] = result_at(rev_of(name)).stages["train"]
        tags = {"stage": "train", "fingerprint": fingerprint_of(trains[name])}
        ids[name] = new_run({**tags, "model.md5": trains[name]["outs"][MODEL]})
    for name in trains:
        found = target.find_target(ids[name], project.root)
        assert (found.rev, found.run_id) == (rev_of(name), ids[name])
        # Without a run that was asked for: not the newest of these inputs, which gave another.
        assert target.run_of(project.root, trains[name]) == ids[name]
        assert DESCRIPTION not in lookup.tags_of(project.root, ids[name])
        assert tool("HEAD", name)[0] == 0
        assert DESCRIPTION in lookup.tags_of(project.root, ids[name])
    lost = new_run({**tags, "model.md5": "0" * 32})
    with pytest.raises(InputError, match="gave another model than any commit or experiment here"):
        target.find_target(lost, project.root)


def test_predictions_are_those_of_the_lock(project: Project) -> None:
    [group] = groups.find(["fast-2"], project.root)
    labels, hits, of_group = predictions.correct(group.named, "val", "fast-2", project.root)
    assert (len(labels), int((~hits).sum()), of_group) == (360, BETTER[2], None)
    outs = group.named.stages["evaluate"]["outs"]
    [metrics] = git.read_at([(rev_of("fast-2"), METRICS)])
    assert outs[METRICS] == md5(str(metrics))
    assert outs.pop(PREDICTIONS)
    with pytest.raises(Exception, match="has no predictions"):
        predictions.correct(group.named, "val", "fast-2", project.root)


def test_a_stash_is_no_result(project: Project) -> None:
    rev, head = rev_of("fast-2"), git.head()
    assert rev in stored.names_by_rev()
    run_git("update-ref", "-d", f"refs/exps/{head[:2]}/{head[2:]}/fast-2")
    run_git("update-ref", "refs/stash", rev)
    assert rev not in stored.names_by_rev()
    run_git("branch", "kept", rev)
    assert rev in stored.names_by_rev()


def test_more_seeds_of_other_code_need_that_code() -> None:
    def remedy(code: list[str], **values: str) -> str:
        changed = SimpleNamespace(code=code)
        item: Any = SimpleNamespace(first_overrides={}, second_overrides=values, changed=changed)
        return text.more_seeds(item)

    command = "more seeds: python -m src.seeds 5"
    assert remedy([], lr="0.01") == f"{command}; python -m src.seeds 5 -S lr=0.01"
    assert remedy(["src/train.py"]).startswith(f"{command}, each with its own code (`dvc exp ap")


def test_images_of_groups_are_compared_by_groups(tool: Tool, project: Project) -> None:
    _, out, _ = tool("HEAD", "grouped")
    assert "p over 12 groups = " in out
    assert "bootstrap 95 % interval over 12 groups" in out
    assert "McNemar" not in out
    [group] = groups.find(["grouped"], project.root)
    of_group = predictions.correct(group.named, "val", "grouped", project.root).groups
    assert of_group is not None
    assert of_group.tolist() == [i % 12 for i in range(360)]
    _, out, _ = tool("grouped", "HEAD", "--json")
    assert json.loads(out)["comparisons"][0]["images"]["groups"] == 12
    assert "McNemar p = " in tool("HEAD", "fast-0")[1]
