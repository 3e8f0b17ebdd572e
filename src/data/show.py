"""What the net sees and says, as pictures: a batch as it enters, and examples with predictions."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from src.data.augment import Augmentation
from src.data.batches import to_input, training_batches
from src.data.mix import Mix
from src.data.packed import PackedSplit
from src.data.pictures import picture_grid

if TYPE_CHECKING:
    from src.training.setup import Setup

SHOWN = 40


def batch_picture(
    data: PackedSplit,
    setup: "Setup",
    augmentation: Augmentation,
    batch_size: int,
    mix: Mix | None = None,
) -> bytes:
    """PNG of the first training batch: taken where the net takes it, normalisation undone."""
    cpu = torch.device("cpu")
    pictures, targets = next(iter(training_batches(data, setup.seed, 0, batch_size, cpu)))
    pictures = augmentation(pictures, setup.seed, 0)
    if mix is not None:
        pictures, targets = mix(pictures, targets, setup.seed, 0)
    entering = to_input(pictures, setup.mean, setup.std)[:SHOWN]
    shape = (1, -1, 1, 1)
    restored = entering * torch.tensor(setup.std).view(shape) + torch.tensor(setup.mean).view(shape)
    tiles = (restored * 255).round().clamp(0, 255).byte().permute(0, 2, 3, 1).numpy()
    captions = [_caption(target, data.meta["classes"]) for target in targets[:SHOWN]]
    low, high = entering.min().item(), entering.max().item()
    title = (
        f"the first batch as it enters the net: {entering.shape[1]} x {entering.shape[2]} x "
        f"{entering.shape[3]}, mean {entering.mean():.2f}, std {entering.std():.2f}, "
        f"{low:.2f} to {high:.2f}"
    )
    return picture_grid(list(tiles), captions, columns=8, title=title)


def _caption(target: torch.Tensor, classes: Sequence[str]) -> str:
    """The class of a label (0-d), or the two largest shares (K) of a mixed picture."""
    if target.ndim == 0:
        return classes[int(target)]
    shares, labels = target.topk(2)
    pairs = zip(shares.tolist(), labels.tolist(), strict=True)
    return "\n".join(f"{share:.2f} {classes[label]}" for share, label in pairs if share > 0)


def examples_picture(data: PackedSplit, setup: "Setup", title: str) -> bytes:
    """PNG of the first pictures of a split, spread over it, each with its label and what the net
    makes of it now."""
    indices = torch.arange(len(data))[:: max(1, len(data) // SHOWN)][:SHOWN].numpy()
    pictures = data.pictures(indices)
    net = setup.kept_model.eval()
    with torch.no_grad():
        logits = net(setup.enter(torch.from_numpy(pictures).to(setup.device)))
    sigmoid = setup.criterion.name == "bce"
    shares, found = (logits.sigmoid() if sigmoid else logits.softmax(dim=1)).max(dim=1)
    classes = data.meta["classes"]
    captions = [
        f"{classes[label]}\n{'' if label == guess else '→ ' + classes[guess] + ' '}{share:.2f}"
        for label, guess, share in zip(
            data.labels[indices].tolist(), found.tolist(), shares.tolist(), strict=True
        )
    ]
    return picture_grid(list(pictures), captions, columns=8, title=title)
