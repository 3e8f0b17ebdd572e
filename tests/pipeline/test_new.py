"""From a clone of the template to a project of one's own, and what is new upstream into it."""

import json
import re
import shlex
import shutil
import sys
from pathlib import Path

import pytest
import yaml

from src.base.imports import ROOT
from tests.conftest import SMALL, set_params
from tests.pipeline.clone import commit, run

NAME = "leaf-diseases"
# The files that make up a project's own life, as somebody edits them.
OWN_FILES = ("README.md", "docs/experiments.md", "recipes/README.md", "tests/yours/__init__.py")
# A sixth stage, as docs describe it.
REPORT = '''\
"""Stage `report`: which share of the errors of logistic regression the net leaves."""

import json
from pathlib import Path

from src.plumbing.stage import Stage, run_stage

METRICS, RESULTS = Path("results/evaluate/metrics.json"), Path("results/report")


def main(stage: Stage) -> None:
    from src.base.files import write_json, write_text
    from src.tracking import run as tracking

    found = json.loads(METRICS.read_text())["val"]
    left = (1 - found["accuracy"]) / max(1 - found["baseline_accuracy"], 1 / found["n"])
    write_json(RESULTS / "metrics.json", {"errors_left": left})
    write_text(RESULTS / "report.md", f"{left:.2f} of the errors, seed {stage.params['seed']}\\n")
    with tracking.start(stage) as log:
        log.log_metrics({"report/errors_left": left}, 0)
        log.log_artifact(RESULTS / "report.md")


if __name__ == "__main__":
    run_stage("report", main)
'''
ENTRY = """
  report:
    cmd: python -m src.report
    deps:
      - results/evaluate/metrics.json
    outs:
      - results/report/report.md
    metrics:
      - results/report/metrics.json:
          cache: false
"""


def upstream(folder: Path) -> Path:
    """A repository with the files of this one as they are now, in more than one commit."""
    listed = run(ROOT, "git", "ls-files", "-co", "--exclude-standard").splitlines()
    for name in [name for name in listed if (ROOT / name).is_file()]:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    run(folder, "git", "init", "--quiet", "--initial-branch=main")
    commit(folder, "The first version")
    run(folder, "git", "commit", "--quiet", "--allow-empty", "--message", "The second")
    return folder


def with_venv(folder: Path) -> Path:
    """The programs of this environment as those of the folder: `make` has nothing to install."""
    venv = folder / ".venv"
    for name in ("installed", "bin"):
        (venv / name).mkdir(parents=True)
    for program in Path(sys.prefix, "bin").iterdir():
        if program.name.startswith("python"):  # by a link it would take the folder for its own
            (venv / "bin" / program.name).write_text(f'#!/bin/sh\nexec {program} "$@"\n')
            (venv / "bin" / program.name).chmod(0o755)
        else:
            (venv / "bin" / program.name).symlink_to(program)
    for name in ("uv.txt", "collect_less.pth", "runtime.lock", "dev.lock"):
        shutil.copy(folder / "requirements" / name, venv / "installed")
    (venv / "installed/folder").write_text(f"{folder.resolve()}\n")
    (venv / "installed/torch-index").touch()
    return folder


def clone_of(source: Path, folder: Path) -> Path:
    run(folder.parent, "git", "clone", "--quiet", str(source), str(folder))
    return with_venv(folder)


def new_project(source: Path, folder: Path, **params: object) -> Path:
    """A clone made a project and committed, with small settings."""
    clone_of(source, folder)
    run(folder, "make", "new", f"NAME={NAME}")
    set_params(folder, **{**SMALL, "tracking": "true", **params})
    commit(folder, "Start")
    return folder


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text, f"{path}: {old}"
    path.write_text(text.replace(old, new, 1))


@pytest.mark.slow(seconds=20)
def test_what_make_new_refuses_and_what_it_says(tmp_path: Path) -> None:
    clone = clone_of(upstream(tmp_path / "upstream"), tmp_path / "clone")
    at_start = run(clone, "git", "rev-parse", "HEAD").strip()
    for name in ("", "-x", "a b", "a/b", "ä"):
        refused = run(clone, "make", "new", f"NAME={name}", code=2)
        assert f"make new: '{name}' cannot be the name" in refused
    (clone / "LICENSE").write_text("mine")
    refused = run(clone, "make", "new", f"NAME={NAME}", code=2)
    [line] = [line for line in refused.splitlines() if not line.startswith("make")]
    assert line.startswith("LICENSE changed since the last commit: ")
    run(clone, "git", "checkout", "--", "LICENSE")
    (clone / "bench/mine.py").write_text("of my own, not in git\n")

    printed = run(clone, "make", "new", f"NAME={NAME}")
    assert "remote origin is now called upstream" in printed
    assert (clone / "bench/mine.py").exists()
    (clone / "bench/mine.py").unlink()
    again = run(clone, "make", "new", f"NAME={NAME}", code=2)
    assert "make new: this is a project of its own already" in again
    assert run(clone, "git", "log", "-1", "--format=%s") == f"Start of {NAME}\n"
    assert run(clone, "git", "status", "--porcelain") == ""
    assert run(clone, "git", "remote").split() == ["upstream"]
    assert "no-push-to-upstream" in run(clone, "git", "push", "upstream", "main", code=128)
    note = (clone / "pyproject.toml").read_text().partition("[tool.upstream]")[2]
    assert f'commit = "{at_start}"\norigin = "{tmp_path / "upstream"}"' in note


@pytest.mark.slow(seconds=240)
def test_a_fresh_clone_becomes_a_project_whose_ci_passes(tmp_path: Path) -> None:
    project = clone_of(upstream(tmp_path / "upstream"), tmp_path / "project")
    run(project, "make", "new", f"NAME={NAME}")
    run(project, "make", "repro")
    status = run(project, "git", "status", "--porcelain")
    assert {line.split()[1] for line in status.splitlines()} == {"dvc.lock", "results/"}
    commit(project, "Results")
    assert run(project, "git", "status", "--porcelain") == ""
    assert "Data and pipelines are up to date" in run(project, "dvc", "status")

    hooks = yaml.safe_load((project / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    for hook in hooks:
        files = [] if hook.get("pass_filenames") is False else ["src/train.py"]
        run(project, *shlex.split(hook["entry"]), *files)
    assert run(project, "git", "status", "--porcelain") == ""

    # CI has a clone without data; `make lint test` run in it as they do here.
    ci = clone_of(project, tmp_path / "ci")
    assert "== dvc status" in run(ci, ".ci/run")
    set_params(ci, lr=0.002)
    (ci / "Makefile").write_text("lint test:\n")
    assert "dvc.lock is not that of these files" in run(ci, ".ci/run", code=1)


def upstream_goes_on(folder: Path) -> None:
    """A commit that touches whatever a project has a part in."""
    edit(folder / "pyproject.toml", 'version = "0.1.0"', 'version = "0.2.0"')
    page = folder / "docs/upgrading.md"
    edit(page, "\n## 0.1.0", "\n## 0.2.0\n\nSet `subset.most` as you like.\n\n## 0.1.0")
    # A parameter, with the code that reads it and the stage that declares it.
    line = "  val_per_class:"
    edit(folder / "params.yaml", line, f"  most: 9  # integer >= 1: a test\n{line}")
    edit(folder / "params.yaml", "learning rate; 0.001", "the learning rate; 0.001")
    edit(
        folder / "src/plumbing/schema.py",
        '    "subset.val',
        '    "subset.most": integer(1),\n    "subset.val',
    )
    edit(folder / "src/subset.py", '"subset.seed"]', '"subset.seed"] + stage.params["subset.most"]')
    run(folder, "python", "-m", "src.deps")
    assert "subset.most" in (folder / "dvc.yaml").read_text()
    edit(folder / "dvc.yaml", "# The pipeline: five stages", "# The pipeline: the five stages")
    # Machinery, and files that are the project's own, or of which it has another.
    edit(folder / "src/plumbing/terminal.py", '"""', '"""Now better. ')
    edit(folder / "src/yours/net.py", '"""', '"""Now better. ')
    edit(folder / "Makefile", "browse the runs in MLflow", "look at the runs in MLflow")
    edit(folder / "README.md", "\n", "\nNow better.\n")
    edit(folder / "new/project/README.md", "## Commands", "## The commands")
    for name in ("results/train/history.csv", "bench/loop.py", "docs/changelog.md", "dvc.lock"):
        with (folder / name).open("a") as file:
            file.write("# more\n")
    (folder / "bench/another.py").write_text("# new\n")
    commit(folder, "Version 0.2.0")


def edit_yours(project: Path) -> dict[str, str]:
    """All files of src/yours, and others that are the project's own, edited. Their texts."""
    own = [project / name for name in OWN_FILES]
    for path in [*(project / "src/yours").glob("*.py"), *own]:
        text = path.read_text()
        path.write_text(text + "# mine\n" if path.suffix == ".py" else "Mine.\n\n" + text)
        if path.suffix == ".py":
            edit(path, '"""', '"""Mine: ')
    return {str(path): path.read_text() for path in [*(project / "src/yours").glob("*.py"), *own]}


@pytest.mark.slow(seconds=150)
def test_an_upgrade_of_a_project_with_edits_everywhere(tmp_path: Path) -> None:
    source = upstream(tmp_path / "upstream")
    project = new_project(source, tmp_path / "project")
    mine = edit_yours(project)
    (project / "src/report.py").write_text(REPORT)
    edit(project / "dvc.yaml", "\n\n# What `dvc plots diff`", f"{ENTRY}\n\n# What `dvc plots diff`")
    set_params(project, model="own", lr=0.002, loss="own", augment_own="true")
    run(project, "python", "-m", "src.deps")
    # The sixth stage is declared like the others, runs, and leads to its run.
    declared = yaml.safe_load((project / "dvc.yaml").read_text())["stages"]["report"]
    assert {"src/report.py", "src/base/files.py"} <= set(declared["deps"])
    assert declared["params"] == ["seed"]
    run(project, "dvc", "repro")
    commit(project, "Mine, with results")
    assert "Data and pipelines are up to date" in run(project, "dvc", "status")
    where = json.loads(run(project, "python", "-m", "src.where", "--json"))
    assert where["changed"] == []
    assert where["runs"]["report"]["name"] == "report first"
    assert "errors_left" in run(project, "dvc", "metrics", "show")
    assert "is reproduced, tier bit" in run(project, "make", "verify")
    run(project, "make", "clean")
    results = (project / "results/report/metrics.json").read_text()

    upstream_goes_on(source)
    printed = run(project, "make", "upgrade")
    assert "version 0.1.0" in printed
    assert "params   new      subset.most: 9 # integer >= 1: a test" in printed
    assert "src/yours/net.py" in printed
    assert "## 0.2.0\n\nSet `subset.most` as you like.\n" in printed
    assert "## 0.1.0" not in printed
    assert "`dvc repro` will run subset, and what depends on" in printed
    assert run(project, "git", "status", "--porcelain") == ""
    assert {path: Path(path).read_text() for path in mine} == mine
    assert (project / "results/report/metrics.json").read_text() == results
    params = (project / "params.yaml").read_text()
    assert re.search(r"(?m)^lr: 0.002 +# .*: the learning rate; 0.001", params)
    assert "\n  most: 9  # integer >= 1: a test\n  val_per_class:" in params
    pipeline = (project / "dvc.yaml").read_text()
    assert "subset.most" in pipeline
    assert yaml.safe_load(pipeline)["stages"]["report"] == declared
    assert pipeline.startswith("# The pipeline: the five stages")
    assert (project / "src/plumbing/terminal.py").read_text().startswith('"""Now better.')
    assert "look at the runs" in (project / "Makefile").read_text()
    assert not (project / "bench").exists()
    assert not (project / "new").exists()
    about = (project / "pyproject.toml").read_text()
    assert f'name = "{NAME}"\nversion = "0.1.0"' in about
    assert f'[tool.upstream]\nversion = "0.2.0"\ncommit = "{head(source)}"' in about
    run(project, "dvc", "repro")
    commit(project, "Results")
    assert "Data and pipelines are up to date" in run(project, "dvc", "status")
    assert "nothing is new" in run(project, "make", "upgrade")


def head(folder: Path) -> str:
    return run(folder, "git", "rev-parse", "HEAD").strip()


@pytest.mark.slow(seconds=30)
def test_a_conflict_is_left_to_git_and_nothing_is_lost(tmp_path: Path) -> None:
    source = upstream(tmp_path / "upstream")
    project = new_project(source, tmp_path / "project")
    edit(project / "src/plumbing/terminal.py", '"""', '"""Mine. ')
    edit(project / "dvc.yaml", "# The pipeline: five stages", "# My pipeline: five stages")
    commit(project, "Mine")
    before = head(project)
    upstream_goes_on(source)

    (project / "params.yaml").write_text("changed")
    assert "params.yaml changed since the last commit" in run(project, "make", "upgrade", code=2)
    run(project, "git", "checkout", "--", "params.yaml")
    assert "cannot fetch from" in run(project, "make", "upgrade", "FROM=/nowhere", code=2)
    assert head(project) == before

    said = "both sides changed dvc.yaml, src/plumbing/terminal.py: edit, then `git add` them"
    for _ in range(2):
        assert said in run(project, "make", "upgrade", code=2)  # make's code for a failed command
    run(project, "git", "merge", "--abort")
    assert head(project) == before
    assert run(project, "git", "status", "--porcelain") == ""

    run(project, "make", "upgrade", code=2)
    for name in ("dvc.yaml", "src/plumbing/terminal.py"):
        assert "<<<<<<< here" in (project / name).read_text()
        run(project, "git", "checkout", "--ours", "--", name)
        run(project, "git", "add", name)
    printed = run(project, "make", "upgrade")
    assert "upgrade: done, as commit" in printed
    assert "## 0.2.0" in printed
    assert (project / "src/plumbing/terminal.py").read_text().startswith('"""Mine.')
    assert "subset.most" in (project / "dvc.yaml").read_text()
    assert run(project, "git", "log", "-1", "--format=%P").split() == [before, head(source)]
    assert "nothing is new" in run(project, "make", "upgrade")
    # Between branches of the project only what the pipeline wrote is not merged.
    assert run(project, "git", "config", "merge.ours.driver") == "true\n"
    paths = ("dvc.lock", "results/train/metrics.json", "src/yours/net.py")
    found = run(project, "git", "check-attr", "merge", *paths).splitlines()
    assert [line.rpartition(" ")[2] for line in found] == ["ours", "ours", "unspecified"]


@pytest.mark.slow(seconds=20)
def test_a_project_without_the_history_of_upstream_is_upgraded_too(tmp_path: Path) -> None:
    """Made of downloaded files, or with GitHub's `Use this template`."""
    source = upstream(tmp_path / "upstream")
    project = tmp_path / "project"
    shutil.copytree(source, project, ignore=lambda _, names: {".git"} & set(names))
    run(project, "git", "init", "--quiet", "--initial-branch=main")
    run(project, "git", "remote", "add", "origin", "https://me:secret@example.org/mine")
    commit(project, "Initial commit")
    with_venv(project)
    assert "make upgrade FROM=ADDRESS" in run(project, "make", "new", f"NAME={NAME}")
    assert run(project, "git", "remote").split() == ["origin"]
    upstream_goes_on(source)
    assert "make upgrade FROM=ADDRESS" in run(project, "make", "upgrade", code=2)
    assert "upgrade: done" in run(project, "make", "upgrade", f"FROM={source}")
    note = (project / "pyproject.toml").read_text().partition("[tool.upstream]")[2]
    assert f'commit = "{head(source)}"\norigin = "{source}"' in note
    assert not (project / "bench").exists()
    assert "nothing is new" in run(project, "make", "upgrade")
