from collections.abc import Mapping
from typing import Any

from torch import nn


def own_net(classes: int, channels: int, size: int, params: Mapping[str, Any]) -> nn.Module:
    """Two convolutions of `yours.width`."""
    width = params["yours.width"]
    return nn.Sequential(
        nn.Conv2d(channels, width, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(width, width, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(width, classes),
    )
