"""A model as two files; wrong ones in one line."""

import inspect
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from src.base.imports import ROOT
from src.images import model as of_images
from src.model import description, inference
from src.model.create import classifier_parameters, create_model
from src.model.description import KEYS, REQUIRED
from src.model.nets.pretrained import normalisation
from src.model.saved import _own_code, load_model, save_model
from src.plumbing import params
from src.plumbing.errors import InputError
from src.yours import net as yours
from tests.model.test_create import KINDS

OWN_PARAMS = params.own_params(params.load(ROOT))
NEEDED = (*REQUIRED, *of_images.REQUIRED)


def write_files(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


def test_two_files_rebuild_the_model_alone(
    finished: tuple[Path, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a folder that has neither params.yaml nor data."""
    shutil.copytree(finished[0] / "models", tmp_path / "models")
    monkeypatch.chdir(tmp_path)
    model, about = load_model()
    assert not model.training
    trained = load_file("models/model.safetensors")
    assert model.state_dict().keys() == trained.keys()
    assert all(torch.equal(value, trained[key]) for key, value in model.state_dict().items())
    assert set(about) >= {"architecture", "classes", "mean", "std"}
    assert load_model("models")[1] == about  # as notebooks write it


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


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("architecture", 3, "must be the name of a model, got 3"),
        ("architecture", "resnet10", "must be the name of a timm model, got 'resnet10', did you"),
        ("architecture", "torchvision:resnet19", "must be torchvision:<name> with the name of"),
        ("architecture", "test_vit", "test_vit cannot take samples of 3 x 17 x 17"),
        ("classes", [], "must be a list of names"),
        ("classes", ["a", "a"], "must be a list of names, each of them once"),
        ("classes", "ab", "must be a list of names"),
        ("input_size", [3, 16], r"must be \[1 or 3, size, size\], got \[3, 16\]"),
        ("input_size", [3, 16, 17], "must be"),
        ("input_size", [3, 0, 0], "must be"),
        ("input_size", 16, "must be"),
        ("input_size", [1, 16, 16], "must have a number per channel"),
        ("mean", "x", 'must be a list of numbers, got "x"'),
        ("mean", [0.5], "must have a number per channel of input_size"),
        ("mean", [0.5, None, 0.5], "must be a list of numbers"),
        ("std", [0.5, 0, 0.5], "must be a list of numbers > 0"),
        ("std", [0.5, float("nan"), 0.5], "must be a list of numbers > 0"),
        ("fit", "stretch", 'must be one of crop, pad, squash, got "stretch"'),
        ("fit", ["crop"], "must be one of"),
        ("interpolation", "cubic", "must be one of bilinear, bicubic, lanczos, nearest"),
        ("crop_ratio", 0, r"must be a number in \(0, 1\], got 0"),
        ("activation", "tanh", 'must be one of softmax, sigmoid, got "tanh"'),
        ("activation", None, "must be one of"),
    ],
)
def test_a_model_json_that_makes_no_sense_names_the_key(
    finished: tuple[Path, object], tmp_path: Path, key: str, value: Any, words: str
) -> None:
    folder = Path(shutil.copytree(finished[0] / "models", tmp_path / "models"))
    about = {**json.loads((folder / "model.json").read_text()), key: value}
    if value == "test_vit":
        about["input_size"] = [3, 17, 17]
    named = "mean" if "per channel" in words else key
    (folder / "model.json").write_text(json.dumps(about))
    with pytest.raises(InputError, match=rf"{folder}/model.json: {named} .*{words}") as caught:
        load_model(folder)
    assert "\n" not in str(caught.value)
    assert "params.yaml" not in str(caught.value)


@pytest.mark.parametrize("key", NEEDED)
def test_a_key_that_model_json_lacks_is_named(
    finished: tuple[Path, object], tmp_path: Path, key: str
) -> None:
    folder = Path(shutil.copytree(finished[0] / "models", tmp_path / "models"))
    about = json.loads((folder / "model.json").read_text())
    del about[key]
    (folder / "model.json").write_text(json.dumps(about))
    with pytest.raises(InputError, match=f"model.json: {key} is missing: run `dvc repro train`"):
        load_model(folder)


@pytest.mark.parametrize("content", ["[]", "3", "null"])
def test_a_model_json_without_keys_is_a_line(copied: Path, content: str) -> None:
    (copied / "models/model.json").write_text(content)
    with pytest.raises(InputError, match=r"model\.json: must hold keys and their values"):
        load_model(copied / "models")


def test_every_key_that_training_writes_is_checked(finished: tuple[Path, object]) -> None:
    about = json.loads((finished[0] / "models/model.json").read_text())
    assert set(NEEDED) < set(about) == set(KEYS | of_images.KEYS) - {"own_net", "own_params"}
    assert tuple(inference.ACTIVATIONS) == description.ACTIVATIONS


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("channels", [1, 3])
def test_two_files_rebuild_every_kind(kind: str, channels: int, tmp_path: Path) -> None:
    own = {"own_params": OWN_PARAMS} if kind == "own" else {}
    model = create_model(kind, 4, (channels, 32, 32), seed=3, own_params=OWN_PARAMS)
    assert model.training
    images = torch.rand(5, channels, 32, 32, generator=torch.Generator().manual_seed(0))
    model(images)  # BatchNorm statistics that a fresh net has not
    model.eval()
    about = {
        "architecture": kind,
        "classes": list("abcd"),
        "input_size": [channels, 32, 32],
        "mean": [0.25] * channels,
        "std": [0.125] * channels,
        "fit": "crop",
        "interpolation": "bilinear",
        **own,
    }
    save_model(model.state_dict(), about, tmp_path)
    rebuilt, read = load_model(tmp_path)
    assert read == (about | {"own_net": _own_code()} if kind == "own" else about)
    assert torch.equal(rebuilt(images), model(images))
    assert rebuilt(images).shape == (5, 4)
    # Another training can start from it, with images of another number of channels too.
    file = str(tmp_path / "model.safetensors")
    meta = {"channels": channels, "mean": [0.5] * channels, "std": [0.5] * channels}
    assert normalisation(file, kind, meta) == (about["mean"], about["std"])
    for others in (1, 3):
        size = (others, 32, 32)
        started = create_model(kind, 4, size, weights=file, own_params=OWN_PARAMS)
        head = [p.detach() for p in classifier_parameters(started)]
        assert all(map(torch.equal, head, classifier_parameters(model)))
        # A net that sums over equal colours sees what a grey one sees.
        grey = images[:, :1]
        seen = [
            net.eval()(grey.expand(-1, net_channels, -1, -1))
            for net, net_channels in ((model, channels), (started, others))
        ]
        assert torch.allclose(seen[0], seen[1], atol=1e-4), others


def own_with_sigmoid(classes: int, channels: int, size: int, _: object) -> nn.Module:
    """As the net below has it, but for what no shape tells."""
    return nn.Sequential(nn.Flatten(), nn.Sigmoid(), nn.Linear(channels * size**2, classes))


def own_with_relu(classes: int, channels: int, size: int, _: object) -> nn.Module:
    """As the net above has it, but for what no shape tells."""
    return nn.Sequential(nn.Flatten(), nn.ReLU(), nn.Linear(channels * size**2, classes))


def own_with_two_layers(classes: int, channels: int, size: int, _: object) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(channels * size**2, 3), nn.Linear(3, classes))


def test_an_own_net_that_changed_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def use(net: Callable[..., nn.Module]) -> None:
        """As if that were the function in src/yours/net.py."""
        write_files(tmp_path, {"src/yours/net.py": inspect.getsource(net)})
        monkeypatch.setattr(yours, "own_net", net)

    monkeypatch.setattr("src.base.imports.ROOT", tmp_path)
    use(own_with_sigmoid)
    about = {
        "architecture": "own",
        "classes": ["a", "b"],
        "input_size": [1, 8, 8],
        "mean": [0.5],
        "std": [0.5],
        "fit": "crop",
        "interpolation": "bilinear",
    }
    save_model(create_model("own", 2, (1, 8, 8)).state_dict(), about, tmp_path)
    _, read = load_model(tmp_path)
    assert read == {**about, "own_net": _own_code()}
    assert capsys.readouterr().err == ""
    use(own_with_relu)
    load_model(tmp_path)
    [line] = capsys.readouterr().err.splitlines()
    assert line == (
        f"{tmp_path}/model.json: own_net, or code of src/ that it uses, is not that of this "
        "training: its predictions may differ"
    )
    use(own_with_two_layers)
    with pytest.raises(InputError, match=r"own_net, or .* not that of this training, and the we"):
        load_model(tmp_path)
    use(own_with_relu)
    (tmp_path / "model.json").write_text(json.dumps(about))  # as it was before it had a hash
    load_model(tmp_path)
    assert capsys.readouterr().err == ""


def test_the_code_of_an_own_net_is_all_that_it_imports(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the top or inside, in turn, and by a dot; comments and empty lines do not count."""
    files = {
        "src/yours/net.py": (
            "from .parts import part\nSIZE = 3\n"
            "def own_net(classes, channels, size, params):\n"
            "    from src.inside import number\n    return part, number\n"
        ),
        "src/yours/parts.py": "from src.deeper import part\n",
        "src/deeper.py": "part = 1\n",
        "src/inside.py": "number = 1\n",
        "src/unused.py": "unused = 1\n",
    }

    def code_with(name: str, old: str, new: str) -> str:
        assert old in files[name]
        write_files(tmp_path, {**files, name: files[name].replace(old, new)})
        return _own_code()

    monkeypatch.setattr("src.base.imports.ROOT", tmp_path)
    write_files(tmp_path, files)
    first = _own_code()
    for name, old, new in (
        ("src/yours/net.py", "SIZE = 3", "# why\n\nSIZE = 3"),
        ("src/unused.py", "1", "2"),
    ):
        assert code_with(name, old, new) == first, name
    for name, old, new in (
        ("src/yours/net.py", "SIZE = 3", "SIZE = 4"),
        ("src/yours/net.py", "return part", "return  part"),
        ("src/yours/parts.py", "part\n", "part  # why\n"),
        ("src/deeper.py", "1", "2"),
        ("src/inside.py", "1", "2"),
    ):
        assert code_with(name, old, new) != first, (name, new)
