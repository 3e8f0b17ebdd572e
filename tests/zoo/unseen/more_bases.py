"""Healthy set-ups that the faults break, part 2: per-class BCE, mixup with EMA."""

import copy

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from tests.zoo.unseen import parts
from tests.zoo.unseen import pictures as pics
from tests.zoo.unseen.contract import TrainingSetup
from tests.zoo.unseen.pictures import Pictures
from tests.zoo.unseen.registry import healthy


class PatchMixer(nn.Module):
    """ConvNeXt-like: patches, depthwise convolutions and channel MLPs with LayerNorm."""

    def __init__(self, channels, classes, width=32, depth=2, patch=3):
        super().__init__()
        self.patches = nn.Conv2d(channels, width, patch, patch)
        self.spatial = nn.ModuleList(
            nn.Conv2d(width, width, 3, padding=1, groups=width) for _ in range(depth)
        )
        self.mlps = nn.ModuleList(
            nn.Sequential(
                nn.LayerNorm(width), nn.Linear(width, 64), nn.GELU(), nn.Linear(64, width)
            )
            for _ in range(depth)
        )
        self.head = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, classes))

    def forward(self, x):
        x = self.patches(x)
        for spatial, mlp in zip(self.spatial, self.mlps, strict=True):
            x = x + mlp(spatial(x).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return self.head(x.mean((2, 3)))


class BCEPerClass(nn.Module):
    """One yes-no question per class, summed over classes, mean over the batch."""

    def forward(self, logits, target):
        wanted = F.one_hot(target, logits.shape[1]).to(logits.dtype)
        return F.binary_cross_entropy_with_logits(logits, wanted, reduction="sum") / len(target)


@healthy
def tiles_bce():
    """ConvNeXt-like net with LayerNorm, 12 colour classes; BCE per class, AdamW, OneCycle."""
    torch.manual_seed(15)
    train, val = pics.tiles(900, seed=7), pics.tiles(260, seed=8)
    mean, std = pics.statistics(train[0])
    train_data = Pictures(*train, mean, std, augment=pics.flipped)
    val_data = Pictures(*val, mean, std)
    model = PatchMixer(3, 12)
    model.head[1].bias.data.fill_(-float(np.log(11)))  # type: ignore[operator]  # 1 class in 12
    optimizer = torch.optim.AdamW(model.parameters(), 4e-3, weight_decay=0.02)
    return TrainingSetup(
        model=model,
        loss_fn=BCEPerClass(),
        optimizer=optimizer,
        scheduler=torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=450),
        train_data=train_data,
        val_data=val_data,
        train_loader=parts.loader(train_data, 30, shuffle=True),
        val_loader=parts.loader(val_data, 64, shuffle=False),
        train_step=make_capped_step(450),
        evaluate=parts.evaluate,
        save=parts.save,
        load=parts.load,
        declared=parts.declare(12, mean, std, 450),
    )


def make_capped_step(total):
    """A step for schedules that refuse to go on after `total` steps."""

    def train_step(setup, batch):
        setup.model.train()
        setup.optimizer.zero_grad(set_to_none=True)
        loss = setup.loss_fn(setup.model(batch[0]), batch[1])
        loss.backward()
        setup.optimizer.step()
        if setup.scheduler.last_epoch < total:
            setup.scheduler.step()
        return {"loss": float(loss.detach()), "lr": setup.scheduler.get_last_lr()[0]}

    return train_step


class SoftCrossEntropy(nn.Module):
    """Cross-entropy with class indices (N,) or probabilities (N, K)."""

    def forward(self, logits, target):
        if target.ndim == 1:
            target = F.one_hot(target, logits.shape[1]).to(logits.dtype)
        return -(target * logits.log_softmax(1)).sum(1).mean()


class Average:
    """Moving average of weights; buffers such as running statistics are copied."""

    def __init__(self, model, decay=0.95):
        self.model, self.decay = copy.deepcopy(model).eval().requires_grad_(False), decay

    @torch.no_grad()
    def update(self, model):
        for mine, new in zip(self.model.parameters(), model.parameters(), strict=True):
            mine.lerp_(new, 1 - self.decay)
        for mine, new in zip(self.model.buffers(), model.buffers(), strict=True):
            mine.copy_(new)


def mixed(inputs, targets, classes, alpha):
    """Mixup (Zhang et al. 2018) within a batch: inputs and soft targets (N, K)."""
    share = float(np.random.beta(alpha, alpha))
    order = torch.randperm(len(inputs))
    hot = F.one_hot(targets, classes).float()
    return share * inputs + (1 - share) * inputs[order], share * hot + (1 - share) * hot[order]


def make_mixup_step(average, classes, alpha, mix):
    """Forward, backward and update with mixed examples, then the average."""

    def train_step(setup, batch):
        setup.model.train()
        inputs, targets = mix(*batch, classes, alpha)
        loss = setup.loss_fn(setup.model(inputs), targets)
        setup.optimizer.zero_grad()
        loss.backward()
        setup.optimizer.step()
        setup.scheduler.step()
        average.update(setup.model)
        return {"loss": loss.item()}

    return train_step


def average_parts(average):
    """Evaluate, save and load of a set-up whose averaged weights are the product."""

    def evaluate(setup, batches):
        return parts.evaluate(setup, batches, average.model)

    def save(setup):
        state = parts.from_bytes(parts.save(setup))
        return parts.to_bytes({**state, "average": average.model.state_dict()})

    def load(setup, data):
        parts.load(setup, data)
        average.model.load_state_dict(parts.from_bytes(data)["average"])

    return {"evaluate": evaluate, "save": save, "load": load}


@healthy
def many_mixup_ema(mix=mixed, keep=Average):
    """CNN, 40 grey classes; mixup 0.2, averaged weights in evaluation, AdamW with cosine."""
    torch.manual_seed(16)
    np.random.seed(16)
    train = pics.gratings(2400, 40, 20, 1, frequencies=5, noise=15, seed=9)
    val = pics.gratings(400, 40, 20, 1, frequencies=5, noise=15, seed=10)
    mean, std = pics.statistics(train[0])
    train_data, val_data = Pictures(*train, mean, std), Pictures(*val, mean, std)
    model = parts.SmallCNN(1, 40, (16, 32, 48))
    average = keep(model)
    optimizer = torch.optim.AdamW(model.parameters(), 6e-3, weight_decay=0.01)
    return TrainingSetup(
        model=model,
        loss_fn=SoftCrossEntropy(),
        optimizer=optimizer,
        scheduler=torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 700, eta_min=1e-5),
        train_data=train_data,
        val_data=val_data,
        train_loader=parts.loader(train_data, 64, shuffle=True, drop_last=True),
        val_loader=parts.loader(val_data, 100, shuffle=False),
        train_step=make_mixup_step(average, 40, 0.2, mix),
        declared=parts.declare(40, mean, std, 700, mixup=0.2),
        **average_parts(average),
    )
