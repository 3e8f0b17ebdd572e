"""params.yaml: typed, ranged, one clear line per mistake, and equal to what DVC hashes."""

from pathlib import Path

import pytest
from dvc.utils.flatten import flatten
from dvc.utils.hydra import apply_overrides
from dvc.utils.serialize import load_yaml

from src.base.imports import ROOT
from src.plumbing import identity, params
from src.plumbing.errors import InputError
from tests import template
from tests.conftest import python, set_params
from tests.template import SCHEMA


def test_committed_values_are_those_that_dvc_reads() -> None:
    ours, theirs = params.load(ROOT), flatten(load_yaml(str(ROOT / "params.yaml")))
    assert list(ours) == list(theirs)
    for key, value in ours.items():
        assert identity.canonical(value) == identity.canonical(theirs[key]), key


# How DVC writes `-S key=value` into params.yaml, and the value that both sides must then mean.
@pytest.mark.parametrize(
    ("override", "meant"),
    [
        ("lr=1e-5", 0.00001),
        ("lr=1", 1.0),
        ("lr=3e-3", 0.003),
        ("lr=.5", 0.5),
        ("epochs=010", 10),
        ("epochs=7", 7),
        ("augment_flip=true", True),
        ("deterministic=true", "true"),
        ("deterministic=warn", "warn"),
        ("clip_grad=none", "none"),
        ("clip_grad=1", 1.0),
        ("class_weights=[1,2.5]", [1.0, 2.5]),
        ("prepare.path=no", "no"),
        ("prepare.path='007'", "007"),
        ("prepare.path=a-b/c.d", "a-b/c.d"),
    ],
)
def test_overrides_mean_the_same_here_and_in_dvc(
    project: Path, override: str, meant: object
) -> None:
    apply_overrides(project / "params.yaml", [override])
    key = override.partition("=")[0]
    value = params.load(project)[key]
    assert value == meant
    assert type(value) is type(meant)
    hashed = flatten(load_yaml(str(project / "params.yaml")))[key]
    assert identity.canonical(value) == identity.canonical(hashed)


WEIGHTS = "none, balanced, or a list of one number > 0 per class"


# An override as DVC writes it into params.yaml, what the key must be, and what it got.
@pytest.mark.parametrize(
    ("override", "expects", "got"),
    [
        ("lr=", "a number > 0", "nothing"),
        ("lr=null", "a number > 0", "nothing"),
        ("lr=nan", "a number > 0", "'.nan'"),
        ("lr=inf", "a number > 0", "'.inf'"),
        ("lr=true", "a number > 0", "'true'"),
        ("lr=[1,2]", "a number > 0", "a list"),
        ("epochs=3.5", "an integer >= 1", "'3.5'"),
        ("deterministic=yes", "one of true, warn, false", "'yes'"),
        ("ema=1", "none or a number between 0 and 1", "'1'"),
        ("class_weights=[1,1e300]", WEIGHTS, "'1e+300' in the list"),
        ("class_weights=[1,a]", WEIGHTS, "'a' in the list"),
        ("augment_flip=off", "true or false", "'off'"),
        ("model=null", "the name of a timm model, torchvision:<name>, or own", "nothing"),
        ("prepare.channels=2", "1 or 3", "'2'"),
        ("machine.device=gpu", "one of auto, cpu, cuda, cuda:N, mps", "'gpu'"),
    ],
)
def test_a_wrong_override_is_refused(project: Path, override: str, expects: str, got: str) -> None:
    key = override.partition("=")[0]
    apply_overrides(project / "params.yaml", [override])
    with pytest.raises(InputError) as caught:
        params.load(project)
    assert str(caught.value) == f"params.yaml: {key} must be {expects}, got {got}"


WRONG: dict[str, list[str]] = {
    "integer": ["abc", "", "1.5", "-1", "[1]"],
    "number": ["abc", "", ".nan", "-1", "[1]", "true"],
    "choice": ["nonsense", "", "[1]"],
    "text": ["", "[1]"],
}


def kind_of(key: str) -> str:
    expects = SCHEMA[key].expects
    if "integer" in expects:
        return "integer"
    if "number" in expects:
        return "number"
    return "choice" if SCHEMA[key].choices or expects.startswith("one of") else "text"


@pytest.mark.parametrize("key", SCHEMA)
def test_every_wrong_value_is_refused_by_name(tmp_path: Path, key: str) -> None:
    for wrong in WRONG[kind_of(key)]:
        if wrong == "[1]" and SCHEMA[key].many:
            continue
        (tmp_path / "params.yaml").write_text(template.params_text())
        set_params(tmp_path, **{key: wrong})
        with pytest.raises(InputError) as caught:
            params.load(tmp_path)
        line = str(caught.value)
        assert line.startswith(f"params.yaml: {key} must be {SCHEMA[key].expects}, got "), wrong
        assert "\n" not in line


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("seed: 0  ", "sed: 0  ", "unknown key sed, did you mean seed?"),
        ("seed: 0  ", "seed: 0\nseed: 1 ", "seed stands there twice"),
        ("seed: 0  ", "", "seed is missing; it must be an integer >= 0"),
        ("model: test_resnet", "model: 12", "got 12; quote it"),
        ("model: test_resnet", "model: true", "got true; quote it"),
        ("lr: 0.001", "lr: {a: 1}", "lr must be a number > 0, got a group of keys"),
        ("lr: 0.001", "lr: [", "params.yaml cannot be read"),
        ("path: data/builtin/", "path: my'", "no ' in it and no ~ in front, got 'my'README.md'"),
        (
            "path: data/builtin/",
            "path: ~/",
            "a file or folder, with no ' in it and no ~ in front, got '~/README.md'",
        ),
        ("\nsubset:", "\nsubset: 3\nother:", "subset must hold keys and values"),
    ],
)
def test_a_wrong_file_is_refused(tmp_path: Path, old: str, new: str, words: str) -> None:
    text = template.params_text()
    assert old in text
    (tmp_path / "params.yaml").write_text(text.replace(old, new, 1))
    with pytest.raises(InputError) as caught:
        params.load(tmp_path)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_says_where_to_run(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"params\.yaml is missing"):
        params.load(tmp_path)


@pytest.mark.parametrize("name", ["prepare", "subset", "overfit_check", "train", "evaluate"])
def test_every_stage_refuses_a_bad_value_at_once(project: Path, name: str) -> None:
    set_params(project, lr="abc")
    ended = python(project, "-m", f"src.{name}")
    assert ended.returncode == 2
    assert ended.stderr == "params.yaml: lr must be a number > 0, got 'abc'\n"
    assert ended.stdout == ""
    imported = python(project, "-Ximporttime", "-m", f"src.{name}").stderr
    modules = {line.rpartition("|")[2].strip() for line in imported.splitlines()}
    assert "yaml" in modules
    assert not {"torch", "timm", "mlflow", "sklearn", "numpy"} & modules


def test_git_sees_the_values_of_an_experiment_that_failed(project: Path) -> None:
    """DVC changed them in the second in which it looked at the file, with no other size."""
    set_params(project, val_share=0.9, test_share=0.9)
    file = project / "params.yaml"
    text, before = file.read_text(), file.stat().st_mtime_ns
    cases: list[dict[str, str]] = [{}, {"DVC_EXP_NAME": "failed-exp"}]
    for seconds, variables in enumerate(cases):
        assert python(project, "-m", "src.prepare", **variables).returncode == 2
        assert file.stat().st_mtime_ns // 10**9 == before // 10**9 + seconds
    assert file.read_text() == text
