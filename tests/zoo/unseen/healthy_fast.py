"""Healthy set-ups of people who care for speed, or who took over a schedule from a paper."""

import math

import torch
from torch import nn, optim
from torch.nn import functional as F
from torch.utils.data import DataLoader, Sampler, TensorDataset

from tests.zoo.unseen import parts
from tests.zoo.unseen import pictures as pics
from tests.zoo.unseen.contract import TrainingSetup
from tests.zoo.unseen.registry import healthy


class BatchAugmented:
    """All pictures as one normalised tensor; whole batches are padded, shifted and mirrored."""

    def __init__(self, images, labels, batch_size, augment):
        self.images, self.labels = images, labels
        self.batch_size, self.augment = batch_size, augment
        self.generator = torch.Generator().manual_seed(7)

    def __len__(self):
        return len(self.images) // self.batch_size

    def shift(self, x, by=2):
        size = x.shape[-1]
        padded = F.pad(x, (by,) * 4, "reflect")
        corner = torch.randint(0, 2 * by + 1, (2,), generator=self.generator).tolist()
        return padded[:, :, corner[0] : corner[0] + size, corner[1] : corner[1] + size]

    def __iter__(self):
        order = torch.arange(len(self.images))
        if self.augment:
            order = torch.randperm(len(self.images), generator=self.generator)
        for i in range(len(self)):
            chosen = order[i * self.batch_size : (i + 1) * self.batch_size]
            x = self.images[chosen]
            if self.augment:
                mirror = torch.rand(len(x), 1, 1, 1, generator=self.generator) < 0.5
                x = self.shift(torch.where(mirror, x.flip(-1), x))
            yield x.to(memory_format=torch.channels_last), self.labels[chosen]


@healthy
def everything_preloaded():
    """Pictures in memory, augmented by batch, channels_last; SGD with Nesterov, triangular lr."""
    torch.manual_seed(121)
    (x, y), (vx, vy) = pics.shapes(1024, 5, 24, seed=121), pics.shapes(256, 5, 24, seed=122)
    mean, std = pics.statistics(x)
    put = [torch.from_numpy(a).float().div(255).sub(torch.tensor(mean)) for a in (x, vx)]
    put = [a.div(torch.tensor(std)).permute(0, 3, 1, 2) for a in put]
    labels = [torch.from_numpy(a) for a in (y, vy)]
    net = parts.SmallCNN(3, 5, (16, 24, 32)).to(memory_format=torch.channels_last)
    decayed = [p for p in net.parameters() if p.ndim > 1]
    others = [p for p in net.parameters() if p.ndim <= 1]
    opt = optim.SGD(
        [{"params": decayed, "weight_decay": 1e-3}, {"params": others, "weight_decay": 0.0}],
        lr=0.1, momentum=0.85, nesterov=True,
    )  # fmt: skip
    total = 400
    peak = int(0.2 * total)

    def triangle(step):
        return (step + 1) / peak if step < peak else max(0.0, (total - step) / (total - peak))

    return TrainingSetup(
        model=net,
        loss_fn=nn.CrossEntropyLoss(label_smoothing=0.2),
        optimizer=opt,
        scheduler=optim.lr_scheduler.LambdaLR(opt, triangle),
        train_data=TensorDataset(put[0], labels[0]),
        val_data=TensorDataset(put[1], labels[1]),
        train_loader=BatchAugmented(put[0], labels[0], 64, augment=True),
        val_loader=BatchAugmented(put[1], labels[1], 128, augment=False),
        train_step=parts.make_step(),
        evaluate=parts.evaluate,
        save=parts.save,
        load=parts.load,
        declared=parts.declare(5, mean, std, total, label_smoothing=0.2),
    )


@healthy
def bfloat16_autocast():
    """Forward under bfloat16 autocast, loss in float32; AdamW with OneCycle and its momentum."""
    torch.manual_seed(131)
    (x, y), (vx, vy) = pics.tiles(600, 6, 18, seed=131), pics.tiles(180, 6, 18, seed=132)
    train = pics.Pictures(x, y, [0.5] * 3, [0.5] * 3, augment=pics.flipped)
    val = pics.Pictures(vx, vy, [0.5] * 3, [0.5] * 3)
    net = parts.SmallCNN(3, 6, (8, 16, 16))
    opt = optim.AdamW(net.parameters(), lr=1e-2)

    def forward(model, inputs):
        with torch.autocast("cpu", torch.bfloat16):
            logits = model(inputs)
        return logits.float()

    def step(setup, batch):
        setup.model.train()
        loss = setup.loss_fn(forward(setup.model, batch[0]), batch[1])
        setup.optimizer.zero_grad()
        loss.backward()
        setup.optimizer.step()
        if setup.scheduler.last_epoch < 300:
            setup.scheduler.step()
        return {"loss": loss.item()}

    @torch.no_grad()
    def evaluate(setup, batches):
        setup.model.eval()
        logits, targets = [], []
        for images, labels in batches:
            logits.append(forward(setup.model, images))
            targets.append(labels)
        scores, wanted = torch.cat(logits), torch.cat(targets)
        accuracy = (scores.argmax(1) == wanted).double().mean()
        return {"loss": setup.loss_fn(scores, wanted).item(), "accuracy": accuracy.item()}

    return TrainingSetup(
        model=net,
        loss_fn=nn.CrossEntropyLoss(),
        optimizer=opt,
        scheduler=optim.lr_scheduler.OneCycleLR(opt, 1e-2, total_steps=300),
        train_data=train,
        val_data=val,
        train_loader=parts.loader(train, 30, shuffle=True),
        val_loader=parts.loader(val, 60, shuffle=False),
        train_step=step,
        evaluate=evaluate,
        save=parts.save,
        load=parts.load,
        declared=parts.declare(6, [0.5] * 3, [0.5] * 3, 300, precision="bfloat16"),
    )


class CosineHead(nn.Module):
    """Scaled cosine between the features and a direction per class."""

    def __init__(self, width, classes):
        super().__init__()
        self.directions = nn.Parameter(torch.randn(classes, width))
        self.scale = nn.Parameter(torch.tensor(10.0))

    def forward(self, x):
        return self.scale * F.linear(F.normalize(x), F.normalize(self.directions))


@healthy
def sixty_classes_cosine_head():
    """60 grey grating classes, a cosine classifier; micro-batches of 20, gradients of 2 added."""
    torch.manual_seed(141)
    x, y = pics.gratings(2400, 60, 24, 1, frequencies=5, noise=10, seed=141)
    vx, vy = pics.gratings(600, 60, 24, 1, frequencies=5, noise=10, seed=142)
    mean, std = pics.statistics(x)
    train, val = pics.Pictures(x, y, mean, std), pics.Pictures(vx, vy, mean, std)
    net = parts.SmallCNN(1, 60, (16, 32, 48))
    net.head = CosineHead(48, 60)  # type: ignore[assignment]
    opt = optim.Adam(net.parameters(), lr=5e-3, betas=(0.9, 0.99))
    done = [0]

    def step(setup, batch):
        setup.model.train()
        if done[0] % 2 == 0:
            setup.optimizer.zero_grad()
        done[0] += 1
        loss = setup.loss_fn(setup.model(batch[0]), batch[1])
        loss.div(2).backward()
        if done[0] % 2 == 0:
            setup.optimizer.step()
            setup.scheduler.step()
        return {"loss": loss.item()}

    return TrainingSetup(
        model=net,
        loss_fn=nn.CrossEntropyLoss(),
        optimizer=opt,
        scheduler=optim.lr_scheduler.CosineAnnealingLR(opt, 600),
        train_data=train,
        val_data=val,
        train_loader=parts.loader(train, 20, shuffle=True),
        val_loader=parts.loader(val, 200, shuffle=False),
        train_step=step,
        evaluate=parts.evaluate,
        save=parts.save,
        load=parts.load,
        declared=parts.declare(60, mean, std, 600, accumulate=2),
    )


class EqualShares(Sampler):
    """Each class as often as any other in each batch of indices."""

    def __init__(self, labels, each, batches):
        self.groups = [torch.nonzero(labels == k).flatten() for k in labels.unique()]
        self.each, self.batches = each, batches
        self.generator = torch.Generator().manual_seed(3)

    def __len__(self):
        return self.batches

    def __iter__(self):
        for _ in range(self.batches):
            drawn = [
                group[torch.randint(len(group), (self.each,), generator=self.generator)]
                for group in self.groups
            ]
            yield torch.cat(drawn).tolist()


@healthy
def equal_classes_in_each_batch():
    """A batch sampler draws 8 of each of 4 unequal classes, in order; lr falls by half-cosine."""
    torch.manual_seed(151)
    shares = (0.5, 0.3, 0.14, 0.06)
    (x, y), (vx, vy) = pics.cells(800, shares, 16, seed=151), pics.cells(320, shares, 16, seed=152)
    mean, std = pics.statistics(x)
    train = pics.Pictures(x, y, mean, std, augment=pics.flipped)
    val = pics.Pictures(vx, vy, mean, std)
    net = parts.SmallCNN(1, 4, (12, 24))
    opt = optim.SGD(net.parameters(), lr=0.04, momentum=0.9)
    return TrainingSetup(
        model=net,
        loss_fn=nn.CrossEntropyLoss(),
        optimizer=opt,
        scheduler=optim.lr_scheduler.LambdaLR(opt, lambda i: math.cos(min(i, 400) / 400 * 1.5)),
        train_data=train,
        val_data=val,
        train_loader=DataLoader(
            train, batch_sampler=EqualShares(torch.from_numpy(y), each=8, batches=25)
        ),
        val_loader=DataLoader(val, batch_size=100),
        train_step=parts.make_step(),
        evaluate=parts.evaluate,
        save=parts.save,
        load=parts.load,
        declared=parts.declare(4, mean, std, 400),
    )
