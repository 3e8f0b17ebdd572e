"""Your own net, for `model: own`."""

from collections.abc import Mapping
from typing import Any

from torch import nn


def own_net(classes: int, channels: int, size: int, params: Mapping[str, Any]) -> nn.Module:
    """Your own net, for `model: own`. Edit it: any torch module that takes float32 images
    B x `channels` x `size` x `size` and returns logits B x `classes`.

    Logits are plain numbers: no softmax, no sigmoid and no other activation at the end, since the
    loss has its own. `overfit-check` stops a net that has one. `params` holds your own keys, such
    as `params["yours.width"]` (src/yours/params.py): their values stay with the model. A file of
    src/ that you import here becomes an input of the stages by `python -m src.deps`, as the keys
    that you read do.
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
