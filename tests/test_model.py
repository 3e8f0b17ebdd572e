"""Building, saving and rebuilding nets; wrong names and files in one line."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from src.errors import InputError
from src.training.model import create_model, load_model


def test_initial_weights_follow_the_seed_alone() -> None:
    torch.manual_seed(1)
    first = create_model("test_resnet", 3, 1, 16, seed=0)
    torch.manual_seed(2)
    again = create_model("test_resnet", 3, 1, 16, seed=0)
    other = create_model("test_resnet", 3, 1, 16, seed=1)
    weights = [torch.cat([p.flatten() for p in m.parameters()]) for m in (first, again, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("no_such_net", "model must be the name of a timm model, got 'no_such_net'"),
        ("resnet10", "did you mean resnet1"),
        ("hf-hub:timm/resnet10t", "model must be the name of a timm model"),
        ("../resnet10t", "model must be the name of a timm model"),
    ],
)
def test_unknown_names_say_so(name: str, words: str) -> None:
    with pytest.raises(InputError) as caught:
        create_model(name, 3, 1, 16)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_transformer_is_told_the_size() -> None:
    model = create_model("test_vit", 3, 1, 32)
    assert model(torch.zeros(2, 1, 32, 32)).shape == (2, 3)


def test_a_size_that_does_not_fit_names_the_key() -> None:
    with pytest.raises(InputError, match=r"prepare\.size 17"):
        create_model("test_vit", 3, 1, 17)


def test_weights_from_a_file(tmp_path: Path) -> None:
    donor = create_model("test_resnet", 10, 3, 32, seed=5)
    file = str(tmp_path / "donor.safetensors")
    save_file(donor.state_dict(), file)
    model = create_model("test_resnet", 4, 1, 32, weights=file)
    assert model(torch.zeros(2, 1, 32, 32)).shape == (2, 4)
    name = "layer1.0.conv1.weight"
    assert torch.equal(model.state_dict()[name], donor.state_dict()[name])


def test_the_head_of_a_file_with_as_many_classes_is_kept(tmp_path: Path) -> None:
    donor = create_model("test_resnet", 4, 3, 32, seed=5)
    file = str(tmp_path / "donor.safetensors")
    save_file(donor.state_dict(), file)
    model = create_model("test_resnet", 4, 3, 32, weights=file)
    assert all(torch.equal(model.state_dict()[k], v) for k, v in donor.state_dict().items())


@pytest.mark.parametrize("content", [None, b"not safetensors"])
def test_weights_that_cannot_be_read_say_so(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "w.safetensors"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(InputError, match=r"params\.yaml: weights must be a safetensors file"):
        create_model("test_resnet", 4, 1, 32, weights=str(file))


def test_weights_of_another_architecture_say_so(tmp_path: Path) -> None:
    file = str(tmp_path / "other.safetensors")
    save_file(create_model("test_vit", 3, 3, 32).state_dict(), file)
    with pytest.raises(InputError, match=r"other.safetensors are not those of model test_resnet"):
        create_model("test_resnet", 3, 3, 32, weights=file)


def test_two_files_rebuild_the_model_alone(finished: tuple[Path, object], tmp_path: Path) -> None:
    """In a process that sees neither params.yaml nor data."""
    shutil.copytree(finished[0] / "models", tmp_path / "models")
    shutil.copytree(finished[0] / "src", tmp_path / "src")
    code = (
        "import torch\nfrom src.training.model import load_model\n"
        "torch.set_num_threads(1)\nmodel, about = load_model()\n"
        "print(model(torch.ones(2, *about['input_size'])).tolist())"
    )
    printed = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    ).stdout
    torch.set_num_threads(1)
    model, about = load_model(finished[0] / "models")
    assert not model.training
    assert json.loads(printed) == model(torch.ones(2, *about["input_size"])).tolist()


def test_model_json_says_what_prediction_needs(finished: tuple[Path, dict]) -> None:
    about = json.loads((finished[0] / "models/model.json").read_text())
    assert about["fingerprint"] == finished[1]["train"].fingerprint
    assert about["classes"] == ["red disc", "red square", "red triangle"]
    assert about["input_size"] == [3, 16, 16]
    assert {"architecture", "mean", "std", "interpolation", "fit"} <= set(about)


@pytest.mark.parametrize("broken", ["model.json", "model.safetensors"])
def test_missing_model_files_say_what_to_run(copied: Path, broken: str) -> None:
    (copied / "models" / broken).unlink()
    with pytest.raises(InputError, match="run `dvc repro train`"):
        load_model(copied / "models")
