"""The net: built by the name that params.yaml gives, written and rebuilt from two files.

`models/model.safetensors` (weights) and `models/model.json` (everything else that prediction
needs) are enough to use the net without this repository's params or data. For `own` the source of
`own_net` belongs to it: model.json has its hash, and another one is told when the model is loaded.
"""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from src.errors import InputError
from src.files import write_json
from src.randomness import seed_initial_weights
from src.training.description import FILE, TRAIN, read_description
from src.training.device import told_in_one_line
from src.training.nets.names import OWN, TORCHVISION
from src.training.nets.own_code import code_hash
from src.training.nets.timm_models import timm_net
from src.training.nets.weights_file import NO_WEIGHTS, fill, head_name, load_weights, write_weights

FOLDER = Path("models")


def own_net(classes: int, channels: int, size: int) -> nn.Module:
    """Your own net, for `model: own`. Edit it: any torch module that takes float32 pictures
    B x `channels` x `size` x `size` and returns logits B x `classes`.

    Logits are plain numbers: no softmax, no sigmoid and no other activation at the end, since the
    loss has its own. `overfit-check` stops a net that has one. A file of src/ that you import here
    becomes an input of the stages by `python -m src.closure`, which writes dvc.yaml.
    """

    def block(inputs: int, outputs: int, stride: int) -> nn.Sequential:
        convolution = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
        return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU())

    return nn.Sequential(
        block(channels, 32, stride=1),
        block(32, 64, stride=2),
        block(64, 64, stride=1),
        block(64, 128, stride=2),
        block(128, 128, stride=1),
        block(128, 256, stride=2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(256, classes),
    )


def create_model(
    name: str,
    classes: int,
    channels: int,
    size: int,
    weights: str = NO_WEIGHTS,
    seed: int = 0,
    drop_rate: float = 0.0,
    drop_path: float = 0.0,
) -> nn.Module:
    """The net `name` (of timm, `torchvision:<name>`, or `own`) for `classes` and pictures of
    `channels` x `size` x `size`, on the CPU; it returns logits B x `classes`.

    Initial weights are a function of `seed`; `weights` names a safetensors file of the same
    architecture to start from instead (its head is replaced when the number of classes differs,
    its first layer adapted to `channels`). `drop_rate`: dropout before the classifier, `drop_path`:
    stochastic depth, both for timm's nets. InputError names the key that does not fit.
    """
    seed_initial_weights(seed)
    if name == OWN or name.startswith(TORCHVISION):
        for key, value in (("drop_rate", drop_rate), ("drop_path", drop_path)):
            if value:
                where = "in own_net instead" if name == OWN else "or a model of timm"
                raise InputError(
                    f"params.yaml: {key} must be 0 for model {name}: set it to 0 {where}"
                )
        model = _other_net(name, classes, channels, size)
        model.num_classes = classes  # type: ignore[assignment]
        if weights != NO_WEIGHTS:
            load_weights(model, name, weights)
    else:
        model = timm_net(name, classes, channels, size, weights, drop_rate, drop_path)
    _check_forward(model, name, classes, torch.zeros(1, channels, size, size))
    if name == OWN:  # some nets return something else in training than in evaluation
        _check_forward(model, name, classes, torch.zeros(2, channels, size, size), training=True)
    return model.train()


def _other_net(name: str, classes: int, channels: int, size: int) -> nn.Module:
    if name == OWN:
        net = own_net(classes, channels, size)
        if not isinstance(net, nn.Module):
            got = type(net).__name__
            raise InputError(f"own_net in src/training/model.py must return a net, got {got}")
        return net
    from src.training.nets.torchvision_models import torchvision_net

    return torchvision_net(name.removeprefix(TORCHVISION), classes, channels)


@torch.no_grad()
def _check_forward(
    model: nn.Module, name: str, classes: int, pictures: torch.Tensor, training: bool = False
) -> None:
    """Black pictures through the net, so that a size or a net that does not fit is said in one
    line. Leaves its statistics as they are."""
    statistics = {key: value.clone() for key, value in model.named_buffers()} if training else {}
    model.train(training)
    size = pictures.shape[-1]
    try:
        with told_in_one_line("model"):  # not the size: memory, or what is not deterministic
            logits = model(pictures)
    except (RuntimeError, AssertionError, ValueError, IndexError) as error:
        reason = " ".join(str(error).split())[:150]
        raise InputError(
            f"params.yaml: model {name} cannot take pictures of prepare.size {size} ({reason}): "
            f"set another prepare.size or {'change own_net' if name == OWN else 'model'}"
        ) from None
    for key, value in model.named_buffers():
        if key in statistics:
            value.copy_(statistics[key])
    wanted, is_tensor = (len(pictures), classes), isinstance(logits, torch.Tensor)
    if not is_tensor or logits.shape != wanted:
        got = "x".join(map(str, logits.shape)) if is_tensor else f"a {type(logits).__name__}"
        mode = " in training mode" if training else ""
        raise InputError(
            f"params.yaml: model {name} must return logits of batch x classes, "
            f"{wanted[0]}x{wanted[1]}, for {wanted[0]} pictures{mode}, got {got}"
        )
    if not logits.isfinite().all():
        raise InputError(
            f"params.yaml: model {name} gives outputs that are not numbers for a black picture: "
            "set another model or other weights"
        )


def classifier_parameters(model: nn.Module) -> list[nn.Parameter]:
    """The parameters of the head, which learn while the backbone rests: timm's classifier, else
    the last linear layer or 1 x 1 convolution with an output per class. InputError without one."""
    heads: list[nn.Module] = []
    if hasattr(model, "get_classifier"):
        found = model.get_classifier()  # type: ignore[operator]
        found = found if isinstance(found, list | tuple) else [found]
        heads = [head for head in found if isinstance(head, nn.Module)]
    elif name := head_name(model):
        heads = [model.get_submodule(name)]
    parameters = [parameter for head in heads for parameter in head.parameters()]
    if not parameters:
        raise InputError(
            "params.yaml: freeze_epochs must be 0: the model has no classifier layer to train alone"
        )
    return parameters


def save_model(
    state: Mapping[str, torch.Tensor], description: Mapping[str, Any], folder: Path = FOLDER
) -> None:
    """Write the two files. `description`: architecture, classes, input_size, mean, std, fit,
    interpolation, fingerprint and whatever else the caller wants to keep. The weights file says
    what it expects of pictures, so that another training can start from it."""
    keys = ("architecture", "input_size", "mean", "std", "fit", "interpolation", "crop_ratio")
    about = {key: description[key] for key in keys if key in description}
    write_weights(folder / "model.safetensors", state, about)
    own = {"own_net": code_hash(own_net)} if description["architecture"] == OWN else {}
    write_json(folder / FILE, {**description, **own})


def load_model(
    folder: Path = FOLDER, needed: Sequence[str] = ()
) -> tuple[nn.Module, dict[str, Any]]:
    """The net in evaluation mode, on the CPU, and its description, in which the keys `needed` are
    there beside those of prediction. InputError names the file, and the key, that is wrong; a line
    on stderr tells that own_net, or what it uses, is another than in training."""
    description = read_description(folder, needed)
    try:
        tensors = load_file(folder / "model.safetensors")
    except (OSError, ValueError, SafetensorError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{folder} holds no model ({reason}): {TRAIN}") from None
    channels, size, _ = description["input_size"]
    try:
        model = create_model(
            description["architecture"], len(description["classes"]), channels, size
        )
    except InputError as error:  # it speaks of params.yaml, where the names came from
        reason = str(error).partition(": set another")[0].replace("prepare.size", "input_size")
        reason = reason.replace("params.yaml: model", f"{folder / FILE}: architecture")
        raise InputError(f"{reason}: {TRAIN}") from None
    changed = "own_net" in description and description["own_net"] != code_hash(own_net)
    another = (
        f"{folder / FILE}: own_net, or code of src/ that it uses, is not that of this training"
    )
    try:
        fill(model, tensors)
    except RuntimeError:
        if changed:
            raise InputError(f"{another}, and the weights do not fit it: bring it back") from None
        raise InputError(f"{folder}/model.safetensors does not fit model.json: {TRAIN}") from None
    if changed:
        print(f"{another}: its answers may be others", file=sys.stderr)
    return model.eval(), description
