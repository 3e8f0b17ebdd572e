"""The net: built by the name that params.yaml gives, written and rebuilt from two files.

`models/model.safetensors` (weights) and `models/model.json` (everything else that prediction
needs) are enough to use the net without this repository's params or data. For `own` the source of
`own_net` belongs to it: model.json has its hash, and another one is told when the model is loaded.
"""

import torch
from torch import nn

from src.base.randomness import seed_initial_weights
from src.model.device import told_in_one_line
from src.model.nets.names import OWN, TORCHVISION
from src.model.nets.timm_models import timm_net
from src.model.nets.weights_file import NO_WEIGHTS, head_name, load_weights
from src.plumbing.errors import InputError
from src.yours import net as yours


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
        net = yours.own_net(classes, channels, size)
        if not isinstance(net, nn.Module):
            got = type(net).__name__
            raise InputError(f"own_net in src/model/create.py must return a net, got {got}")
        return net
    from src.model.nets.torchvision_models import torchvision_net

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
