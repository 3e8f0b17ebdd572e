"""Faults inside the model: initialisation, gradients that do not arrive, dropout, BatchNorm."""

from collections.abc import Callable
from functools import wraps
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.zoo.known.bases import SmallNet
from tests.zoo.known.catalogue import fault
from tests.zoo.known.complete_setup import TrainingSetup


@fault("two_classes", causes=["bad_initialisation", "gradient_blocked"])
def zero_initialised(setup: TrainingSetup) -> None:
    """All weights start at 0: nothing but the last bias ever gets a gradient."""
    for module in setup.model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.zeros_(module.weight)


@fault("two_classes", causes=["bad_initialisation"])
def constant_initialised(setup: TrainingSetup) -> None:
    """All weights start at 0.01: the units of a layer stay equal for ever."""
    for parameter in setup.model.parameters():
        if parameter.ndim > 1:
            nn.init.constant_(parameter, 0.01)


@fault("shapes_vit", causes=["bad_initialisation"])
def huge_initialisation(setup: TrainingSetup) -> None:
    """Weights drawn with standard deviation 1 instead of 0.02."""
    for module in setup.model.modules():
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=1.0)


@fault("two_classes", causes=["bad_initialisation"])
def huge_head(setup: TrainingSetup) -> None:
    """The last layer drawn with standard deviation 30."""
    nn.init.normal_(setup.model.head.weight, std=30.0)


@fault("two_classes", causes=["gradient_blocked", "bad_initialisation", "input_ignored"])
def dead_relu(setup: TrainingSetup) -> None:
    """A large negative bias: no unit of the hidden layer is ever active."""
    nn.init.constant_(setup.model.hidden.bias, -20.0)


@fault("two_classes", causes=["bad_initialisation"])
def bias_ahead(setup: TrainingSetup) -> None:
    """The last bias starts at 50 for one class: its certainty drowns everything."""
    with torch.no_grad():
        setup.model.head.bias.copy_(torch.tensor([0.0, 50.0]))


def net_of(setup: TrainingSetup, kind: type[SmallNet]) -> None:
    """Another net for two_classes, known to optimizer and schedule."""
    torch.manual_seed(11)
    setup.model = kind(2)
    group = setup.optimizer.param_groups[0]
    group["params"] = list(setup.model.parameters())


def forward_of_net(forward: Callable[[Any, Tensor], Tensor]) -> Callable[[TrainingSetup], None]:
    """A change of two_classes: its net with this forward pass."""

    @wraps(forward)
    def plant(setup: TrainingSetup) -> None:
        net_of(setup, type(forward.__name__, (SmallNet,), {"forward": forward}))

    return plant


@fault("two_classes", causes=["gradient_blocked"])
@forward_of_net
def features_detached(net: SmallNet, x: Tensor) -> Tensor:
    """`detach` in the forward pass cuts the convolutions off from the loss."""
    features = net.features(x).mean((2, 3)).detach()
    return net.head(F.relu(net.hidden(features)))


@fault("two_classes", causes=["gradient_blocked"])
@forward_of_net
def no_grad_first_block(net: SmallNet, x: Tensor) -> Tensor:
    """The first block runs under `no_grad`."""
    with torch.no_grad():
        features = net.features[0](x)
    return net.head(F.relu(net.hidden(net.features[1:](features).mean((2, 3)))))


@fault("two_classes", causes=["gradient_blocked"])
@forward_of_net
def through_numpy(net: SmallNet, x: Tensor) -> Tensor:
    """The hidden layer's activation takes a way through NumPy, which no gradient follows."""
    features = net.features(x).mean((2, 3))
    return net.head(torch.from_numpy(net.hidden(features).detach().numpy().clip(0)))


@fault("two_classes", causes=["parameter_not_registered", "parameter_not_in_optimizer"])
@forward_of_net
def layer_made_in_forward(net: SmallNet, x: Tensor) -> Tensor:
    """The last layer is made anew in each forward pass and never learns."""
    features = F.relu(net.hidden(net.features(x).mean((2, 3))))
    return nn.Linear(features.shape[1], 2)(features)


@fault(
    "two_classes", causes=["loss_not_finite", "gradient_blocked", "precision", "bad_initialisation"]
)
@forward_of_net
def log_of_zero(net: SmallNet, x: Tensor) -> Tensor:
    """The logarithm of features that are 0 after a ReLU."""
    return net.head(F.relu(net.hidden(net.features(x).amin((2, 3)).log())))


@fault("two_classes", causes=["train_eval_differ", "eval_not_deterministic", "samples_mixed"])
@forward_of_net
def dropout_always(net: SmallNet, x: Tensor) -> Tensor:
    """`F.dropout` without `training=`: outputs are random in evaluation."""
    features = F.relu(net.hidden(net.features(x).mean((2, 3))))
    return net.head(F.dropout(features, 0.5))


@fault("two_classes", causes=["input_ignored", "gradient_blocked"])
@forward_of_net
def features_unused(net: SmallNet, x: Tensor) -> Tensor:
    """The head is fed a constant; what was computed from the image is dropped."""
    F.relu(net.hidden(net.features(x).mean((2, 3))))
    return net.head(torch.ones(len(x), net.head.in_features))


@fault("two_classes", causes=["gradient_blocked"])
@forward_of_net
def hard_gate(net: SmallNet, x: Tensor) -> Tensor:
    """A comparison in the forward pass: 0 or 1, and no gradient for what lies before."""
    gate = (net.features(x).mean((2, 3)) > 0.5).float()
    return net.head(F.relu(net.hidden(gate)))


class ListOfLayers(SmallNet):
    def __init__(self, classes: int):
        super().__init__(classes)
        self.layers = list(self.features)
        del self.features

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return self.head(F.relu(self.hidden(x.mean((2, 3)))))


@fault("two_classes", causes=["parameter_not_registered"])
def layers_in_python_list(setup: TrainingSetup) -> None:
    """Layers kept in a Python list: unknown to `parameters`, `state_dict` and `train`."""
    net_of(setup, ListOfLayers)


class DeepSigmoid(SmallNet):
    def __init__(self, classes: int):
        super().__init__(classes)
        layers = [layer for _ in range(10) for layer in (nn.Linear(64, 64), nn.Sigmoid())]
        self.deep = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.deep(self.hidden(self.features(x).mean((2, 3)))))


@fault("two_classes", causes=["gradient_blocked", "bad_initialisation", "input_ignored"])
def vanishing_gradient(setup: TrainingSetup) -> None:
    """Ten layers with sigmoids: nearly nothing of the gradient comes through."""
    net_of(setup, DeepSigmoid)


@fault("digits_resnet", "shapes_vit", causes=["parameter_frozen"])
def frozen_undeclared(setup: TrainingSetup) -> None:
    """Everything but the head is frozen and nobody says so: a leftover of fine-tuning."""
    setup.model.requires_grad_(False)
    setup.model.get_classifier().requires_grad_(True)


@fault("pretrained", causes=["parameter_frozen"])
def head_frozen(setup: TrainingSetup) -> None:
    """The new head was frozen with the stem; it keeps its random weights."""
    setup.model.fc.requires_grad_(False)


@fault("pretrained", causes=["parameter_frozen"])
def norm_frozen_undeclared(setup: TrainingSetup) -> None:
    """Scale and shift of all BatchNorm layers frozen, only the stem declared."""
    for module in setup.model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.requires_grad_(False)


@fault("shapes_vit", causes=["dropout_too_high"])
def dropout_95(setup: TrainingSetup) -> None:
    """Dropout 0.95 before the head: a keep rate taken for a drop rate."""
    setup.model.head_drop = nn.Dropout(0.95)


@fault("digits_resnet", "two_classes", causes=["batchnorm_momentum"])
def bn_momentum_zero(setup: TrainingSetup) -> None:
    """BatchNorm with momentum 0: its running statistics never move from 0 and 1."""
    for module in setup.model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 0.0


@fault("two_classes", causes=["batchnorm_momentum"])
def bn_momentum_one(setup: TrainingSetup) -> None:
    """BatchNorm momentum 0.99, another library's convention: the last batch alone counts."""
    for module in setup.model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 0.99


@fault("digits_resnet", causes=["samples_mixed", "batchnorm_momentum", "train_eval_differ"])
def bn_batch_statistics(setup: TrainingSetup) -> None:
    """BatchNorm without running statistics: evaluation depends on who else is in the batch."""
    for module in setup.model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.track_running_stats = False
            module.running_mean = module.running_var = module.num_batches_tracked = None
