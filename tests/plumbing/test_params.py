"""params.yaml: typed, ranged, one clear line per mistake, and equal to what DVC hashes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from dvc.utils.hydra import apply_overrides
from dvc.utils.serialize import load_yaml

from src.base.imports import ROOT
from src.plumbing import identity, params
from src.plumbing.errors import InputError
from tests import template
from tests.conftest import set_params


def flat(values: dict, prefix: str = "") -> dict:
    """Nested keys dotted."""
    found = {}
    for key, value in values.items():
        if isinstance(value, dict):
            found.update(flat(value, f"{prefix}{key}."))
        else:
            found[prefix + key] = value
    return found


def test_committed_values_are_those_that_dvc_reads() -> None:
    ours, theirs = params.load(ROOT), flat(load_yaml(str(ROOT / "params.yaml")))
    assert list(ours) == list(theirs)
    for key, value in ours.items():
        assert identity.canonical(value) == identity.canonical(theirs[key]), key


def test_every_key_has_a_comment() -> None:
    lines = (ROOT / "params.yaml").read_text().splitlines()
    bare = [line for line in lines if ":" in line and not line.startswith("#") and "#" not in line]
    assert not bare


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
    hashed = flat(load_yaml(str(project / "params.yaml")))[key]
    assert identity.canonical(value) == identity.canonical(hashed)


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("lr=abc", "params.yaml: lr must be a number > 0, got 'abc'"),
        ("lr=-1", "params.yaml: lr must be a number > 0, got '-1'"),
        ("lr=0", "params.yaml: lr must be a number > 0, got '0'"),
        ("lr=", "params.yaml: lr must be a number > 0, got nothing"),
        ("lr=null", "params.yaml: lr must be a number > 0, got nothing"),
        ("lr=nan", "params.yaml: lr must be a number > 0, got '.nan'"),
        ("lr=inf", "params.yaml: lr must be a number > 0, got '.inf'"),
        ("lr=true", "params.yaml: lr must be a number > 0, got 'true'"),
        ("lr=[1,2]", "params.yaml: lr must be a number > 0, got a list"),
        ("epochs=3.5", "params.yaml: epochs must be an integer >= 1, got '3.5'"),
        ("epochs=0", "params.yaml: epochs must be an integer >= 1, got '0'"),
        ("batch_size=0", "params.yaml: batch_size must be an integer >= 2, got '0'"),
        ("optimizer=", "params.yaml: optimizer must be the name of a timm optimizer, such as adamw "
         "or sgd, got nothing"),
        ("deterministic=yes", "params.yaml: deterministic must be one of true, warn, false, "
         "got 'yes'"),
        ("ema=1", "params.yaml: ema must be none or a number between 0 and 1, got '1'"),
        ("class_weights=[1,1e300]", "params.yaml: class_weights must be none, balanced, or a list "
         "of one number > 0 per class, got '1e+300' in the list"),
        ("class_weights=[1,a]", "params.yaml: class_weights must be none, balanced, or a list of "
         "one number > 0 per class, got 'a' in the list"),
        ("augment_flip=off", "params.yaml: augment_flip must be true or false, got 'off'"),
        ("model=null", "params.yaml: model must be the name of a timm model, torchvision:<name>, "
         "or own, got nothing"),
        ("prepare.channels=2", "params.yaml: prepare.channels must be 1 or 3, got '2'"),
        ("machine.device=gpu", "params.yaml: machine.device must be one of auto, cpu, cuda, "
         "cuda:N, mps, got 'gpu'"),
    ],
)  # fmt: skip
def test_a_wrong_value_is_refused(project: Path, override: str, line: str) -> None:
    apply_overrides(project / "params.yaml", [override])
    with pytest.raises(InputError) as caught:
        params.load(project)
    assert str(caught.value) == line


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("seed: 0  ", "sed: 0  ", "unknown key sed, did you mean seed?"),
        ("seed: 0  ", "seed: 0\nseed: 1 ", "seed stands there twice"),
        ("seed: 0  ", "", "seed is missing; it must be an integer >= 0"),
        ("model: resnet10t", "model: 12", "got 12; quote it"),
        ("model: resnet10t", "model: true", "got true; quote it"),
        ("lr: 0.001", "lr: {a: 1}", "lr must be a number > 0, got a group of keys"),
        ("lr: 0.001", "lr: [", "params.yaml cannot be read"),
        ("val_share: 0.2", "val_share: 0.9", "must leave samples to train on, got 1.1"),
        ("warmup: 0 ", "warmup: 12 ", "warmup must be shorter than the 12 epochs"),
        ("lr: 0.001", "lr: 1e300", "lr must be at most 1000, got 1e+300"),
        ("weight_decay: 0.05", "weight_decay: 1e9", "weight_decay must be at most 1000, got 1e+09"),
        (
            "path: data/builtin/README.md",
            "path: my'data",
            "a file or folder without ', got 'my'data'",
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
    stage = [sys.executable, "-m", f"src.{name}"]
    ended = subprocess.run(stage, cwd=project, capture_output=True, text=True)
    assert ended.returncode == 2
    assert ended.stderr == "params.yaml: lr must be a number > 0, got 'abc'\n"
    assert ended.stdout == ""
    stage.insert(1, "-Ximporttime")
    imported = subprocess.run(stage, cwd=project, capture_output=True, text=True).stderr
    modules = {line.rpartition("|")[2].strip() for line in imported.splitlines()}
    assert "yaml" in modules
    assert not {"torch", "timm", "mlflow", "sklearn", "numpy"} & modules


def test_git_sees_the_values_of_an_experiment_that_failed(project: Path) -> None:
    """DVC changed them in the second in which it looked at the file, with no other size."""
    set_params(project, val_share=0.9, test_share=0.9)
    file = project / "params.yaml"
    text, before = file.read_text(), file.stat().st_mtime_ns
    command = [sys.executable, "-m", "src.prepare"]
    for name, seconds in (("", 0), ("failed-exp", 1)):
        environment = {**os.environ, **({"DVC_EXP_NAME": name} if name else {})}
        ended = subprocess.run(command, cwd=project, capture_output=True, env=environment)
        assert ended.returncode == 2
        assert file.stat().st_mtime_ns // 10**9 == before // 10**9 + seconds
    assert file.read_text() == text
