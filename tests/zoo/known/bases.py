"""Healthy set-ups that the faults are planted in, written as different people would write them.

Here: a BatchNorm net on grey digits and a LayerNorm transformer on 30 classes of coloured shapes.
Every one is a function of nothing: two calls give the same set-up.
"""

import io
import math
from collections.abc import Callable, Iterator

import numpy as np
import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader, Dataset

from tests.zoo.known.pictures import channel_statistics, digits, shapes
from tests.zoo.known.whole import TrainingSetup


def save_all(setup: TrainingSetup) -> bytes:
    """Model, optimizer and schedule as bytes."""
    buffer = io.BytesIO()
    state = {"model": setup.model.state_dict(), "optimizer": setup.optimizer.state_dict()}
    if setup.scheduler is not None:
        state["scheduler"] = setup.scheduler.state_dict()
    torch.save(state, buffer)
    return buffer.getvalue()


def load_all(setup: TrainingSetup, data: bytes) -> None:
    """The counterpart of `save_all`."""
    state = torch.load(io.BytesIO(data), weights_only=True)
    setup.model.load_state_dict(state["model"])
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


class Pictures(Dataset):
    """Normalised pictures; those for training are shifted by up to `shift` pixels."""

    def __init__(self, x: Tensor, y: Tensor, mean: list, std: list, shift: int = 0):
        self.x, self.y, self.shift = x, y, shift
        self.mean = torch.tensor(mean)[:, None, None]
        self.std = torch.tensor(std)[:, None, None]

    def __len__(self) -> int:
        return len(self.y)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        picture = self.x[index]
        if self.shift:
            dy, dx = torch.randint(-self.shift, self.shift + 1, (2,)).tolist()
            padded = F.pad(picture, (self.shift,) * 4)
            top, left = self.shift + dy, self.shift + dx
            picture = padded[:, top : top + picture.shape[1], left : left + picture.shape[2]]
        return (picture - self.mean) / self.std, int(self.y[index])


def digits_step(setup: TrainingSetup, batch: tuple) -> dict:
    setup.model.train()
    pictures, labels = batch
    setup.optimizer.zero_grad()
    loss = setup.loss_fn(setup.model(pictures), labels)
    loss.backward()
    setup.optimizer.step()
    setup.scheduler.step()
    return {"loss": loss.item()}


@torch.no_grad()
def digits_evaluate(setup: TrainingSetup, loader: DataLoader) -> dict[str, float]:
    setup.model.eval()
    total, correct, count = 0.0, 0, 0
    for pictures, labels in loader:
        logits = setup.model(pictures)
        total += F.cross_entropy(logits, labels, reduction="sum").item()
        correct += (logits.argmax(1) == labels).sum().item()
        count += len(labels)
    return {"loss": total / count, "accuracy": correct / count}


def digits_resnet() -> TrainingSetup:
    """test_resnet on grey digits of 16 px, 10 classes."""
    torch.manual_seed(0)
    (x, y), (x_val, y_val) = digits(16)
    mean, std = channel_statistics(x)
    train_data = Pictures(x, y, mean, std, shift=1)
    val_data = Pictures(x_val, y_val, mean, std)
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
        declared={
            "num_classes": 10,
            "mean": mean,
            "std": std,
            "total_steps": total,
            "accumulate": 1,
            "label_smoothing": 0.0,
            "mixup": 0.0,
            "precision": "fp32",
            "frozen": [],
        },
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
    return TrainingSetup(
        net,
        nn.CrossEntropyLoss(label_smoothing=0.1),
        torch.optim.AdamW(net.parameters(), lr=1e-3, weight_decay=0.05),
        None,
        train,
        val,
        Batches(train, 32, shuffle=True, drop_last=True),
        Batches(val, 32),
        vit_step,
        vit_evaluate,
        save_all,
        load_all,
        {
            "num_classes": 30,
            "mean": [0.5, 0.5, 0.5],
            "std": [0.5, 0.5, 0.5],
            "total_steps": 300,
            "accumulate": 1,
            "label_smoothing": 0.1,
            "mixup": 0.0,
            "precision": "fp32",
            "frozen": [],
        },
    )
