"""Recipes: each is accepted, together they set what runs on a CPU, and dvc gets what they say."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from src import recipe
from src.base.imports import ROOT
from src.plumbing import overrides, params
from src.plumbing.errors import InputError
from tests import template
from tests.conftest import run_main
from tests.plumbing.test_overrides import as_dvc_reads
from tests.template import SCHEMA

Call = Callable[..., tuple[int, str, str]]
NAMES = sorted(path.stem for path in (ROOT / "recipes").glob("*.yaml") if path.stem != recipe.SPACE)
# What no recipe sets: where the run starts, what is for a GPU, what nobody can know before.
NOT_SET = {"seed", "weights", "tf32"}
FOR_A_GPU = {"bf16"}


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The template's params.yaml and the recipes, to change at will."""
    template.write(tmp_path)
    shutil.copytree(ROOT / "recipes", tmp_path / "recipes")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """Calls the tool with arguments: exit code, stdout, stderr."""
    return lambda *arguments: run_main(recipe.main, arguments, monkeypatch, capsys)


@pytest.mark.parametrize("name", NAMES)
def test_every_recipe_is_accepted_has_a_header_and_changes_something(name: str) -> None:
    values, before = recipe.read(name), params.load()
    params.load(overrides=values)
    numbers = {key: value for key, value in values.items() if not value.startswith("[")}
    assert any(before[key] != params.parse(key, value) for key, value in numbers.items())
    header = [line for line in recipe._text(name).splitlines() if line.startswith("#")]
    assert len(recipe.title(name)) > 20
    assert any(f"dvc exp run $(python -m src.recipe {name}" in line for line in header)
    assert any("Expected: " in line for line in header)


def test_together_they_set_every_training_key_of_a_cpu() -> None:
    set_by = {key for name in NAMES for key in recipe.read(name)}
    training = {key for key in SCHEMA if "." not in key}
    assert training - set_by == NOT_SET
    assert {"prepare.interpolation", "prepare.crop_ratio", "prepare.fit"} <= set_by
    assert {"evaluate.flip", "evaluate.refresh_batchnorm"} <= set_by


def test_together_they_use_every_choice() -> None:
    """Each listed value of a training key that is no default stands in some recipe."""
    values = {(key, value) for name in NAMES for key, value in recipe.read(name).items()}
    default = params.load()
    for key, accepted in SCHEMA.items():
        if "." in key or key in NOT_SET:
            continue
        for choice in set(accepted.choices) - FOR_A_GPU:
            if params.parse(key, choice) != default[key]:
                assert (key, choice) in values, f"{key}={choice}"


@pytest.mark.parametrize("name", NAMES)
def test_the_shell_and_dvc_read_what_the_recipe_says(call: Call, name: str) -> None:
    code, printed, _ = call(name)
    assert code == 0
    shell = ["sh", "-c", "printf '%s\\n' $(cat)"]
    words = subprocess.check_output(shell, input=printed, text=True).splitlines()
    assert words[::2] == ["-S"] * (len(words) // 2)
    expected = {key: params.parse_override(key, text) for key, text in recipe.read(name).items()}
    assert list(as_dvc_reads(words).items()) == list(expected.items())


def test_values_on_the_command_line_go_first() -> None:
    values = overrides.merge(recipe.read("digits_sgd"), ["lr=1e-1", "class_weights=[1, 2]"])
    assert (values["lr"], values["optimizer"]) == ("1e-1", "sgd")
    words = overrides.arguments(values)
    assert "lr=1e-1" in words
    assert "class_weights=[1,2]" in words
    assert not any(word == "lr=0.05" for word in words)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["digits_sg"], "there is no recipe digits_sg in recipes/, did you mean digits_sgd?"),
        (["zzz"], "there is no recipe zzz in recipes/; there are bad_key, bad_list, "),
        (["../params"], "there is no recipe ../params"),
        (["digits_sgd", "epoch=3"], "unknown key epoch, did you mean epochs?"),
        (["digits_sgd", "epochs=abc"], "params.yaml: epochs must be an integer >= 1, got 'abc'"),
        (["digits_sgd", "lr="], "params.yaml: lr must be a number > 0, got nothing"),
        (["digits_sgd", "lr"], "expected KEY=VALUE, got 'lr'"),
        (["digits_sgd", "warmup=9"], "params.yaml: warmup must be shorter than the 4 epochs"),
        (["digits_focal", "label_smoothing=0.1"], "label_smoothing must be 0 with loss focal"),
        (["digits_sgd", "class_weights=[1,-2]"], "class_weights must be none, balanced, or a list"),
        (["digits_sgd", "class_weights=[1,"], "class_weights must be none, balanced, or a list"),
        (["digits_sgd", "weights=a b"], "a shell would change weights='a b': add --run"),
        (["bad_key"], "recipes/bad_key.yaml: unknown key prepare.sise, did you mean prepare.size?"),
        (["bad_value"], "recipes/bad_value.yaml: lr must be a number > 0, got 'fast'"),
        (["bad_list"], "recipes/bad_list.yaml: lr must be a number > 0"),
        (["twice"], "recipes/twice.yaml: lr stands there twice"),
        (["no_yaml"], "recipes/no_yaml.yaml cannot be read"),
        (["empty"], "recipes/empty.yaml must hold keys of params.yaml"),
    ],
)
def test_mistakes_are_one_line(call: Call, arguments: list[str], words: str) -> None:
    broken = {"bad_key": "prepare.sise: 3", "bad_value": "lr: fast", "bad_list": "lr: [1, 2]"}
    broken |= {"twice": "lr: 1\nlr: 2", "no_yaml": "lr: [1", "empty": ""}
    for name, text in broken.items():
        Path(f"recipes/{name}.yaml").write_text(f"# x\n{text}\n")
    code, printed, error = call(*arguments)
    assert code == 2
    assert words in error
    assert error.count("\n") == 1
    assert printed == recipe.REFUSED + "\n"  # dvc knows no stage of that name


def test_a_wrong_params_yaml_is_said_as_such(project: Path) -> None:
    path = project / "params.yaml"
    path.write_text(path.read_text().replace("\nseed: 0 ", "\nseed: x "))
    with pytest.raises(InputError, match=r"params\.yaml: seed must be an integer >= 0, got 'x'"):
        params.load(overrides=recipe.read("digits_sgd"))


def test_the_list_shows_every_recipe_and_one_that_is_not_text(call: Call) -> None:
    Path("recipes/binary.yaml").write_bytes(b"# caf\xe9\nlr: 1\n")
    code, printed, _ = call()
    assert code == 0
    lines = {line.split()[0]: line for line in printed.splitlines()}
    assert list(lines) == sorted([*NAMES, "binary"])
    assert all(line.endswith(recipe.title(name)) for name, line in lines.items())
    assert "recipes/binary.yaml cannot be read" in lines["binary"]


def test_run_becomes_dvc(project: Path) -> None:
    """In place of dvc, a program that says what it got; dvc itself runs in the slow tests."""
    tool = project / "bin/dvc"
    tool.parent.mkdir()
    tool.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\nexit 3\n')
    tool.chmod(0o755)
    python = tool.with_name("python")
    python.symlink_to(sys.executable)
    arguments = ["digits_step", "weights=a b", "--run", "--temp", "-S", "seed=1"]
    ended = subprocess.run(
        [str(python), "-m", "src.recipe", *arguments],
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])},
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 3, ended.stderr
    words = ended.stdout.splitlines()
    assert words[:2] == ["exp", "run"]
    assert words[-3:] == ["--temp", "-S", "seed=1"]
    assert words[2:-3] == overrides.arguments(
        overrides.merge(recipe.read("digits_step"), ["weights=a b"])
    )
    assert "weights='a b'" in words
