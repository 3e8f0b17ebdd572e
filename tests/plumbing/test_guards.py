"""Guards: what dvc.yaml, the locks and the layout of the code promise is what happens."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest
import yaml

from src.base.imports import ROOT, is_docstring_alone
from src.plumbing import dvc_files, params
from src.plumbing.errors import InputError
from src.plumbing.stage import Stage
from tests.conftest import STAGES, python, run_stage, set_params
from tests.preparation.image_folders import write_images
from tests.template import SCHEMA

MODULES = dvc_files.modules(ROOT)
ENTRIES = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]


def test_inputs_that_params_choose_stand_in_the_command() -> None:
    """DVC takes them when it starts: only through cmd can a stage see which ones."""
    for name, stage in ((name, ENTRIES[name]) for name in STAGES):
        chosen = [dep for dep in stage["deps"] if "${" in dep]
        expected = [f"python -m {MODULES[name]}", *(f"'{dep}'" for dep in chosen)]
        assert stage["cmd"] == " ".join(expected)


def test_packages_hold_a_docstring_alone() -> None:
    """Importing a module runs nothing else then; only the library of checks offers a name, and
    plumbing, which stages and tools import first, takes Ctrl-C from there on."""
    packages = set((ROOT / "src").rglob("__init__.py"))
    packages -= {ROOT / "src/checks/__init__.py", ROOT / "src/plumbing/__init__.py"}
    assert packages
    assert [path for path in packages if not is_docstring_alone(path)] == []


def test_params_are_the_keys_that_are_read(finished: tuple[Path, dict[str, Stage]]) -> None:
    _, stages = finished
    for name in ("subset", "overfit-check", "train", "evaluate"):
        assert not_own(stages[name].params.read) == not_own(stages[name].params.declared), name


def not_own(keys: Iterable[str]) -> set[str]:
    """Without those that code of yours reads, wherever it is used."""
    return {key for key in keys if not key.startswith("yours.")}


def test_prepare_declares_what_its_sources_read(project: Path, tmp_path: Path) -> None:
    images = tmp_path / "images"
    write_images(images, {"a": 30, "b": 30})
    read: set[str] = set()
    rows = [f"a/{n:03d}.png,a\nb/{n:03d}.png,b\n" for n in range(30)]
    (images / "labels.csv").write_text("path,label\n" + "".join(rows))
    for source, path in (("synthetic", "data/builtin/README.md"), ("csv", str(images))):
        set_params(project, source=source, path=path)
        stage = run_stage(project, "prepare")
        read |= stage.params.read
    assert not_own(read) == not_own(stage.params.declared)


def test_an_undeclared_key_is_refused(finished: tuple[Path, dict[str, Stage]]) -> None:
    stage = finished[1]["subset"]
    with pytest.raises(InputError, match=r"this stage reads lr, .*python -m src\.deps"):
        stage.params["lr"]
    assert stage.params["machine.workers"] == 0


def test_every_key_is_declared_by_some_stage() -> None:
    stages = ENTRIES.values()
    declared = {key for stage in stages for key in stage.get("params", []) if type(key) is str}
    assert {key for key in SCHEMA if not key.startswith(params.UNDECLARED)} <= declared


def test_versions_yaml_is_what_the_lock_pins() -> None:
    text = (ROOT / "requirements/runtime.lock").read_text()
    locked = dict(re.findall(r"(?m)^([a-z0-9-]+)==([^ ;\\]+)", text))
    versions = dvc_files.read_versions(ROOT)
    assert versions == {name: locked[name] for name in versions}


@pytest.mark.parametrize("name", ["prepare", "subset"])
def test_light_stages_stay_light(copied: Path, name: str) -> None:
    code = (
        f"import sys, {MODULES[name]} as module\n"
        "from src.plumbing.stage import Stage\n"
        f"module.main(Stage({name!r}))\n"
        "print([heavy for heavy in ('torch', 'timm', 'mlflow') if heavy in sys.modules])\n"
    )
    ended = python(copied, "-c", code)
    assert ended.returncode == 0
    assert ended.stdout.splitlines()[-1] == "[]"


def test_the_list_has_every_stage_and_tool_with_a_line() -> None:
    printed = subprocess.check_output([sys.executable, "-m", "src"], cwd=ROOT, text=True)
    listed = dict(re.findall(r"(?m)^  (\S+) +(\S.{10,}\.)$", printed))
    tools = {path.stem for path in (ROOT / "src").glob("[!_]*.py")}
    tools -= {module.removeprefix("src.") for module in MODULES.values()}
    assert list(listed) == [*MODULES, *sorted(tools)]


def test_make_help_names_every_target_and_each_can_be_made() -> None:
    def made(*arguments: str) -> str:
        command = ["make", "--no-print-directory", *arguments]
        return subprocess.check_output(command, cwd=ROOT, text=True)

    shown = re.findall(r"(?m)^  make (\S+)", made("help"))
    (phony,) = re.findall(r"(?m)^\.PHONY: (.*)$", (ROOT / "Makefile").read_text())
    assert shown == phony.split()
    for target in shown:
        assert made("--dry-run", target)


def test_files_and_functions_stay_short() -> None:
    """A file about 400 lines, a function about 60; yours are as long as you like."""
    for path in set((ROOT / "src").rglob("*.py")) - set((ROOT / "src/yours").iterdir()):
        text = path.read_text()
        assert len(text.splitlines()) <= 420, path
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                assert node.end_lineno is not None
                assert node.end_lineno - node.lineno < 65, f"{path}: {node.name}"


def test_dvc_keeps_the_run_cache_usable() -> None:
    """`persist` or an uncached out (metrics and plots apart) switches it off; without a cached
    out a fresh clone would skip the stage."""
    for name, stage in ((name, ENTRIES[name]) for name in STAGES):
        outs = stage["outs"]
        assert all(isinstance(out, str) for out in outs), name
        metrics = [option for out in stage.get("metrics", []) for option in out.values()]
        assert all(option == {"cache": False} for option in metrics), name


def test_code_from_elsewhere_is_refused(project: Path) -> None:
    (project / "src").rename(project / "other")
    (project / "src").mkdir()
    ended = python(project, "-P", "-m", "src.prepare", PYTHONPATH=str(ROOT))
    assert ended.returncode == 2
    assert "this would run the code of" in ended.stderr
    assert "Traceback" not in ended.stderr
