"""Every choice of every key that training reads trains. tests/preparation and
tests/plumbing/test_choices_of_stages.py have the other keys, test_ranges.py what is refused."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from src.base.imports import ROOT
from src.model.device import prepare_device
from src.plumbing import params
from src.plumbing.dvc_files import stage_entry
from src.plumbing.errors import InputError
from src.plumbing.schema import SCHEMA
from src.yours import net as yours
from tests.training.trainings import PARAMS, Splits, make_training, run

# Values of keys whose choices cannot all be listed; with them what a value needs to mean something.
SAMPLES: dict[str, list[Any]] = {
    "seed": [0, 7],
    "model": ["test_resnet", "test_vit", "own", "torchvision:shufflenet_v2_x0_5"],
    "weights": ["data/weights/none"],
    "drop_rate": [0.0, 0.5],
    "drop_path": [0.0, 0.3],
    "freeze_epochs": [0, 1],
    "epochs": [1, 2],
    "patience": ["none", 1],
    "batch_size": [2, 16],
    "accumulate": [1, 2, 4],
    "optimizer": ["adamw", "sgd", "momentum", "lamb", "lion", "rmsprop", "adan"],
    "lr": [1e-4, 1e-2],
    "momentum": [0.0, 0.9],
    "weight_decay": [0.0, 0.1],
    "layer_decay": [1.0, 0.7],
    "clip_grad": ["none", 0.5],
    "warmup": [0.0, 0.5],
    "decay_epochs": [1, 5],
    "decay_rate": [0.1, 0.9],
    "label_smoothing": [0.0, 0.1],
    "class_weights": ["none", "balanced", [1.0, 2.0, 0.5]],
    "focal_gamma": [0.0, 2.0],
    "mixup": [0.0, 0.2],
    "cutmix": [0.0, 1.0],
    "ema": ["none", 0.99],
    "augment_crop": [0, 2],
    "augment_scale": [1.0, 0.3],
    "augment_rotation": [0.0, 20.0],
    "augment_color": [0.0, 0.4],
    "augment_erase": [0.0, 0.5],
    "threads": [1, 2],
}

TOGETHER: dict[str, dict[str, Any]] = {
    "drop_path": {"model": "test_vit"},
    "accumulate": {"batch_size": 4},  # three steps of four parts each at most
    "decay_epochs": {"schedule": "step"},
    "decay_rate": {"schedule": "plateau"},
    "focal_gamma": {"loss": "focal"},
    "momentum": {"optimizer": "sgd"},
}

# Compiling takes a minute of the processor: with the slow tests.
SLOW = [("compile", "default"), ("compile", "reduce-overhead")]


def training_keys() -> tuple[str, ...]:
    """The template's keys of `train` that its code does not read as paths."""
    keys = stage_entry("train", params.load(ROOT), ROOT).params
    return tuple(key for key in keys if key != "train_on" and not key.startswith("yours."))


def values_of(key: str) -> list[Any]:
    if key in SAMPLES:
        return SAMPLES[key]
    return [SCHEMA[key].parse(choice) for choice in SCHEMA[key].choices]


CASES = [
    pytest.param(key, value, marks=pytest.mark.slow if (key, value) in SLOW else ())
    for key in training_keys()
    for value in values_of(key)
]


def test_every_key_has_values_to_try() -> None:
    for key in training_keys():
        assert len(values_of(key)) >= (1 if key == "weights" else 2), key
        for value in values_of(key):
            if not isinstance(value, list):
                text = str(value).lower() if isinstance(value, bool) else str(value)
                assert SCHEMA[key].parse(text) is not None, (key, value)


def deterministic() -> str | None:
    """None where the settings of torch do not belong together."""
    return {
        (True, False, False): "true",
        (True, True, False): "warn",
        (False, False, True): "false",
    }.get(
        (
            torch.are_deterministic_algorithms_enabled(),
            torch.is_deterministic_algorithms_warn_only_enabled(),
            torch.backends.cudnn.benchmark,
        )
    )


def tf32() -> bool | None:
    """None where matrix products and convolutions differ."""
    products = torch.backends.cuda.matmul.allow_tf32
    return products if products == torch.backends.cudnn.allow_tf32 else None


GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


@pytest.mark.usefixtures("torch_settings")
@pytest.mark.parametrize("kind", ["cpu", pytest.param("cuda", marks=GPU)])
@pytest.mark.parametrize(("key", "value"), CASES)
def test_every_choice_trains(few: Splits, tmp_path: Path, key: str, value: Any, kind: str) -> None:
    if value == "bf16" and kind == "cpu":
        pytest.skip("refused on a CPU, see below")
    options = {"epochs": 1, "threads": 1, **TOGETHER.get(key, {}), key: value}
    given = {**PARAMS, **options}
    wide = {name: given[name] for name in ("threads", "deterministic", "tf32")}
    device = prepare_device(kind, **wide)
    assert wide == {
        "threads": torch.get_num_threads(),
        "deterministic": deterministic(),
        "tf32": tf32(),
    }
    training = make_training(few, device, **options)
    before = [parameter.detach().clone() for parameter in training.learner.model.parameters()]
    taken: list[Any] = []
    training.learner.optimizer.register_step_post_hook(lambda *step: taken.append(step))
    run(training, tmp_path)
    assert training.epoch == options["epochs"] or key == "patience"
    assert all(math.isfinite(number) for row in training.history for number in row.values())
    if (kind, value) == ("cuda", "fp16"):  # its scaler begins high and leaves the first steps out
        return
    assert len(taken) >= 3
    after = training.learner.model.parameters()
    assert any(not torch.equal(one, other) for one, other in zip(before, after, strict=True))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            {"optimizer": "adamx"},
            "optimizer must be the name of a timm optimizer, got 'adamx', did",
        ),
        ({"optimizer": "lookahead_adamw"}, "must be the name of a timm optimizer"),
        ({"optimizer": "bnbadam"}, "optimizer bnbadam cannot be made ("),
        ({"optimizer": "adahessian"}, "needs second derivatives"),
        ({"class_weights": [1.0, 2.0]}, "class_weights must have one number for each of the 3"),
        ({"drop_path": 0.5, "model": "own"}, "drop_path must be 0"),
        ({"layer_decay": 0.7, "model": "own"}, "layer_decay must be 1 for model own"),
        ({"precision": "bf16"}, "precision bf16 needs a GPU"),
        ({"model": "no_such_net"}, "model must be the name of a timm model"),
    ],
)
def test_what_only_training_can_know_is_refused_too(
    few: Splits, change: dict[str, Any], words: str
) -> None:
    with pytest.raises(InputError) as caught:
        make_training(few, **change)
    assert words in str(caught.value)
    assert str(caught.value).startswith("params.yaml: ")


def test_a_net_in_which_nothing_learns_is_refused(
    few: Splits, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fixed(classes: int, channels: int, size: int, params: object) -> nn.Module:
        net = nn.Sequential(nn.Flatten(), nn.Linear(channels * size * size, classes))
        return net.requires_grad_(False)

    monkeypatch.setattr(yours, "own_net", fixed)
    with pytest.raises(InputError, match="model own has no parameters that learn"):
        make_training(few, model="own")


def test_compiling_needs_a_compiler(
    few: Splits, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(InputError, match="compile default needs a C\\+\\+ compiler"):
        make_training(few, compile="default")
