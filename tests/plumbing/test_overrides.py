"""`mlflow run -P` becomes `dvc exp run -S`, for every key of params.yaml."""

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from src import mlproject
from src.base.imports import ROOT
from src.plumbing import overrides, params
from src.plumbing.errors import InputError
from src.plumbing.keys import Value
from tests.conftest import STAGES, copy_project, run_main, set_params
from tests.template import SCHEMA
from tests.tracking.tracked_project import VARIABLES, git

# A value for each key that differs from the one in params.yaml, where that takes some thought.
OTHER = {
    "prepare.path": "my data/it's,\\ odd",
    "prepare.csv_path_pattern": "my images/{site}/*.jpg",
    "weights": "data/weights/a b.safetensors",
    "model": "vit=[x]",
    "lr": "3e-3",
    "machine.device": "cuda:1",
    "best_by": "val/loss",
    "prepare.source": "torchvision:MNIST",
}


MLPROJECT: dict[str, Any] = yaml.safe_load((ROOT / "MLproject").read_text())


def handed_on(**given: str) -> list[str]:
    """What src.mlproject gets from MLflow for `-P key=value`."""
    from mlflow.projects._project_spec import EntryPoint

    point = EntryPoint("main", {}, MLPROJECT["entry_points"]["main"]["command"])
    words = shlex.split(point.compute_command(given, None))
    assert words[:3] == ["python", "-m", "src.mlproject"]
    return words[3:]


def as_dvc_reads(words: list[str]) -> dict[str, Value]:
    """The values by key that `dvc exp run` takes from the arguments `-S key=value ...`."""
    from dvc.utils.hydra import to_hydra_overrides

    found = {}
    for override in to_hydra_overrides(words[1::2]):
        key, value = override.key_or_group, override.value()
        text = str(value).lower() if isinstance(value, bool) else str(value)
        found[key] = params.parse_override(key, text)
    return found


def acceptable(key: str) -> str:
    expects = SCHEMA[key].expects
    for text in (OTHER.get(key, ""), "32", "1", "0.5", "true", expects.split()[-1], "none"):
        if text and SCHEMA[key].parse(text) is not None:
            return text
    raise AssertionError(key)


def test_every_tool_and_stage_is_an_entry_point() -> None:
    points = MLPROJECT["entry_points"]
    tools = {"recipe", "weights", "predict", "where", "table", "compare", "sync", "verify"}
    tools |= {"lr_find", "seeds", "search"}
    assert set(points) == {"main", *STAGES, *tools}
    for name in tools:
        assert points[name]["command"].startswith(f"python -m src.{name}")
    for name in STAGES:
        assert points[name] == {"command": f"dvc repro {name}"}
    assert (ROOT / MLPROJECT["python_env"]).is_file()
    assert "name" not in MLPROJECT  # the project's stands in pyproject.toml alone


GIVEN = [{}, {"class_weights": "[1, 2.5]", "loss": "focal"}]
GIVEN += [{"prepare.leave_out": "[Skip, Not sure, it's, '7', \"a, b\"]", "prepare.merge": "[a=b]"}]
GIVEN += [{key: acceptable(key)} for key in SCHEMA]


@pytest.mark.parametrize("given", GIVEN, ids=lambda given: " ".join(given) or "nothing")
def test_every_key_can_be_set(given: dict[str, str]) -> None:
    words = overrides.arguments(overrides.of_mlflow(handed_on(**given)))
    expected = {key: params.parse_override(key, text) for key, text in given.items()}
    assert as_dvc_reads(words) == expected


@pytest.mark.parametrize(
    ("given", "line"),
    [
        (["--epochs", "abc"], "params.yaml: epochs must be an integer >= 1, got 'abc'"),
        (["--lr", ""], "params.yaml: lr must be a number > 0, got nothing"),
        (["--prepare.size", "3"], "params.yaml: prepare.size must be an integer in 8..4096, got"),
        (["--learning_rate", "1"], "MLproject: unknown key learning_rate"),
        (["--prepare.sise", "32"], "unknown key prepare.sise, did you mean prepare.size?"),
        (["lr=3"], "MLproject: expected --key value ..., got 'lr=3'"),
        (["--lr"], "MLproject: expected --key value ..., got '--lr'"),
        (["--lr", "1e-3", "--seed", "range(1,5)"], "params.yaml: seed must be an integer >= 0"),
    ],
)
def test_mistakes_are_one_line_before_anything_starts(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], given: list[str], line: str
) -> None:
    def start(*command: object) -> None:
        raise AssertionError(command)

    monkeypatch.setattr(os, "execvp", start)
    code, _, error = run_main(mlproject.main, given, monkeypatch, capsys)
    assert code == 2
    assert line in error
    assert error.count("\n") == 1


def test_without_dvc(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setattr(sys, "argv", ["mlproject"])
    with pytest.raises(InputError, match="dvc is neither in "):
        mlproject.main()


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A committed project whose five stages copy params.yaml."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent), prepend=os.pathsep)
    folder = copy_project(tmp_path / "project")
    for name in ("MLproject", "python_env.yaml", ".gitignore"):
        shutil.copy(ROOT / name, folder)
    stages = {
        name: {
            "cmd": f"mkdir -p out && cp params.yaml out/{name}",
            "params": list(SCHEMA),
            "deps": [f"out/{before}"] if before else [],
            "outs": [f"out/{name}"],
        }
        for name, before in zip(STAGES, ["", *STAGES], strict=False)
    }
    (folder / "dvc.yaml").write_text(yaml.safe_dump({"stages": stages}))
    set_params(folder, epochs=7, fit="pad", lr="0.001")
    monkeypatch.chdir(folder)
    git("init", "--quiet")
    subprocess.run(["dvc", "init", "--quiet"], check=True)
    git("add", ".")
    git("commit", "--quiet", "--message", "start")
    return folder


def mlflow_run(*arguments: str) -> "subprocess.CompletedProcess[str]":
    command = ["mlflow", "run", ".", "--env-manager", "local", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_mlflow_run(project: Path) -> None:
    done = mlflow_run("-e", "prepare")
    assert done.returncode == 0, done.stderr
    assert [path.name for path in (project / "out").iterdir() if path.name in STAGES] == ["prepare"]

    done = mlflow_run("-e", "recipe", "-P", "name=nosuch")
    assert "there is no recipe nosuch in recipes/" in done.stderr

    changes = ["-P", "lr=3e-3", "-P", "prepare.size=64", "-P", "overfit_check.strict=true"]
    done = mlflow_run(*changes, "-P", "weights=data/weights/a b")
    assert done.returncode == 0, done.stderr
    result = params.load(project)
    assert (result["lr"], result["prepare.size"]) == (0.003, 64)
    assert (result["overfit_check.strict"], result["weights"]) == (True, "data/weights/a b")
    assert (result["epochs"], result["prepare.fit"]) == (7, "pad")
    assert (project / "out/evaluate").read_text() == (project / "params.yaml").read_text()
    refs = subprocess.check_output(["git", "for-each-ref", "refs/exps"], text=True).splitlines()
    assert len([ref for ref in refs if "/exec/" not in ref]) == 1

    before = (project / "params.yaml").read_text()
    done = mlflow_run("-P", "epochs=abc")
    assert done.returncode != 0
    assert "params.yaml: epochs must be an integer >= 1, got 'abc'" in done.stderr.splitlines()
    assert "Running stage" not in done.stdout + done.stderr
    assert (project / "params.yaml").read_text() == before
