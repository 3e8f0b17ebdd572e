"""A trained net on pictures: logits, and the loss and accuracy that follow from them."""

from collections.abc import Iterator, Sequence

import torch
from torch import nn

from src.data.batches import ordered_batches, to_input
from src.data.packed import PackedSplit


@torch.no_grad()
def logits_of(
    model: nn.Module,
    data: PackedSplit,
    device: torch.device,
    mean: Sequence[float],
    std: Sequence[float],
    workers: int = 0,
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """(logits B x K, labels B) for all of `data` in its order, on the device; the net is in
    evaluation mode."""
    model.eval()
    for pictures, labels in ordered_batches(data, device, workers):
        yield model(to_input(pictures, mean, std)), labels
