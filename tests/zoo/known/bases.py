"""Healthy set-ups that the faults are planted in, written as different people would write them.

Every one is a function of nothing: two calls give the same set-up.
"""

import io
import math
from collections.abc import Callable, Iterator
from copy import deepcopy
from functools import lru_cache
from itertools import pairwise
from typing import Any

import numpy as np
import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.lr_scheduler import CosineAnnealingLR, LambdaLR, LinearLR, SequentialLR
from torch.utils.data import DataLoader, Dataset, TensorDataset

from tests.zoo.known.complete_setup import TrainingSetup
from tests.zoo.known.images import channel_statistics, digits, shapes

IMAGENET_MEAN, IMAGENET_STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


def declare(classes: int, mean: list, std: list, steps: int, **more: Any) -> dict[str, Any]:
    """All that can be declared; without `more`: nothing is accumulated, smoothed, mixed, frozen."""
    return {
        "num_classes": classes,
        "mean": mean,
        "std": std,
        "total_steps": steps,
        "accumulate": 1,
        "label_smoothing": 0.0,
        "mixup": 0.0,
        "precision": "fp32",
        "frozen": [],
        **more,
    }


def packed(state: dict[str, Any]) -> bytes:
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


def unpacked(data: bytes) -> dict[str, Any]:
    return torch.load(io.BytesIO(data), weights_only=True)


def save_all(setup: TrainingSetup) -> bytes:
    """Model, optimizer and schedule as bytes."""
    state = {"model": setup.model.state_dict(), "optimizer": setup.optimizer.state_dict()}
    if setup.scheduler is not None:
        state["scheduler"] = setup.scheduler.state_dict()
    return packed(state)


def load_all(setup: TrainingSetup, data: bytes, strict: bool = True) -> None:
    """The counterpart of `save_all`; `strict`: whether the names in the model must fit."""
    state = unpacked(data)
    setup.model.load_state_dict(state["model"], strict=strict)
    setup.optimizer.load_state_dict(state["optimizer"])
    if setup.scheduler is not None:
        setup.scheduler.load_state_dict(state["scheduler"])


def warmup_cosine(total: int, warmup: int = 20) -> Callable[[int], float]:
    """The factor of the learning rate at each step: from 0 up, then half a cosine down."""

    def factor(step: int) -> float:
        if step < warmup:
            return step / warmup
        return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warmup) / (total - warmup))))

    return factor


# --- grey digits, BatchNorm, AdamW with warm-up and cosine, Dataset class and DataLoader


class Images(Dataset):
    """Normalised images; those for training are shifted by up to `shift` pixels."""

    def __init__(self, x: Tensor, y: Tensor, mean: list, std: list, shift: int = 0):
        self.x, self.y, self.shift = x, y, shift
        self.mean = torch.tensor(mean)[:, None, None]
        self.std = torch.tensor(std)[:, None, None]

    def __len__(self) -> int:
        return len(self.y)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image = self.x[index]
        if self.shift:
            dy, dx = torch.randint(-self.shift, self.shift + 1, (2,)).tolist()
            padded = F.pad(image, (self.shift,) * 4)
            top, left = self.shift + dy, self.shift + dx
            image = padded[:, top : top + image.shape[1], left : left + image.shape[2]]
        return (image - self.mean) / self.std, int(self.y[index])


def digits_step(setup: TrainingSetup, batch: tuple) -> dict:
    setup.model.train()
    images, labels = batch
    setup.optimizer.zero_grad()
    loss = setup.loss_fn(setup.model(images), labels)
    loss.backward()
    setup.optimizer.step()
    setup.scheduler.step()
    return {"loss": loss.item()}


@torch.no_grad()
def digits_evaluate(setup: TrainingSetup, loader: DataLoader) -> dict[str, float]:
    setup.model.eval()
    total, correct, count = 0.0, 0, 0
    for images, labels in loader:
        logits = setup.model(images)
        total += F.cross_entropy(logits, labels, reduction="sum").item()
        correct += (logits.argmax(1) == labels).sum().item()
        count += len(labels)
    return {"loss": total / count, "accuracy": correct / count}


def digits_resnet() -> TrainingSetup:
    """test_resnet on grey digits of 16 px, 10 classes."""
    torch.manual_seed(0)
    (x, y), (x_val, y_val) = digits(16)
    mean, std = channel_statistics(x)
    train_data = Images(x, y, mean, std, shift=1)
    val_data = Images(x_val, y_val, mean, std)
    order = torch.Generator().manual_seed(1)
    train_loader = DataLoader(train_data, batch_size=32, shuffle=True, generator=order)
    model = timm.create_model("test_resnet", num_classes=10, in_chans=1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.01)
    total = 10 * len(train_loader)
    return TrainingSetup(
        model=model,
        loss_fn=nn.CrossEntropyLoss(),
        optimizer=optimizer,
        scheduler=LambdaLR(optimizer, warmup_cosine(total)),
        train_data=train_data,
        val_data=val_data,
        train_loader=train_loader,
        val_loader=DataLoader(val_data, batch_size=60),
        train_step=digits_step,
        evaluate=digits_evaluate,
        save=save_all,
        load=load_all,
        declared=declare(10, mean, std, total),
    )


# --- 30 classes of coloured shapes, transformer, list of pairs, a loader by hand, no schedule


class Batches:
    """A loader of list data: stacked batches, another order in each epoch."""

    def __init__(self, data: list, size: int, shuffle: bool = False, drop_last: bool = False):
        self.data, self.size, self.shuffle, self.drop_last = data, size, shuffle, drop_last
        self.epoch = 0

    def __len__(self) -> int:
        return len(self.data) // self.size if self.drop_last else -(-len(self.data) // self.size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        order = np.arange(len(self.data))
        if self.shuffle:
            np.random.default_rng([7, self.epoch]).shuffle(order)
            self.epoch += 1
        for start in range(0, len(self) * self.size, self.size):
            items = [self.data[i] for i in order[start : start + self.size]]
            yield torch.stack([x for x, _ in items]), torch.tensor([y for _, y in items])


def vit_step(setup: TrainingSetup, batch: tuple) -> dict:
    setup.model.train()
    x, y = batch
    loss = setup.loss_fn(setup.model(x), y)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(setup.model.parameters(), 1.0)
    setup.optimizer.step()
    setup.optimizer.zero_grad()
    return {"loss": loss.detach()}


def vit_evaluate(setup: TrainingSetup, loader: Batches) -> dict[str, float]:
    setup.model.eval()
    losses, hits = [], []
    with torch.inference_mode():
        for x, y in loader:
            out = setup.model(x)
            losses.extend(F.cross_entropy(out, y, reduction="none").tolist())
            hits.extend((out.argmax(dim=-1) == y).tolist())
    return {"loss": float(np.mean(losses)), "accuracy": float(np.mean(hits))}


def shapes_vit() -> TrainingSetup:
    """test_vit on coloured shapes of 32 px in patches of 8, 30 classes, smoothed labels."""
    torch.manual_seed(3)
    (x, y), (x_val, y_val) = shapes(32, 30, 16, 5)
    train = [((p - 0.5) / 0.5, int(k)) for p, k in zip(x, y, strict=True)]
    val = [((p - 0.5) / 0.5, int(k)) for p, k in zip(x_val, y_val, strict=True)]
    net = timm.create_model("test_vit", num_classes=30, img_size=32, patch_size=8)
    loss, half = nn.CrossEntropyLoss(label_smoothing=0.1), [0.5, 0.5, 0.5]
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3, weight_decay=0.05)
    loaders = Batches(train, 32, shuffle=True, drop_last=True), Batches(val, 32)
    parts = vit_step, vit_evaluate, save_all, load_all
    declared = declare(30, half, half, 300, label_smoothing=0.1)
    return TrainingSetup(net, loss, optimizer, None, train, val, *loaders, *parts, declared)


# --- two classes, four to one: an own net, SGD with momentum, four micro-batches to a step


class SmallNet(nn.Module):
    """Three convolutions with BatchNorm, a hidden layer and an output layer."""

    def __init__(self, classes: int, channels: int = 3, width: int = 24):
        super().__init__()
        sizes = [channels, width, 2 * width, 2 * width]
        self.features = nn.Sequential(
            *(
                nn.Sequential(
                    nn.Conv2d(a, b, 3, padding=1, bias=False),
                    nn.BatchNorm2d(b),
                    nn.ReLU(),
                    nn.MaxPool2d(2),
                )
                for a, b in pairwise(sizes)
            )
        )
        self.hidden = nn.Linear(2 * width, 64)
        self.head = nn.Linear(64, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(self.hidden(self.features(x).mean((2, 3)))))


class AccumulatingStep:
    """Adds up the gradients of `every` micro-batches, then steps."""

    def __init__(self, every: int):
        self.every, self.calls = every, 0

    def __call__(self, setup: TrainingSetup, batch: list[Tensor]) -> dict:
        inputs, targets = batch
        setup.model.train()
        loss = setup.loss_fn(setup.model(inputs), targets)
        (loss / self.every).backward()
        self.calls += 1
        if self.calls % self.every == 0:
            setup.optimizer.step()
            setup.scheduler.step()
            setup.optimizer.zero_grad(set_to_none=True)
        return {"loss": loss.detach()}


def evaluate_whole(setup: TrainingSetup, loader: DataLoader) -> dict[str, float]:
    """Collects all outputs, then computes loss and accuracy once."""
    was_training = setup.model.training
    setup.model.eval()
    with torch.no_grad():
        pairs = [(setup.model(x), y) for x, y in loader]
    logits, labels = torch.cat([a for a, _ in pairs]), torch.cat([b for _, b in pairs])
    setup.model.train(was_training)
    accuracy = (logits.argmax(1) == labels).double().mean().item()
    return {"loss": F.cross_entropy(logits, labels).item(), "accuracy": accuracy}


def two_classes() -> TrainingSetup:
    """Red discs against red squares at 24 px, four to one; SGD, 4 micro-batches of 8 to a step."""
    torch.manual_seed(11)
    (x, y), (x_val, y_val) = shapes(24, 2, 240, 60)
    mean, std = channel_statistics(x)

    def data(x: Tensor, y: Tensor) -> TensorDataset:
        rare = torch.nonzero(y == 1).flatten()
        index = torch.cat([torch.nonzero(y == 0).flatten(), rare[: len(rare) // 4]]).sort().values
        m, s = torch.tensor(mean).view(1, 3, 1, 1), torch.tensor(std).view(1, 3, 1, 1)
        return TensorDataset((x[index] - m) / s, y[index])

    train, val = data(x, y), data(x_val, y_val)
    train_loader = DataLoader(
        train, 8, shuffle=True, drop_last=True, generator=torch.Generator().manual_seed(5)
    )
    net = SmallNet(2)
    opt = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9, nesterov=True, weight_decay=5e-4)
    steps = 20 * len(train_loader) // 4
    schedule = SequentialLR(
        opt, [LinearLR(opt, 0.1, total_iters=10), CosineAnnealingLR(opt, steps - 10)], [10]
    )
    data_parts = train, val, train_loader, DataLoader(val, 32)
    parts = AccumulatingStep(4), evaluate_whole, save_all, load_all
    declared = declare(2, mean, std, steps, accumulate=4)
    return TrainingSetup(net, F.cross_entropy, opt, schedule, *data_parts, *parts, declared)


# --- mixup, smoothed labels, averaged weights for evaluation


class MixupEmaStep:
    """Mixes each batch with itself in another order; keeps a moving average of the weights."""

    def __init__(self, net: nn.Module, classes: int, alpha: float, decay: float):
        self.average = deepcopy(net).requires_grad_(False)
        self.classes, self.decay, self.steps = classes, decay, 0
        self.beta = torch.distributions.Beta(alpha, alpha)

    def mixed(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        share = self.beta.sample().item()
        other = torch.randperm(len(x))
        target = F.one_hot(y, self.classes).float()
        return share * x + (1 - share) * x[other], share * target + (1 - share) * target[other]

    def __call__(self, setup: TrainingSetup, batch: tuple[Tensor, Tensor]) -> dict:
        setup.model.train()
        x, target = self.mixed(*batch)
        setup.optimizer.zero_grad()
        loss = setup.loss_fn(setup.model(x), target)
        loss.backward()
        setup.optimizer.step()
        setup.scheduler.step()
        self._update(setup.model)
        return {"loss": loss.item()}

    @torch.no_grad()
    def _update(self, net: nn.Module) -> None:
        self.steps += 1
        decay = min(self.decay, self.steps / (self.steps + 10))  # follows quickly at first
        for mean, now in zip(
            self.average.state_dict().values(), net.state_dict().values(), strict=True
        ):
            if mean.is_floating_point():
                mean.lerp_(now, 1 - decay)
            else:
                mean.copy_(now)

    def evaluate(self, setup: TrainingSetup, loader: DataLoader) -> dict[str, float]:
        self.average.eval()
        loss = right = n = 0.0
        with torch.no_grad():
            for x, y in loader:
                logits = self.average(x)
                loss += F.cross_entropy(logits, y).item() * len(y)
                right += float((logits.argmax(-1) == y).sum())
                n += len(y)
        return {"loss": loss / n, "accuracy": right / n}

    def save(self, setup: TrainingSetup) -> bytes:
        average = self.average.state_dict()
        return packed({"rest": save_all(setup), "average": average, "steps": self.steps})

    def load(self, setup: TrainingSetup, data: bytes) -> None:
        state = unpacked(data)
        load_all(setup, state["rest"])
        self.average.load_state_dict(state["average"])
        self.steps = state["steps"]


def mixup_ema() -> TrainingSetup:
    """test_byobnet on 12 classes of shapes at 32 px: mixup, smoothing, averaged weights."""
    torch.manual_seed(21)
    (x, y), (x_val, y_val) = shapes(32, 12, 30, 8, step=3)
    mean, std = channel_statistics(x)
    train, val = Images(x, y, mean, std, shift=2), Images(x_val, y_val, mean, std)
    loader = DataLoader(
        train, batch_size=24, shuffle=True, generator=torch.Generator().manual_seed(9)
    )
    net = timm.create_model("test_byobnet", num_classes=12)
    opt = torch.optim.AdamW(net.parameters(), lr=2e-3, weight_decay=0.02)
    steps = 15 * len(loader)
    schedule = torch.optim.lr_scheduler.OneCycleLR(opt, max_lr=2e-3, total_steps=steps + 1)
    step = MixupEmaStep(net, 12, alpha=0.2, decay=0.98)
    loss, data = nn.CrossEntropyLoss(label_smoothing=0.1), (train, val, loader, DataLoader(val, 50))
    parts = step, step.evaluate, step.save, step.load
    declared = declare(12, mean, std, steps, label_smoothing=0.1, mixup=0.2)
    return TrainingSetup(net, loss, opt, schedule, *data, *parts, declared)


# --- pretrained on other shapes, ImageNet's statistics, stem frozen


@lru_cache(maxsize=1)
def pretrained_weights() -> dict[str, Tensor]:
    """Weights of a test_resnet after 120 steps on sixteen other classes of shapes."""
    torch.manual_seed(31)
    (x, y), _ = shapes(32, 16, 24, 1, first=16)
    data = Images(x, y, IMAGENET_MEAN, IMAGENET_STD)
    net = timm.create_model("test_resnet", num_classes=16).train()
    optimizer = torch.optim.AdamW(net.parameters(), lr=2e-3)
    loader = DataLoader(data, 32, shuffle=True, generator=torch.Generator().manual_seed(2))
    for _ in range(10):
        for images, labels in loader:
            optimizer.zero_grad()
            F.cross_entropy(net(images), labels).backward()
            optimizer.step()
    return {k: v for k, v in net.state_dict().items() if not k.startswith("fc.")}


def frozen_step(setup: TrainingSetup, batch: tuple[Tensor, Tensor]) -> dict:
    setup.model.train()
    setup.model.conv1.eval()
    setup.model.bn1.eval()  # the frozen stem keeps its statistics
    images, labels = batch
    loss = setup.loss_fn(setup.model(images), labels)
    setup.optimizer.zero_grad()
    loss.backward()
    setup.optimizer.step()
    return {"loss": loss.detach().item()}


def pretrained() -> TrainingSetup:
    """Fine-tuning of a pretrained test_resnet on 8 classes of shapes at 32 px, its stem frozen."""
    torch.manual_seed(41)
    (x, y), (x_val, y_val) = shapes(32, 8, 32, 12)
    train = Images(x, y, IMAGENET_MEAN, IMAGENET_STD, shift=2)
    val = Images(x_val, y_val, IMAGENET_MEAN, IMAGENET_STD)
    net = timm.create_model("test_resnet", num_classes=8)
    net.load_state_dict(pretrained_weights(), strict=False)
    frozen = [name for name, _ in net.named_parameters() if name.startswith(("conv1.", "bn1."))]
    for name, parameter in net.named_parameters():
        parameter.requires_grad = name not in frozen
    head = [net.get_parameter("fc.weight"), net.get_parameter("fc.bias")]
    body = [p for n, p in net.named_parameters() if p.requires_grad and not n.startswith("fc.")]
    opt = torch.optim.Adam([{"params": body, "lr": 5e-4}, {"params": head, "lr": 5e-3}])
    order = torch.Generator().manual_seed(17)
    data = train, val, DataLoader(train, 16, shuffle=True, generator=order), DataLoader(val, 16)
    parts = frozen_step, evaluate_whole, save_all, load_all
    declared = declare(8, IMAGENET_MEAN, IMAGENET_STD, 200, frozen=frozen)
    return TrainingSetup(net, nn.CrossEntropyLoss(), opt, None, *data, *parts, declared)
