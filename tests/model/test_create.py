"""Building nets; wrong names and files in one line."""

import functools
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn

from src.base.imports import ROOT
from src.model import create
from src.model.create import classifier_parameters
from src.plumbing import params
from src.plumbing.errors import InputError
from src.yours import net

# Small and unlike each other: a head that is a convolution, one with versions, positions, own code.
# An own net may read keys of its own.
create_model = functools.partial(
    create.create_model, own_params=params.own_params(params.load(ROOT))
)
KINDS = ["test_resnet", "test_vit", "torchvision:squeezenet1_1", "torchvision:mnasnet0_5", "own"]


@pytest.mark.parametrize("kind", KINDS)
def test_initial_weights_follow_the_seed_alone(kind: str) -> None:
    torch.manual_seed(1)
    first = create_model(kind, 3, (1, 32, 32), seed=0)
    torch.manual_seed(2)
    again = create_model(kind, 3, (1, 32, 32), seed=0)
    other = create_model(kind, 3, (1, 32, 32), seed=1)
    weights = [torch.cat([p.flatten() for p in m.parameters()]) for m in (first, again, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("no_such_net", {}, "model must be the name of a timm model, got 'no_such_net'"),
        ("resnet10", {}, "did you mean resnet1"),
        ("hf-hub:timm/resnet10t", {}, "model must be the name of a timm model"),
        ("../resnet10t", {}, "model must be the name of a timm model"),
        ("test_resnet.r161_in1k", {}, "has no tag 'r161_in1k', did you mean r160_in1k?"),
        ("torchvision:resnet19", {}, "got 'torchvision:resnet19', did you mean resnet1"),
        ("torchvision:fcn_resnet50", {}, "classification model of torchvision"),
        ("torchvision:inception_v3", {}, "auxiliary outputs"),
        ("torchvision:googlenet", {}, "auxiliary outputs"),
        ("torchvision:vit_b_16", {}, "cannot take samples of 1 x 16 x 16 ("),
        ("test_vit", {"input_size": (1, 17, 17)}, " 1 x 17 x 17 "),
        ("vgg11", {"drop_path": 0.1}, "drop_path must be 0 for model vgg11, which has no stoch"),
        ("own", {"drop_path": 0.1}, "drop_path must be 0 for model own"),
        ("torchvision:resnet18", {"drop_rate": 0.1}, "drop_rate must be 0 for model torchvision"),
    ],
)
def test_what_cannot_be_built_says_so(name: str, options: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError) as caught:
        create_model(name, 3, **{"input_size": (1, 16, 16), **options})
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def saved(model: nn.Module, folder: Path) -> str:
    """The path of a file with the weights of a net."""
    path = str(folder / "donor.safetensors")
    save_file({key: value.clone() for key, value in model.state_dict().items()}, path)
    return path


def test_a_transformer_gets_the_size() -> None:
    model = create_model("test_vit", 3, (1, 32, 32))
    assert model(torch.zeros(2, 1, 32, 32)).shape == (2, 3)


def test_weights_from_a_file(tmp_path: Path) -> None:
    donor = create_model("test_resnet", 10, (3, 32, 32), seed=5)
    model = create_model("test_resnet", 4, (1, 32, 32), weights=saved(donor, tmp_path))
    assert model(torch.zeros(2, 1, 32, 32)).shape == (2, 4)
    name = "layer1.0.conv1.weight"
    assert torch.equal(model.state_dict()[name], donor.state_dict()[name])


def test_the_head_of_a_file_with_as_many_classes_is_kept(tmp_path: Path) -> None:
    donor = create_model("test_resnet", 4, (3, 32, 32), seed=5)
    model = create_model("test_resnet", 4, (3, 32, 32), weights=saved(donor, tmp_path))
    assert all(torch.equal(model.state_dict()[k], v) for k, v in donor.state_dict().items())


@pytest.mark.parametrize("content", [None, b"not safetensors"])
def test_weights_that_cannot_be_read_say_so(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "w.safetensors"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(InputError, match=r"params\.yaml: weights must be a safetensors file"):
        create_model("test_resnet", 4, (1, 32, 32), weights=str(file))


def test_weights_of_another_architecture_say_so(tmp_path: Path) -> None:
    file = saved(create_model("test_vit", 3, (3, 32, 32)), tmp_path)
    with pytest.raises(InputError, match=r"donor.safetensors are not those of model test_resnet"):
        create_model("test_resnet", 3, (3, 32, 32), weights=file)


@pytest.mark.parametrize("kind", KINDS)
def test_the_classifier_is_the_layer_with_an_output_per_class(kind: str) -> None:
    model = create_model(kind, 7, (3, 32, 32))
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
    donor = create_model(kind, 4, (3, 32, 32), seed=5)
    file = saved(donor, tmp_path)
    state = {key: value.clone() for key, value in donor.state_dict().items()}
    model = create_model(kind, 6, (3, 32, 32), weights=file)  # a new head for other classes
    assert len(classifier_parameters(model)[1]) == 6
    body = [key for key, value in model.state_dict().items() if value.shape == state[key].shape]
    assert len(body) == len(state) - 2
    assert all(torch.equal(model.state_dict()[key], state[key]) for key in body)
    for change in ({"more": torch.ones(1)}, {}):
        save_file({key: state[key] for key in list(state)[not change :]} | change, file)
        with pytest.raises(InputError, match="are not those of model"):
            create_model(kind, 4, (3, 32, 32), weights=file)


def test_the_weights_of_a_deeper_net_are_refused(tmp_path: Path) -> None:
    """They hold all of this net's layers, and more."""
    file = saved(timm.create_model("test_resnet", layers=(2, 2, 2, 2)), tmp_path)
    with pytest.raises(InputError, match=r"not those of model test_resnet, which lacks layer1\.1"):
        create_model("test_resnet", 4, (3, 32, 32), weights=file)


def test_dropout_reaches_the_net() -> None:
    model = create_model("test_resnet", 3, (3, 32, 32), drop_rate=0.3, drop_path=0.4)
    rates = [getattr(module, "drop_prob", 0) for module in model.modules()]
    assert max(rates) == pytest.approx(0.4)
    assert model.drop_rate == 0.3
    plain = create_model("test_resnet", 3, (3, 32, 32))
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
    ("own", "words"),
    [
        (None, r"own_net .* must return a net, got NoneType"),
        (nn.Sequential(nn.Flatten(), nn.Linear(63, 4)), "set another model, or change own_net"),
        (Odd(lambda net, y: (y, y)), "got a tuple"),
        (Odd(lambda net, y: (y, y) if net.training else y), "in training mode, got a tuple"),
        (Odd(lambda net, y: y[:, :3]), "got 1x3"),
        (Odd(lambda net, y: y / 0), "not numbers"),
        (Odd(lambda net, y: y), None),
    ],
)
def test_an_own_net_must_return_logits(
    own: nn.Module | None, words: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(net, "own_net", lambda *_: own)
    if words is None:
        model = create_model("own", 4, (3, 16, 16))
        assert model.calls == 1  # the look at training leaves no trace in the statistics
    else:
        with pytest.raises(InputError, match=words):
            create_model("own", 4, (3, 16, 16))
