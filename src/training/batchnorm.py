"""The batches that BatchNorm layers count, by one operation for all layers together: each layer
would start one of its own, which on a GPU takes as long as many a layer."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

COUNTER = "num_batches_tracked"


class _Tally:
    """Stands for a layer's counter during a forward pass, and counts on the host."""

    def __init__(self) -> None:
        self.count = 0

    def add_(self, number: int) -> None:
        self.count += number


class Counters:
    """The counters of the BatchNorm layers of `model`, but for those of layers that weigh by them
    (momentum None)."""

    def __init__(self, model: nn.Module):
        self.model = model
        self.layers = [
            module
            for module in model.modules()
            if isinstance(module, _BatchNorm)
            and module.num_batches_tracked is not None
            and module.momentum is not None
        ]

    @contextmanager
    def together(self) -> Iterator[None]:
        """A forward pass inside counts each layer as often as it is called, when it ends."""
        counters = [layer.num_batches_tracked for layer in self.layers]
        tallies = [_Tally() for _ in self.layers]
        for layer, tally in zip(self.layers, tallies, strict=True):
            layer._buffers[COUNTER] = tally  # type: ignore[assignment]
        try:
            yield
        finally:
            for layer, counter in zip(self.layers, counters, strict=True):
                layer._buffers[COUNTER] = counter
        counted = [tally.count for tally in tallies]
        if any(counted):
            torch._foreach_add_(counters, counted)  # type: ignore[arg-type]  # they are there
