"""A batch exactly as it enters the net, as a picture with labels."""

from typing import TYPE_CHECKING

import torch

from src.data.augment import Augmentation
from src.data.batches import to_input, training_batches
from src.data.packed import PackedSplit
from src.data.pictures import picture_grid

if TYPE_CHECKING:
    from src.training.setup import Setup

SHOWN = 40


def batch_picture(
    data: PackedSplit, setup: "Setup", augmentation: Augmentation, batch_size: int
) -> bytes:
    """PNG of the first training batch: taken where the net takes it, normalisation undone."""
    cpu = torch.device("cpu")
    pictures, labels = next(iter(training_batches(data, setup.seed, 0, batch_size, cpu)))
    entering = to_input(augmentation(pictures, setup.seed, 0), setup.mean, setup.std)[:SHOWN]
    shape = (1, -1, 1, 1)
    restored = entering * torch.tensor(setup.std).view(shape) + torch.tensor(setup.mean).view(shape)
    tiles = (restored * 255).round().clamp(0, 255).byte().permute(0, 2, 3, 1).numpy()
    captions = [data.meta["classes"][label] for label in labels[:SHOWN].tolist()]
    low, high = entering.min().item(), entering.max().item()
    title = (
        f"the first batch as it enters the net: {entering.shape[1]} x {entering.shape[2]} x "
        f"{entering.shape[3]}, mean {entering.mean():.2f}, std {entering.std():.2f}, "
        f"{low:.2f} to {high:.2f}"
    )
    return picture_grid(list(tiles), captions, columns=8, title=title)
