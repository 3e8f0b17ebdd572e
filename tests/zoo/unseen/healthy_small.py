"""Healthy set-ups of people who keep everything in plain functions."""

import io

import timm
import torch
import torch.nn.functional as F
from torch import nn, optim
from torch.utils.data import DataLoader, TensorDataset

from tests.zoo.unseen import parts
from tests.zoo.unseen import pictures as pics
from tests.zoo.unseen.contract import TrainingSetup
from tests.zoo.unseen.registry import healthy


@healthy
def vit_from_timm():
    """timm's VisionTransformer on grey textures; head starts at zero, AdamW, constant lr."""
    torch.manual_seed(0)
    (x, y), (vx, vy) = pics.textures(800, seed=21), pics.textures(200, seed=22)
    net = timm.models.VisionTransformer(
        img_size=16, patch_size=4, in_chans=1, num_classes=4, embed_dim=48, depth=2, num_heads=3
    )
    for parameter in net.head.parameters():
        nn.init.zeros_(parameter)
    mean, std = pics.statistics(x)
    train, val = pics.Pictures(x, y, mean, std), pics.Pictures(vx, vy, mean, std)
    opt = optim.AdamW(net.parameters(), lr=1e-3)

    def step(s, batch):
        s.model.train()
        x, y = batch
        out = s.model(x)
        loss = s.loss_fn(out, y)
        s.optimizer.zero_grad()
        loss.backward()
        s.optimizer.step()
        return {"loss": loss.item(), "acc": (out.argmax(1) == y).float().mean().item()}

    return TrainingSetup(
        net,
        nn.CrossEntropyLoss(),
        opt,
        None,
        train,
        val,
        DataLoader(train, 32, shuffle=True, generator=torch.Generator().manual_seed(3)),
        DataLoader(val, 200),
        step,
        parts.evaluate,
        parts.save,
        parts.load,
        parts.declare(4, mean, std, 500),
    )


class WeightedTrainer:
    """Clears gradients at the end of a step and clips them at 1."""

    def __init__(self, clip=1.0):
        self.clip = clip
        self.history = []

    def step(self, setup, batch):
        setup.model.train()
        images, labels = batch
        loss = setup.loss_fn(setup.model(images), labels)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(setup.model.parameters(), self.clip)
        setup.optimizer.step()
        setup.optimizer.zero_grad(set_to_none=True)
        self.history.append(loss.detach().item())
        return {"loss": self.history[-1], "grad_norm": norm.item()}

    def validate(self, setup, loader):
        was_training = setup.model.training
        setup.model.eval()
        n, hits, total = 0, 0, 0.0
        with torch.inference_mode():
            for images, labels in loader:
                scores = setup.model(images)
                total += F.cross_entropy(scores, labels, reduction="sum").item()
                hits += int((scores.max(1).indices == labels).sum())
                n += labels.numel()
        setup.model.train(was_training)
        return {"loss": total / n, "accuracy": hits / n}


@healthy
def weighted_loss_unbalanced():
    """Unequal classes, cross-entropy weighted by 1/sqrt(count), clipping at 1, Adam."""
    torch.manual_seed(31)
    (x, y), (vx, vy) = pics.cells(900, seed=31), pics.cells(300, seed=32)
    mean, std = [0.3], [0.2]
    train, val = pics.Pictures(x, y, mean, std), pics.Pictures(vx, vy, mean, std)
    net = parts.SmallCNN(1, 4, (8, 16, 32))
    weight = torch.bincount(torch.tensor(y)).float().rsqrt()
    opt = optim.Adam(net.parameters(), lr=3e-3)
    trainer = WeightedTrainer()
    return TrainingSetup(
        model=net,
        loss_fn=nn.CrossEntropyLoss(weight=weight / weight.mean()),
        optimizer=opt,
        scheduler=None,
        train_data=train,
        val_data=val,
        train_loader=parts.loader(train, 25, shuffle=True, seed=4),
        val_loader=parts.loader(val, 300, shuffle=False),
        train_step=trainer.step,
        evaluate=trainer.validate,
        save=parts.save,
        load=parts.load,
        declared=parts.declare(4, mean, std, 400),
    )


@healthy
def two_classes_plain_sgd():
    """Two textures, a CNN without any normalisation, SGD without momentum, batches cut once."""
    torch.manual_seed(41)
    (x, y), (vx, vy) = pics.textures(480, 2, seed=41), pics.textures(160, 2, seed=42)
    scale = [torch.from_numpy(a).permute(0, 3, 1, 2).float() / 127.5 - 1 for a in (x, vx)]
    train = TensorDataset(scale[0], torch.from_numpy(y))
    val = TensorDataset(scale[1], torch.from_numpy(vy))
    net = nn.Sequential(
        nn.Conv2d(1, 8, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 12, 3), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 2),
    )  # fmt: skip
    batches = [train[i : i + 24] for i in range(0, 480, 24)]

    def step(setup, batch):
        setup.model.train()
        setup.model.zero_grad()
        loss = setup.loss_fn(setup.model(batch[0]), batch[1])
        loss.backward()
        setup.optimizer.step()
        return {"loss": loss.detach().item()}

    return TrainingSetup(
        model=net,
        loss_fn=F.cross_entropy,
        optimizer=optim.SGD(net.parameters(), lr=0.1),
        scheduler=None,
        train_data=train,
        val_data=val,
        train_loader=batches,
        val_loader=[val[:80], val[80:]],
        train_step=step,
        evaluate=parts.evaluate,
        save=parts.save,
        load=parts.load,
        declared=parts.declare(2, [0.5], [0.5], 600),
    )


@healthy
def heavy_dropout_rmsprop():
    """MLP on digits with BatchNorm and dropout 0.5 twice; RMSprop, lr falls after each epoch."""
    torch.manual_seed(51)
    x, y = pics.digits(seed=5)
    mean, std = pics.statistics(x)
    train = pics.Pictures(x[:1300], y[:1300], mean, std)
    val = pics.Pictures(x[1300:], y[1300:], mean, std)
    net = nn.Sequential(
        nn.Flatten(), nn.Linear(256, 200), nn.BatchNorm1d(200), nn.ReLU(), nn.Dropout(0.5),
        nn.Linear(200, 100), nn.ReLU(), nn.Dropout(0.5), nn.Linear(100, 10),
    )  # fmt: skip
    opt = optim.RMSprop(net.parameters(), lr=1e-3, momentum=0.5)
    batches = DataLoader(
        train, 64, shuffle=True, drop_last=True, generator=torch.Generator().manual_seed(0)
    )
    seen = {"batches": 0}

    def step(setup, batch):
        setup.model.train()
        setup.optimizer.zero_grad()
        loss = setup.loss_fn(setup.model(batch[0]), batch[1])
        loss.backward()
        setup.optimizer.step()
        seen["batches"] += 1
        if seen["batches"] % len(setup.train_loader) == 0:  # end of the epoch
            setup.scheduler.step()
        return {"loss": loss.item()}

    def save(setup):
        buffer = io.BytesIO()
        kept = (setup.model, setup.optimizer, setup.scheduler)
        torch.save([*(k.state_dict() for k in kept), dict(seen)], buffer)
        return buffer.getvalue()

    def load(setup, data):
        *states, counters = torch.load(io.BytesIO(data), weights_only=True)
        for part, state in zip(
            (setup.model, setup.optimizer, setup.scheduler), states, strict=True
        ):
            part.load_state_dict(state)
        seen.update(counters)

    return TrainingSetup(
        model=net,
        loss_fn=nn.CrossEntropyLoss(),
        optimizer=opt,
        scheduler=optim.lr_scheduler.ExponentialLR(opt, 0.9),
        train_data=train,
        val_data=val,
        train_loader=batches,
        val_loader=DataLoader(val, 128),
        train_step=step,
        evaluate=parts.evaluate,
        save=save,
        load=load,
        declared=parts.declare(10, mean, std, 400),
    )
