"""Guards: what dvc.yaml, the locks and the packages promise is what the code does."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from src.base.imports import ROOT, closure, is_docstring_alone
from src.plumbing import dvc_files, params
from src.plumbing.deps import dependencies, require_declared
from src.plumbing.errors import InputError
from src.plumbing.stage import Stage
from tests.conftest import STAGES, run_stage, set_params

MODULES = {name: "src." + name.replace("-", "_") for name in STAGES}


@pytest.mark.parametrize("name", STAGES)
def test_deps_are_the_import_closure(name: str) -> None:
    entry = dvc_files.stage_entry(name, params.load(ROOT), ROOT)
    assert entry.cmd.split()[:3] == ["python", "-m", MODULES[name]]
    declared = {dep for dep in entry.deps if dep.startswith("src/")}
    assert declared == dependencies(MODULES[name]), (
        "`python -m src.deps` brings dvc.yaml up to date"
    )


def test_the_closure_sees_every_form_of_import(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In functions, of packages on the way, and relative to a file or a package."""
    files = {
        "src/inner/__init__.py": "from . import beside\n",
        "src/inner/beside.py": "NUMBER = 1\n",
        "src/inner/deeper/__init__.py": '"""A docstring alone."""\n',
        "src/inner/deeper/start.py": (
            "import src.by_name\nfrom ..above import NUMBER\nfrom ... import top\n"
            "def inside():\n    from .neighbour import NUMBER\n"
        ),
        "src/inner/deeper/neighbour.py": "NUMBER = 1\n",
        "src/inner/above.py": "NUMBER = 1\n",
        "src/by_name.py": "from src import by_from\n",
        "src/by_from.py": "NUMBER = 1\n",
        "src/top.py": "NUMBER = 1\n",
        "src/no_part.py": "NUMBER = 1\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setattr("src.base.imports.ROOT", tmp_path)
    expected = set(files) - {"src/no_part.py", "src/inner/deeper/__init__.py"}
    assert closure("src.inner.deeper.start") == expected


def test_code_that_is_no_dependency_is_refused() -> None:
    text = (ROOT / "dvc.yaml").read_text()
    require_declared(text)
    others = (
        "stages:\n  own:\n    cmd: [python -m src.table, 'true']\n"
        "  many:\n    foreach: [1]\n    do: {cmd: python -m src.where}\n"
    )
    require_declared(text.replace("stages:\n", others))
    said = r"stage \S+ uses src/train\S+, .*python -m src\.closure"
    for line in ("      - src/train.py\n", "      - src/training\n"):
        assert line in text
        with pytest.raises(InputError, match=said):
            require_declared(text.replace(line, ""))


def test_inputs_that_params_choose_stand_in_the_command() -> None:
    """DVC takes them when it starts: only through cmd can a stage see which ones."""
    for name, stage in yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"].items():
        chosen = [dep for dep in stage["deps"] if "${" in dep]
        expected = [f"python -m {MODULES[name]}", *(f"'{dep}'" for dep in chosen)]
        assert stage["cmd"] == " ".join(expected)


def test_packages_hold_a_docstring_alone() -> None:
    """So that importing one of their modules runs nothing else; only the library of checks has a
    name of its own to offer."""
    packages = set((ROOT / "src").rglob("__init__.py")) - {ROOT / "src/checks/__init__.py"}
    assert packages
    assert [path for path in packages if not is_docstring_alone(path)] == []


def test_params_are_the_keys_that_are_read(finished: tuple[Path, dict[str, Stage]]) -> None:
    _, stages = finished
    for name in ("subset", "overfit-check", "train", "evaluate"):
        assert stages[name].params.read == set(stages[name].params.declared), name


def test_prepare_declares_what_its_sources_read(project: Path, tmp_path: Path) -> None:
    pictures = tmp_path / "pictures"
    from tests.preparation.test_sources import write_pictures

    write_pictures(pictures, {"a": 30, "b": 30})
    read: set[str] = set()
    rows = [f"a/{n:03d}.png,a\nb/{n:03d}.png,b\n" for n in range(30)]
    (pictures / "labels.csv").write_text("path,label\n" + "".join(rows))
    for source, path in (("synthetic", "data/builtin/README.md"), ("csv", str(pictures))):
        set_params(project, source=source, path=path)
        stage = run_stage(project, "prepare")
        read |= stage.params.read
    assert read == set(stage.params.declared)


def test_an_undeclared_key_is_refused(finished: tuple[Path, dict[str, Stage]]) -> None:
    stage = finished[1]["subset"]
    with pytest.raises(KeyError, match="not declared"):
        stage.params["lr"]
    assert stage.params["machine.workers"] == 0


def test_every_key_is_declared_by_some_stage() -> None:
    values = params.load(ROOT)
    declared = {key for name in STAGES for key in dvc_files.stage_entry(name, values, ROOT).params}
    assert declared == {key for key in values if not key.startswith(params.UNDECLARED)}


def locked_versions() -> dict[str, str]:
    text = (ROOT / "requirements/runtime.lock").read_text()
    return dict(re.findall(r"(?m)^([a-z0-9-]+)==([^ ;\\]+)", text))


def test_versions_yaml_is_what_the_lock_pins() -> None:
    locked = locked_versions()
    versions = dvc_files.read_versions(ROOT)
    assert versions == {name: locked[name] for name in versions}


@pytest.mark.parametrize("name", STAGES)
def test_stages_declare_the_packages_that_their_code_imports(name: str) -> None:
    package_of = {"PIL": "pillow", "sklearn": "scikit-learn"}
    text = "\n".join((ROOT / path).read_text() for path in closure(MODULES[name]))
    imported = set(re.findall(r"(?m)^\s*(?:from|import) ([A-Za-z]+)", text))
    packages = {package_of.get(module, module) for module in imported}
    entry = dvc_files.stage_entry(name, params.load(ROOT), ROOT)
    known = set(dvc_files.read_versions(ROOT))
    assert packages & known <= set(entry.versions)
    assert set(entry.versions) <= known
    # timm runs torchvision's operators; everything else declared is imported by name.
    assert set(entry.versions) - packages <= {"torchvision", "matplotlib", "numpy"}


@pytest.mark.parametrize("name", ["prepare", "subset"])
def test_light_stages_stay_light(copied: Path, name: str) -> None:
    code = (
        f"import sys, {MODULES[name]} as module\n"
        "from src.plumbing.stage import Stage\n"
        f"module.main(Stage({name!r}))\n"
        "print([heavy for heavy in ('torch', 'timm', 'mlflow') if heavy in sys.modules])\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code], cwd=copied, capture_output=True, text=True, check=True
    )
    assert ended.stdout.splitlines()[-1] == "[]"


def test_only_the_tracking_package_imports_mlflow() -> None:
    users = [
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "src").rglob("*.py")
        if re.search(r"(?m)^\s*(from|import) mlflow", path.read_text())
    ]
    assert users
    assert all(user.startswith("src/tracking/") for user in users)


def test_make_help_names_every_target_and_each_can_be_made() -> None:
    def made(*arguments: str) -> str:
        command = ["make", "--no-print-directory", *arguments]
        return subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, check=True
        ).stdout  # fmt: skip

    shown = re.findall(r"(?m)^  make (\S+)", made("help"))
    (phony,) = re.findall(r"(?m)^\.PHONY: (.*)$", (ROOT / "Makefile").read_text())
    assert shown == phony.split()
    for target in shown:
        assert made("--dry-run", target)


def test_files_stay_short() -> None:
    long = {
        str(path): len(path.read_text().splitlines())
        for path in (ROOT / "src").rglob("*.py")
        if len(path.read_text().splitlines()) > 250
    }
    assert not long


def test_dvc_keeps_the_run_cache_usable() -> None:
    """`persist`, or an out without cache that is neither metric nor plot, switches it off; a stage
    without a cached out would be skipped in a fresh clone."""
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    for name, stage in stages.items():
        outs = stage["outs"]
        assert all(isinstance(out, str) for out in outs), name
        metrics = [option for out in stage.get("metrics", []) for option in out.values()]
        assert all(option == {"cache": False} for option in metrics), name


def test_code_from_elsewhere_is_refused(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (project / "src").rename(project / "other")
    (project / "src").mkdir()
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    ended = subprocess.run(
        [sys.executable, "-P", "-m", "src.prepare"], cwd=project, capture_output=True, text=True
    )
    assert ended.returncode == 2
    assert "this would run the code of" in ended.stderr
    assert "Traceback" not in ended.stderr
