"""What the net sees and says, for people: a batch as it enters, and examples with predictions."""

from collections.abc import Sequence

import torch
from torch import nn

from src.base.kinds import kind_part
from src.data.batches import Batch, training_batches
from src.data.packed import PackedSplit
from src.model.inference import logits_of
from src.training.learner import Learner
from src.training.loop import Training
from src.training.step import prepare_batch

SHOWN = 40
CPU = torch.device("cpu")


def batch_grid(training: Training) -> bytes:
    """PNG of the first batches of training and validation as the net gets them, denormalised."""
    learner, classes = training.learner, training.train.meta["classes"]
    halves = [
        _restored("training", training_input(training), learner, classes),
        _restored("validation", validation_input(training.val, learner), learner, classes),
    ]
    return kind_part(learner.kind, "grids").grids_side_by_side(halves, columns=5)


def training_input(training: Training) -> Batch:
    """What the net gets in the first step (of images float32 B x C x H x W), and its targets."""
    learner, plan = training.learner, training.plan
    batches = training_batches(
        training.train, learner.seed, 0, plan.step_size, CPU, sampling=plan.sampling
    )
    batch = next(iter(batches))
    rows, targets = prepare_batch(batch, learner, training.augment, training.mix, 0)
    return learner.enter(rows), targets


def validation_input(data: PackedSplit, learner: Learner) -> Batch:
    """What the net gets first when it is validated, and the labels."""
    net = _Recorder()
    _, labels = next(logits_of(net, data, CPU, learner.mean, learner.std))
    return net.entered, labels


class _Recorder(nn.Module):
    """Stands where the net stands, and keeps what enters."""

    entered: torch.Tensor

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        self.entered = inputs
        return inputs.new_zeros(len(inputs), 1)


def _restored(name: str, batch: Batch, learner: Learner, classes: Sequence[str]) -> tuple:
    """The first samples of a batch as they were before normalisation, with captions and title."""
    entering, targets = batch[0][:SHOWN], batch[1][:SHOWN]
    rows = kind_part(learner.kind, "input").leave(entering, learner.mean, learner.std).numpy()
    low, high = entering.min().item(), entering.max().item()
    title = (
        f"{name}: the first batch as it enters the net\n"
        f"{' x '.join(map(str, entering.shape[1:]))}, mean {entering.mean():.2f}, "
        f"std {entering.std():.2f}, {low:.2f} to {high:.2f}"
    )
    return list(rows), [_caption(target, classes) for target in targets], title


def _caption(target: torch.Tensor, classes: Sequence[str]) -> str:
    """The class of a label (0-d), or the two largest shares (K) of a mixed sample."""
    if target.ndim == 0:
        return classes[int(target)]
    shares, labels = target.topk(2)
    pairs = zip(shares.tolist(), labels.tolist(), strict=True)
    return "\n".join(f"{share:.2f} {classes[label]}" for share, label in pairs if share > 0)


def examples_grid(data: PackedSplit, learner: Learner, title: str) -> bytes:
    """PNG of samples spread over a split, each with its label and what the net makes of it now."""
    shown = min(SHOWN, len(data))
    indices = (torch.arange(shown) * len(data) // shown).numpy()
    rows = data.rows(indices)
    net = learner.kept_model.eval()
    with torch.no_grad():
        logits = net(learner.enter(torch.from_numpy(rows).to(learner.device)))
    sigmoid = learner.criterion.name == "bce"
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
    grids = kind_part(learner.kind, "grids")
    return grids.grids_side_by_side([(list(rows), captions, title)], columns=8)
