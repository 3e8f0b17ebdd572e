"""Healthy set-ups whose steps and schedules are unusual."""

import hashlib
import math

import torch
from torch import nn, optim
from torch.nn import functional as F

from tests.zoo.unseen import parts
from tests.zoo.unseen import pictures as pics
from tests.zoo.unseen.bases import DepthwiseNet, in_memory
from tests.zoo.unseen.contract import TrainingSetup
from tests.zoo.unseen.registry import healthy


@healthy
def warmup_from_zero():
    """The lr of the first step is exactly 0; linear warm-up, cosine, GroupNorm CNN on shapes."""
    torch.manual_seed(61)
    (x, y), (vx, vy) = pics.shapes(900, 4, 20, seed=61), pics.shapes(200, 4, 20, seed=62)
    mean, std = pics.statistics(x)
    train = pics.Pictures(x, y, mean, std, augment=pics.flipped)
    val = pics.Pictures(vx, vy, mean, std)
    net = nn.Sequential(
        nn.Conv2d(3, 16, 3, 1, 1), nn.GroupNorm(4, 16), nn.GELU(), nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, 1, 1), nn.GroupNorm(4, 32), nn.GELU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(32 * 25, 4),
    )  # fmt: skip
    opt = optim.SGD(net.parameters(), lr=0.03, momentum=0.9, weight_decay=1e-4)
    total, warm = 450, 45

    def factor(step):
        if step < warm:
            return step / warm
        return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warm) / (total - warm))))

    return TrainingSetup(
        model=net,
        loss_fn=nn.CrossEntropyLoss(),
        optimizer=opt,
        scheduler=optim.lr_scheduler.LambdaLR(opt, factor),
        train_data=train,
        val_data=val,
        train_loader=parts.loader(train, 32, shuffle=True),
        val_loader=parts.loader(val, 32, shuffle=False),
        train_step=parts.make_step(),
        evaluate=parts.evaluate,
        save=parts.save,
        load=parts.load,
        declared=parts.declare(4, mean, std, total),
    )


@healthy
def sharpness_aware():
    """Two backward passes per step: the gradient is taken at a point uphill (SAM)."""
    torch.manual_seed(161)
    (x, y), (vx, vy) = pics.textures(600, 4, seed=161), pics.textures(200, 4, seed=162)
    mean, std = pics.statistics(x)
    train, val = pics.Pictures(x, y, mean, std), pics.Pictures(vx, vy, mean, std)
    net = DepthwiseNet(1, 4)
    opt = optim.SGD(net.parameters(), lr=0.03, momentum=0.9)

    def step(setup, batch, radius=0.05):
        inputs, targets = batch
        net, opt = setup.model.train(), setup.optimizer
        opt.zero_grad()
        loss = setup.loss_fn(net(inputs), targets)
        loss.backward()
        weights = [p for p in net.parameters() if p.grad is not None]
        norm = torch.stack([p.grad.norm() for p in weights]).norm() + 1e-12
        with torch.no_grad():
            uphill = [radius * p.grad / norm for p in weights]
            for p, move in zip(weights, uphill, strict=True):
                p.add_(move)
        opt.zero_grad()
        setup.loss_fn(net(inputs), targets).backward()
        with torch.no_grad():
            for p, move in zip(weights, uphill, strict=True):
                p.sub_(move)
        opt.step()
        return {"loss": loss.item()}

    return TrainingSetup(
        model=net,
        loss_fn=nn.CrossEntropyLoss(),
        optimizer=opt,
        scheduler=None,
        train_data=train,
        val_data=val,
        train_loader=parts.loader(train, 30, shuffle=True),
        val_loader=parts.loader(val, 100, shuffle=False),
        train_step=step,
        evaluate=parts.evaluate,
        save=parts.save,
        load=parts.load,
        declared=parts.declare(4, mean, std, 400),
    )


class Residual(nn.Module):
    """Two convolutions around a shortcut; the last BatchNorm starts at zero."""

    def __init__(self, width):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(width, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = nn.Conv2d(width, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width)
        nn.init.zeros_(self.bn2.weight)

    def forward(self, x):
        return F.relu(x + self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))))


@healthy
def residual_zero_gamma():
    """ResNet, last gamma of each block zero; shuffled once, MultiStepLR, `train()` called once."""
    torch.manual_seed(171)
    x, y = pics.gratings(720, 12, 20, 3, seed=171)
    vx, vy = pics.gratings(240, 12, 20, 3, seed=172)
    mean, std = pics.statistics(x)
    train, val = pics.Pictures(x, y, mean, std), pics.Pictures(vx, vy, mean, std)
    net = nn.Sequential(
        nn.Conv2d(3, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU(), Residual(16),
        nn.Conv2d(16, 24, 3, 2, 1, bias=False), nn.BatchNorm2d(24), nn.ReLU(), Residual(24),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(24, 12),
    ).train()  # fmt: skip
    opt = optim.SGD(net.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-4)

    def step(setup, batch):
        loss = setup.loss_fn(setup.model(batch[0]), batch[1])
        setup.optimizer.zero_grad()
        loss.backward()
        setup.optimizer.step()
        setup.scheduler.step()
        return {"loss": loss.item()}

    def evaluate(setup, batches):
        setup.model.eval()
        result = parts.evaluate(setup, batches)
        setup.model.train()
        return result

    return TrainingSetup(
        model=net,
        loss_fn=nn.CrossEntropyLoss(),
        optimizer=opt,
        scheduler=optim.lr_scheduler.MultiStepLR(opt, [250, 400], 0.1),
        train_data=train,
        val_data=val,
        train_loader=parts.loader(train, 36, shuffle=False),  # the pictures are in random order
        val_loader=parts.loader(val, 120, shuffle=False),
        train_step=step,
        evaluate=evaluate,
        save=parts.save,
        load=parts.load,
        declared=parts.declare(12, mean, std, 500),
    )


@healthy
def sealed_checkpoint():
    """Tiny micro-batches of 5, eight to a step, GroupNorm; checkpoints carry a checksum."""
    torch.manual_seed(181)
    (x, y), (vx, vy) = pics.tiles(500, 6, 18, seed=181), pics.tiles(150, 6, 18, seed=182)
    mean, std = [0.4, 0.35, 0.3], [0.25, 0.25, 0.25]
    train, val = pics.Pictures(x, y, mean, std), pics.Pictures(vx, vy, mean, std)
    net = nn.Sequential(
        nn.Conv2d(3, 16, 3), nn.GroupNorm(2, 16), nn.ReLU(), nn.Conv2d(16, 16, 3, 2),
        nn.GroupNorm(2, 16), nn.ReLU(), nn.AdaptiveMaxPool2d(2), nn.Flatten(), nn.Linear(64, 6),
    )  # fmt: skip
    opt = optim.AdamW(net.parameters(), lr=5e-3)

    def save(setup):
        body = parts.save(setup)
        return hashlib.sha256(body).digest() + body

    def load(setup, data):
        if hashlib.sha256(data[32:]).digest() != data[:32]:
            raise ValueError("the checkpoint is damaged")
        parts.load(setup, data[32:])

    return TrainingSetup(
        model=net,
        loss_fn=nn.CrossEntropyLoss(),
        optimizer=opt,
        scheduler=optim.lr_scheduler.CosineAnnealingLR(opt, 150),
        train_data=train,
        val_data=val,
        train_loader=parts.loader(train, 5, shuffle=True),
        val_loader=[in_memory(val)],
        train_step=parts.make_step(accumulate=8),
        evaluate=parts.evaluate,
        save=save,
        load=load,
        declared=parts.declare(6, mean, std, 150, accumulate=8),
    )
