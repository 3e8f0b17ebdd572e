"""The net by the name in params.yaml: of timm, torchvision, the kind of sample, or your own."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from src.base.kinds import kind_part
from src.base.randomness import seed_initial_weights
from src.model.device import readable_errors
from src.model.fitting import USUAL, DoesNotFit, takes, what_fits
from src.model.nets.names import OWN, TORCHVISION
from src.model.nets.pretrained import published
from src.model.nets.timm_models import timm_net
from src.model.nets.weights_file import NO_WEIGHTS, head_name, load_weights
from src.plumbing.errors import InputError
from src.yours import net as yours


def create_model(
    name: str,
    classes: int,
    input_size: Sequence[int],
    weights: str = NO_WEIGHTS,
    seed: int = 0,
    drop_rate: float = 0.0,
    drop_path: float = 0.0,
    kind: str = "images",
    own_params: Mapping[str, Any] | None = None,
) -> nn.Module:
    """The net `name` (of timm, `torchvision:<name>`, `own`, or one of the kind's own) for `classes`
    and samples of `input_size` (of images C, H, W), on the CPU; it returns logits B x `classes`.

    Initial weights are a function of `seed`; `weights` names a safetensors file of the same
    architecture to start from instead (its head is replaced when the number of classes differs,
    its first layer adapted to the channels). `drop_rate`: dropout before the classifier,
    `drop_path`: stochastic depth, both for timm's nets. `own_params`: what own_net gets as params.
    InputError names the key that does not fit.
    """
    own_params = own_params or {}

    def without_weights(size: Sequence[int]) -> nn.Module:
        net = _net_not_of_timm(name, classes, list(size), kind, own_params)
        return net or timm_net(name, classes, size, NO_WEIGHTS, drop_rate, drop_path)

    seed_initial_weights(seed)
    model = _net_not_of_timm(name, classes, list(input_size), kind, own_params)
    if model is None:
        try:
            model = timm_net(name, classes, input_size, weights, drop_rate, drop_path)
        except DoesNotFit as error:
            if weights != NO_WEIGHTS and takes(without_weights, classes, input_size):
                advice = f"with weights {NO_WEIGHTS} it can (tried): name another file"
            else:
                advice = what_fits(without_weights, classes, input_size, _known_size(name))
            raise DoesNotFit(error.fact, advice) from None
    else:
        for key, value in (("drop_rate", drop_rate), ("drop_path", drop_path)):
            if value:
                where = "in own_net instead" if name == OWN else "or a model of timm"
                raise InputError(
                    f"params.yaml: {key} must be 0 for model {name}: set it to 0 {where}"
                )
        model.num_classes = classes  # type: ignore[assignment]
        if weights != NO_WEIGHTS:
            load_weights(model, name, weights)
    try:
        _check_forward(model, name, classes, torch.zeros(1, *input_size))
        if name == OWN:  # some nets return something else in training than in evaluation
            _check_forward(model, name, classes, torch.zeros(2, *input_size), training=True)
    except DoesNotFit as error:
        advice = what_fits(without_weights, classes, input_size, _known_size(name))
        own = ", or change own_net" if name == OWN else ""
        raise DoesNotFit(error.fact, f"{advice}{own}") from None
    return model.train()


def _known_size(name: str) -> int:
    """The side of the images that a model was published for; the usual one if nobody says."""
    return int((published(name) or {}).get("input_size", [3, USUAL])[1])


def _net_not_of_timm(
    name: str, classes: int, input_size: list[int], kind: str, own_params: Mapping[str, Any]
) -> nn.Module | None:
    of_kind = kind_part(kind, "model")
    if name == OWN:
        arguments = (classes, *of_kind.own_sizes(input_size), own_params)
        net = yours.own_net(*arguments)
        if not isinstance(net, nn.Module):
            got = type(net).__name__
            raise InputError(f"own_net in src/yours/net.py must return a net, got {got}")
        return net
    if name in of_kind.NETS:
        return of_kind.NETS[name](classes, input_size)
    if len(input_size) != 3:
        known = ", ".join([OWN, *of_kind.NETS])
        raise InputError(
            f"params.yaml: model must be one of {known} for {kind}, got '{name}': the nets of timm "
            "and torchvision take images"
        )
    if not name.startswith(TORCHVISION):
        return None
    from src.model.nets.torchvision_models import torchvision_net

    return torchvision_net(name.removeprefix(TORCHVISION), classes, input_size[0])


@torch.no_grad()
def _check_forward(
    model: nn.Module, name: str, classes: int, inputs: torch.Tensor, training: bool = False
) -> None:
    """Zeros through the net, to report a size or net that does not fit; leaves its statistics."""
    statistics = {key: value.clone() for key, value in model.named_buffers()} if training else {}
    model.train(training)
    size = " x ".join(map(str, inputs.shape[1:]))
    try:
        with readable_errors("model"):  # not the size: memory, or what is not deterministic
            logits = model(inputs)
    except (RuntimeError, AssertionError, ValueError, IndexError) as error:
        reason = " ".join(str(error).split())[:150]
        raise DoesNotFit(
            f"params.yaml: model {name} cannot take samples of {size} ({reason})"
        ) from None
    for key, value in model.named_buffers():
        if key in statistics:
            value.copy_(statistics[key])
    wanted, is_tensor = (len(inputs), classes), isinstance(logits, torch.Tensor)
    if not is_tensor or logits.shape != wanted:
        got = "x".join(map(str, logits.shape)) if is_tensor else f"a {type(logits).__name__}"
        mode = " in training mode" if training else ""
        raise InputError(
            f"params.yaml: model {name} must return logits of batch x classes, "
            f"{wanted[0]}x{wanted[1]}, for {wanted[0]} samples{mode}, got {got}"
        )
    if not logits.isfinite().all():
        bad = [key for key, value in model.state_dict().items() if not value.isfinite().all()]
        remedy = "set another model"
        if bad:
            remedy = f"{bad[0]} has such values: look at the weights, or how it begins without"
        raise InputError(
            f"params.yaml: model {name} gives outputs that are not numbers for an input of zeros: "
            f"{remedy}"
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
