"""The parts that the healthy set-ups are put together from: data, losses, optimizers, schedules,
steps and evaluations, in the variants that people use."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from timm.loss import LabelSmoothingCrossEntropy, SoftTargetCrossEntropy
from timm.optim import create_optimizer_v2
from timm.utils import ModelEmaV3
from torch import Tensor, nn
from torch.optim import lr_scheduler
from torch.utils.data import DataLoader, TensorDataset, WeightedRandomSampler

from tests.zoo.known.bases import (
    Batches,
    Images,
    digits_evaluate,
    evaluate_whole,
    vit_evaluate,
    warmup_cosine,
)
from tests.zoo.known.complete_setup import TrainingSetup
from tests.zoo.known.images import Split, channel_statistics, codes, digits, shapes


def splits(kind: str, size: int, classes: int, count: int) -> tuple[Split, Split]:
    """The data set by name; `count` training images a class where they are drawn."""
    if kind == "digits":
        return digits(size, classes)
    if kind == "codes":
        return codes(size, classes, count, max(2, count // 4))
    if kind == "grey":
        parts = shapes(size, classes, count, max(3, count // 4))
        first, second = ((x.mean(1, keepdim=True), y) for x, y in parts)
        return first, second
    return shapes(
        size, classes, count, max(3, count // 4), step=48 // classes if classes > 8 else 1
    )


def thinned(split: Split, ratio: float) -> Split:
    """Fewer images of each further class: the last has 1/ratio of the first."""
    x, y = split
    classes = int(y.max()) + 1
    kept = []
    for k in range(classes):
        index = torch.nonzero(y == k).flatten()
        kept.append(index[: max(4, round(len(index) * ratio ** (-k / (classes - 1))))])
    order = torch.cat(kept)
    order = order[torch.randperm(len(order), generator=torch.Generator().manual_seed(0))]
    return x[order], y[order]


def data_and_loaders(
    style: str, train: Split, val: Split, mean: list, std: list, batch: int, shift: int
) -> tuple[Any, Any, Any, Any]:
    """Data sets and loaders in one of four styles of code."""
    order = torch.Generator().manual_seed(13)
    first: Any
    second: Any
    if style == "list":
        m, s = torch.tensor(mean)[:, None, None], torch.tensor(std)[:, None, None]
        first, second = (
            [((p - m) / s, int(k)) for p, k in zip(*part, strict=True)] for part in (train, val)
        )
        return first, second, Batches(first, batch, shuffle=True), Batches(second, 40)
    if style == "tensors":
        m, s = torch.tensor(mean).view(1, -1, 1, 1), torch.tensor(std).view(1, -1, 1, 1)
        first, second = (TensorDataset((x - m) / s, y) for x, y in (train, val))
        loader = DataLoader(first, batch, shuffle=True, drop_last=True, generator=order)
        return first, second, loader, DataLoader(second, 2 * batch)
    first, second = Images(*train, mean, std, shift), Images(*val, mean, std)
    if style == "balanced":
        counts = torch.bincount(train[1]).double()
        sampler = WeightedRandomSampler(
            (1 / counts)[train[1]].tolist(), len(first), generator=order
        )
        return first, second, DataLoader(first, batch, sampler=sampler), DataLoader(second, batch)
    workers = 2 if style == "workers" else 0
    loader = DataLoader(first, batch, shuffle=True, generator=order, num_workers=workers)
    return first, second, loader, DataLoader(second, batch)


def focal(logits: Tensor, y: Tensor) -> Tensor:
    each = F.cross_entropy(logits, y, reduction="none")
    return ((1 - (-each).exp()).square() * each).mean()


def with_z_loss(logits: Tensor, y: Tensor) -> Tensor:
    return F.cross_entropy(logits, y) + 1e-4 * logits.logsumexp(1).square().mean()


def one_vs_all(logits: Tensor, y: Tensor) -> Tensor:
    target = F.one_hot(y, logits.shape[1]).to(logits.dtype)
    return F.binary_cross_entropy_with_logits(logits, target)


def one_vs_all_summed(logits: Tensor, y: Tensor) -> Tensor:
    """Summed over classes, averaged over the batch, as in "ResNet strikes back"."""
    target = F.one_hot(y, logits.shape[1]).float()
    return F.binary_cross_entropy_with_logits(logits, target, reduction="none").sum(1).mean()


def loss_by_name(name: str, counts: Tensor) -> tuple[Callable[[Tensor, Tensor], Tensor], float]:
    """The loss and its label smoothing."""
    weight = counts.sum() / (len(counts) * counts.float())
    losses: dict[str, tuple[Callable[[Tensor, Tensor], Tensor], float]] = {
        "ce": (nn.CrossEntropyLoss(), 0.0),
        "functional": (F.cross_entropy, 0.0),
        "smooth": (nn.CrossEntropyLoss(label_smoothing=0.1), 0.1),
        "timm_smooth": (LabelSmoothingCrossEntropy(0.1), 0.1),
        "soft": (SoftTargetCrossEntropy(), 0.0),
        "weighted": (nn.CrossEntropyLoss(weight=weight), 0.0),
        "focal": (focal, 0.0),
        "z_loss": (with_z_loss, 0.0),
        "bce": (one_vs_all, 0.0),
        "bce_sum": (one_vs_all_summed, 0.0),
        "margin": (nn.MultiMarginLoss(), 0.0),
    }
    return losses[name]


def optimizer_by_name(name: str, net: nn.Module, lr: float) -> torch.optim.Optimizer:
    if name == "sgd":
        return torch.optim.SGD(net.parameters(), lr=lr, momentum=0.9, weight_decay=5e-4)
    if name == "plain_sgd":
        return torch.optim.SGD(net.parameters(), lr=lr)
    if name == "adam":
        return torch.optim.Adam(net.parameters(), lr=lr)
    if name == "adamw":
        return torch.optim.AdamW(net.parameters(), lr=lr, weight_decay=0.05)
    return create_optimizer_v2(net, opt=name, lr=lr, weight_decay=0.02)  # timm: two groups


def schedule_by_name(name: str, optimizer: torch.optim.Optimizer, steps: int) -> Any:
    """None, a schedule for each step, or (`epoch_...`, `plateau`) one that the loop over epochs
    moves, outside of the step."""
    if name == "cosine":
        return lr_scheduler.CosineAnnealingLR(optimizer, steps)
    if name == "warmup":
        return lr_scheduler.LambdaLR(optimizer, warmup_cosine(steps, max(5, steps // 10)))
    if name == "onecycle":
        peak = [group["lr"] for group in optimizer.param_groups]
        return lr_scheduler.OneCycleLR(optimizer, peak, total_steps=steps + 1)
    if name == "linear":
        return lr_scheduler.LinearLR(optimizer, 1.0, 0.01, total_iters=steps)
    if name == "polynomial":
        return lr_scheduler.PolynomialLR(optimizer, steps, power=0.9)
    if name == "steps":
        return lr_scheduler.MultiStepLR(optimizer, [steps // 2, 3 * steps // 4], 0.1)
    if name == "epoch_steps":
        return lr_scheduler.MultiStepLR(optimizer, [12, 16], 0.1)
    if name == "plateau":
        return lr_scheduler.ReduceLROnPlateau(optimizer, patience=3)
    return None


class Step:
    """A step with what people add: clipping, mixup, CutMix, averaged weights, accumulation."""

    def __init__(self, net: nn.Module, classes: int, extra: str, per_step: bool, accumulate: int):
        self.classes, self.extra = classes, extra
        self.per_step, self.accumulate, self.calls = per_step, accumulate, 0
        self.average = ModelEmaV3(net, decay=0.9) if extra == "ema" else None

    def __call__(self, setup: TrainingSetup, batch: tuple[Tensor, Tensor]) -> dict:
        setup.model.train()
        x, y = batch
        if self.extra in ("mixup", "cutmix"):
            x, y = self._mixed(x, y)
        if self.extra == "channels_last":
            x = x.to(memory_format=torch.channels_last)
        loss = setup.loss_fn(setup.model(x), y)
        (loss / self.accumulate).backward()
        self.calls += 1
        if self.calls % self.accumulate == 0:
            if self.extra == "clip":
                nn.utils.clip_grad_norm_(setup.model.parameters(), 1.0)
            if self.extra == "clip_value":
                nn.utils.clip_grad_value_(setup.model.parameters(), 0.5)
            setup.optimizer.step()
            setup.optimizer.zero_grad()
            if self.per_step and setup.scheduler is not None:
                setup.scheduler.step()
            if self.average is not None:
                self.average.update(setup.model)
        return {"loss": loss.detach()}

    def _mixed(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        target = F.one_hot(y, self.classes).float()
        share, other = float(torch.rand(())), torch.randperm(len(x))
        if self.extra == "cutmix":
            rows = round(share * x.shape[2])
            x, share = torch.cat([x[:, :, :rows], x[other][:, :, rows:]], 2), rows / x.shape[2]
        else:
            x = share * x + (1 - share) * x[other]
        return x, share * target + (1 - share) * target[other]


def step_by_optimizer(setup: TrainingSetup, batch: tuple[Tensor, Tensor]) -> dict:
    """The optimizer calls the forward and backward pass itself."""
    setup.model.train()

    def forward_and_backward() -> Tensor:
        setup.optimizer.zero_grad()
        loss = setup.loss_fn(setup.model(batch[0]), batch[1])
        loss.backward()
        return loss

    return {"loss": setup.optimizer.step(forward_and_backward).detach()}


@torch.no_grad()
def evaluate_with_criterion(setup: TrainingSetup, loader: Any) -> dict[str, float]:
    """Reports the loss that is trained, weighted by batch size."""
    setup.model.eval()
    loss = hits = n = 0
    for x, y in loader:
        z = setup.model(x)
        loss += setup.loss_fn(z, y) * len(y)
        hits += (z.argmax(1) == y).sum()
        n += len(y)
    return {"loss": float(loss) / n, "accuracy": float(hits) / n}


EVALUATIONS = {
    "counts": digits_evaluate,
    "lists": vit_evaluate,
    "whole": evaluate_whole,
    "criterion": evaluate_with_criterion,
}


def statistics(kind: str, x: Tensor) -> tuple[list[float], list[float]]:
    """Of the data, of ImageNet, 0.5 or none."""
    fixed = {
        "imagenet": ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
        "half": ([0.5] * x.shape[1], [0.5] * x.shape[1]),
        "unit": ([0.0] * x.shape[1], [1.0] * x.shape[1]),
    }
    return fixed.get(kind) or channel_statistics(x)
