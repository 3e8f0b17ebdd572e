"""Building, saving and rebuilding nets; wrong names and files in one line."""

import json
import linecache
import shutil
from importlib import import_module
from pathlib import Path
from types import FunctionType
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from src.model import description, inference
from src.model.create import classifier_parameters, create_model
from src.model.description import KEYS, REQUIRED
from src.model.nets.own_code import code_hash
from src.model.nets.pretrained import normalisation
from src.model.saved import load_model, save_model
from src.plumbing.errors import InputError
from src.yours import net

# Small and unlike each other: a head that is a convolution, one with versions, positions, own code.
KINDS = ["test_resnet", "test_vit", "torchvision:squeezenet1_1", "torchvision:mnasnet0_5", "own"]


@pytest.mark.parametrize("kind", KINDS)
def test_initial_weights_follow_the_seed_alone(kind: str) -> None:
    torch.manual_seed(1)
    first = create_model(kind, 3, 1, 32, seed=0)
    torch.manual_seed(2)
    again = create_model(kind, 3, 1, 32, seed=0)
    other = create_model(kind, 3, 1, 32, seed=1)
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
        ("test_resnet.r161_in1k", "has no tag 'r161_in1k', did you mean r160_in1k?"),
        (
            "torchvision:resnet19",
            "got 'torchvision:resnet19', did you mean resnet1",
        ),
        ("torchvision:fcn_resnet50", "classification model of torchvision"),
        ("torchvision:inception_v3", "auxiliary outputs"),
        ("torchvision:googlenet", "auxiliary outputs"),
        ("torchvision:vit_b_16", "prepare.size 16"),
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
        ("architecture", "test_vit", "cannot take pictures of input_size 17"),
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


@pytest.mark.parametrize("key", REQUIRED)
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
    assert set(REQUIRED) < set(about) == set(KEYS) - {"own_net"}
    assert tuple(inference.ACTIVATIONS) == description.ACTIVATIONS


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("channels", [1, 3])
def test_two_files_rebuild_every_kind(kind: str, channels: int, tmp_path: Path) -> None:
    model = create_model(kind, 4, channels, 32, seed=3)
    assert model.training
    pictures = torch.rand(5, channels, 32, 32, generator=torch.Generator().manual_seed(0))
    model(pictures)  # BatchNorm statistics that a fresh net has not
    model.eval()
    about = {"architecture": kind, "classes": list("abcd"), "input_size": [channels, 32, 32],
             "mean": [0.25] * channels, "std": [0.125] * channels, "fit": "crop",
             "interpolation": "bilinear"}  # fmt: skip
    save_model(model.state_dict(), about, tmp_path)
    rebuilt, read = load_model(tmp_path)
    assert read == (about | {"own_net": code_hash(net.own_net)} if kind == "own" else about)
    assert torch.equal(rebuilt(pictures), model(pictures))
    assert rebuilt(pictures).shape == (5, 4)
    # Another training can start from it, with pictures of another number of channels too.
    file = str(tmp_path / "model.safetensors")
    meta = {"channels": channels, "mean": [0.5] * channels, "std": [0.5] * channels}
    assert normalisation(file, kind, meta) == (about["mean"], about["std"])
    for others in (1, 3):
        started = create_model(kind, 4, others, 32, weights=file)
        head = [p.detach() for p in classifier_parameters(started)]
        assert all(map(torch.equal, head, classifier_parameters(model)))
        # A net that sums over equal colours sees what a grey one sees.
        grey = pictures[:, :1]
        seen = [net.eval()(grey.expand(-1, net_channels, -1, -1)) for net, net_channels in
                ((model, channels), (started, others))]  # fmt: skip
        assert torch.allclose(seen[0], seen[1], atol=1e-4), others


def own_with_sigmoid(classes: int, channels: int, size: int) -> nn.Module:
    """As the net below has it, but for what no shape tells."""
    return nn.Sequential(nn.Flatten(), nn.Sigmoid(), nn.Linear(channels * size**2, classes))


def own_with_relu(classes: int, channels: int, size: int) -> nn.Module:
    """As the net above has it, but for what no shape tells."""
    return nn.Sequential(nn.Flatten(), nn.ReLU(), nn.Linear(channels * size**2, classes))


def own_with_two_layers(classes: int, channels: int, size: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(channels * size**2, 3), nn.Linear(3, classes))


def test_an_own_net_that_changed_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(net, "own_net", own_with_sigmoid)
    about = {"architecture": "own", "classes": ["a", "b"], "input_size": [1, 8, 8],
             "mean": [0.5], "std": [0.5], "fit": "crop", "interpolation": "bilinear"}  # fmt: skip
    save_model(create_model("own", 2, 1, 8).state_dict(), about, tmp_path)
    _, read = load_model(tmp_path)
    assert read == {**about, "own_net": code_hash(net.own_net)}
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(net, "own_net", own_with_relu)
    load_model(tmp_path)
    [line] = capsys.readouterr().err.splitlines()
    assert line == (
        f"{tmp_path}/model.json: own_net, or code of src/ that it uses, is not that of this "
        "training: its answers may be others"
    )
    monkeypatch.setattr(net, "own_net", own_with_two_layers)
    with pytest.raises(InputError, match=r"own_net, or .* not that of this training, and the we"):
        load_model(tmp_path)
    monkeypatch.setattr(net, "own_net", own_with_relu)
    (tmp_path / "model.json").write_text(json.dumps(about))  # as it was before it had a hash
    load_model(tmp_path)
    assert capsys.readouterr().err == ""


def test_an_own_net_that_returns_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(net, "own_net", lambda *_: None)
    with pytest.raises(InputError, match=r"own_net .* must return a net, got NoneType"):
        create_model("own", 2, 1, 8)


def test_an_own_net_that_does_not_fit_the_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    misfit = nn.Sequential(nn.Flatten(), nn.Linear(63, 2))
    monkeypatch.setattr(net, "own_net", lambda *_: misfit)
    with pytest.raises(InputError, match=r"set another prepare\.size or change own_net"):
        create_model("own", 2, 1, 8)


def test_comments_and_empty_lines_of_an_own_net_do_not_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    source = "def own_net(classes, channels, size):\n    return classes\n"
    for name, text in (
        ("first", source),
        ("second", source.replace("    return", "    # why\n\n    return")),
        ("third", source.replace("return classes", "return channels")),
    ):
        (tmp_path / f"{name}_own.py").write_text(text)
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.setattr(net, "own_net", import_module(f"{name}_own").own_net)
        found.append(code_hash(net.own_net))
    assert found[0] == found[1] != found[2]


def test_code_that_an_own_net_uses_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In its own file and in others that it imports, at the top or inside, and in turn."""
    files = {
        "src/own.py": (
            "from .parts import part\nfrom src import unused\nSIZE = 3\n"
            "class Net:\n    size = SIZE\n"
            "def other():\n    return 1\n"
            "def own_net(classes, channels, size):\n"
            "    from src.inside import number\n    return Net, part, number\n"
        ),
        "src/parts.py": "from src.deeper import part\n",
        "src/deeper.py": "part = 1\n",
        "src/inside.py": "number = 1\n",
        "src/unused.py": "unused = 1\n",
    }
    monkeypatch.setattr("src.base.imports.ROOT", tmp_path)
    monkeypatch.setattr("src.model.nets.own_code.ROOT", tmp_path)

    def hashed(changed: str = "", old: str = "", new: str = "") -> str:
        for name, text in files.items():
            assert name != changed or old in text
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_text(text.replace(old, new) if name == changed else text)
        code = compile((tmp_path / "src/own.py").read_text(), str(tmp_path / "src/own.py"), "exec")
        linecache.checkcache()
        defined: dict[str, Any] = {"__package__": "src", "__name__": "src.own"}
        [function] = [part for part in code.co_consts if getattr(part, "co_name", "") == "own_net"]
        return code_hash(FunctionType(function, defined, "own_net"))

    first = hashed()
    assert hashed("src/own.py", "SIZE = 3", "# why\n\nSIZE = 3") == first
    for name, old, new in (("src/own.py", "return 1", "return 2"), ("src/unused.py", "1", "2")):
        assert hashed(name, old, new) == first, name
    for name, old, new in (
        ("src/own.py", "SIZE = 3", "SIZE = 4"),
        ("src/own.py", "size = SIZE", "size = -SIZE"),
        ("src/parts.py", "part\n", "part  # why\n"),
        ("src/deeper.py", "1", "2"),
        ("src/inside.py", "1", "2"),
    ):
        assert hashed(name, old, new) != first, (name, new)


@pytest.mark.parametrize("kind", KINDS)
def test_the_classifier_is_the_layer_with_an_output_per_class(kind: str) -> None:
    model = create_model(kind, 7, 3, 32)
    parameters = classifier_parameters(model)
    assert [len(parameter) for parameter in parameters] == [7, 7]
    names = {name for name, p in model.named_parameters() if any(p is head for head in parameters)}
    assert {name.rpartition(".")[2] for name in names} == {"weight", "bias"}


def test_a_net_without_classifier_says_so() -> None:
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten())
    net.num_classes = torch.tensor(4)
    with pytest.raises(InputError, match="freeze_epochs must be 0"):
        classifier_parameters(net)


@pytest.mark.parametrize("kind", ["torchvision:squeezenet1_1", "own"])
def test_weights_files_of_other_nets_are_checked_too(kind: str, tmp_path: Path) -> None:
    donor = create_model(kind, 4, 3, 32, seed=5)
    file = str(tmp_path / "donor.safetensors")
    state = {key: value.clone() for key, value in donor.state_dict().items()}
    save_file(state, file)
    model = create_model(kind, 6, 3, 32, weights=file)  # a new head for other classes
    assert len(classifier_parameters(model)[1]) == 6
    body = [key for key, value in model.state_dict().items() if value.shape == state[key].shape]
    assert len(body) == len(state) - 2
    assert all(torch.equal(model.state_dict()[key], state[key]) for key in body)
    for change in ({"more": torch.ones(1)}, {}):
        save_file({key: state[key] for key in list(state)[not change :]} | change, file)
        with pytest.raises(InputError, match="are not those of model"):
            create_model(kind, 4, 3, 32, weights=file)


def test_the_weights_of_a_deeper_net_are_refused(tmp_path: Path) -> None:
    """They hold all of this net's layers, and more."""
    file = str(tmp_path / "deep.safetensors")
    save_file(timm.create_model("test_resnet", layers=(2, 2, 2, 2)).state_dict(), file)
    with pytest.raises(InputError, match=r"not those of model test_resnet, which lacks layer1\.1"):
        create_model("test_resnet", 4, 3, 32, weights=file)


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("vgg11", {"drop_path": 0.1}, "drop_path must be 0 for model vgg11, which has no stoch"),
        ("own", {"drop_path": 0.1}, "drop_path must be 0 for model own"),
        ("torchvision:resnet18", {"drop_rate": 0.1}, "drop_rate must be 0 for model torchvision"),
    ],
)
def test_nets_without_such_dropout_name_the_key(name: str, options: dict, words: str) -> None:
    with pytest.raises(InputError, match=words):
        create_model(name, 3, 3, 32, **options)


def test_dropout_reaches_the_net() -> None:
    model = create_model("test_resnet", 3, 3, 32, drop_rate=0.3, drop_path=0.4)
    rates = [getattr(module, "drop_prob", 0) for module in model.modules()]
    assert max(rates) == pytest.approx(0.4)
    assert model.drop_rate == 0.3
    plain = create_model("test_resnet", 3, 3, 32)
    assert not any(getattr(module, "drop_prob", 0) for module in plain.modules())


class Odd(nn.Module):
    """A net that gives `made(logits)`; counts its calls in a buffer."""

    calls: torch.Tensor

    def __init__(self, made) -> None:
        super().__init__()
        self.made, self.layer = made, nn.Linear(3, 4)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: torch.Tensor) -> object:
        self.calls.add_(1)
        return self.made(self, self.layer(x.mean(dim=(2, 3))))


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (lambda net, y: (y, y), "got a tuple"),
        (lambda net, y: (y, y) if net.training else y, "in training mode, got a tuple"),
        (lambda net, y: y[:, :3], "got 1x3"),
        (lambda net, y: y / 0, "not numbers"),
        (lambda net, y: y, None),
    ],
)
def test_an_own_net_must_return_logits(
    made: object, words: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(net, "own_net", lambda classes, channels, size: Odd(made))
    if words is None:
        model = create_model("own", 4, 3, 16)
        assert model.calls == 1  # the look at training leaves no trace in the statistics
    else:
        with pytest.raises(InputError, match=words):
            create_model("own", 4, 3, 16)
