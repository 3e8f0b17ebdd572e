"""What the net sees and says, as pictures: a batch as it enters, and examples with predictions."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import nn

from src.data.batches import Batch, training_batches
from src.data.packed import PackedSplit
from src.images.augment import Augmentation
from src.images.grids import Grid, grids_side_by_side, picture_grid
from src.images.mix import Mix
from src.model.inference import logits_of

if TYPE_CHECKING:
    from src.training.setup import Setup

SHOWN = 40
CPU = torch.device("cpu")


def batch_picture(
    train: PackedSplit,
    val: PackedSplit,
    setup: "Setup",
    augmentation: Augmentation,
    batch_size: int,
    mix: Mix | None = None,
    sampling: str = "random",
) -> bytes:
    """PNG of the first batch of training and, beside it, that of validation: taken where the net
    takes them, normalisation undone."""
    classes = train.meta["classes"]
    entering = training_input(train, setup, augmentation, batch_size, mix, sampling)
    halves = [
        _restored("training", entering, setup, classes),
        _restored("validation", validation_input(val, setup), setup, classes),
    ]
    return grids_side_by_side(halves, columns=5)


def training_input(
    data: PackedSplit,
    setup: "Setup",
    augmentation: Augmentation,
    batch_size: int,
    mix: Mix | None = None,
    sampling: str = "random",
) -> Batch:
    """What the net gets in the first step (float32 B x C x H x W), and its targets."""
    batches = training_batches(data, setup.seed, 0, batch_size, CPU, sampling=sampling)
    pictures, targets = next(iter(batches))
    pictures = augmentation(pictures, setup.seed, 0)
    if mix is not None:
        pictures, targets = mix(pictures, targets, setup.seed, 0)
    return setup.enter(pictures), targets


def validation_input(data: PackedSplit, setup: "Setup") -> Batch:
    """What the net gets first when it is validated (float32 B x C x H x W), and the labels."""
    net = _Recorder()
    _, labels = next(logits_of(net, data, CPU, setup.mean, setup.std))
    return net.entered, labels


class _Recorder(nn.Module):
    """Stands where the net stands, and keeps what enters."""

    entered: torch.Tensor

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        self.entered = pictures
        return pictures.new_zeros(len(pictures), 1)


def _restored(name: str, batch: Batch, setup: "Setup", classes: Sequence[str]) -> Grid:
    """The first pictures of a batch as they were before normalisation, with captions and title."""
    entering, targets = batch[0][:SHOWN], batch[1][:SHOWN]
    shape = (1, -1, 1, 1)
    restored = entering * torch.tensor(setup.std).view(shape) + torch.tensor(setup.mean).view(shape)
    tiles = (restored * 255).round().clamp(0, 255).byte().permute(0, 2, 3, 1).numpy()
    low, high = entering.min().item(), entering.max().item()
    title = (
        f"{name}: the first batch as it enters the net\n"
        f"{' x '.join(map(str, entering.shape[1:]))}, mean {entering.mean():.2f}, "
        f"std {entering.std():.2f}, {low:.2f} to {high:.2f}"
    )
    return list(tiles), [_caption(target, classes) for target in targets], title


def _caption(target: torch.Tensor, classes: Sequence[str]) -> str:
    """The class of a label (0-d), or the two largest shares (K) of a mixed picture."""
    if target.ndim == 0:
        return classes[int(target)]
    shares, labels = target.topk(2)
    pairs = zip(shares.tolist(), labels.tolist(), strict=True)
    return "\n".join(f"{share:.2f} {classes[label]}" for share, label in pairs if share > 0)


def examples_picture(data: PackedSplit, setup: "Setup", title: str) -> bytes:
    """PNG of pictures spread over a split, each with its label and what the net makes of it now."""
    shown = min(SHOWN, len(data))
    indices = (torch.arange(shown) * len(data) // shown).numpy()
    pictures = data.pictures(indices)
    net = setup.kept_model.eval()
    with torch.no_grad():
        logits = net(setup.enter(torch.from_numpy(pictures).to(setup.device)))
    sigmoid = setup.criterion.name == "bce"
    shares = logits.sigmoid() if sigmoid else logits.softmax(dim=1)
    # As in `evaluate`: sigmoids divided by their sum.
    shares, found = (shares / shares.sum(dim=1, keepdim=True)).max(dim=1)
    classes = data.meta["classes"]
    captions = [
        f"{classes[label]}\n{'' if label == guess else '→ ' + classes[guess] + ' '}{share:.2f}"
        for label, guess, share in zip(
            data.labels[indices].tolist(), found.tolist(), shares.tolist(), strict=True
        )
    ]
    return picture_grid(list(pictures), captions, columns=8, title=title)
