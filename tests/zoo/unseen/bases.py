"""Healthy set-ups that the faults break, part 1: CNN, transformer, MLP, depthwise net."""

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import WeightedRandomSampler

from tests.zoo.unseen import pictures as pics
from tests.zoo.unseen.contract import TrainingSetup
from tests.zoo.unseen.parts import (
    PatchTransformer,
    SmallCNN,
    declare,
    evaluate,
    load,
    loader,
    make_step,
    save,
)
from tests.zoo.unseen.pictures import Pictures
from tests.zoo.unseen.registry import healthy


@healthy
def gratings_cnn():
    """BatchNorm CNN, colour, 8 orientations; SGD with momentum, cosine to zero per step."""
    torch.manual_seed(11)
    train, val = pics.gratings(960, seed=1), pics.gratings(256, seed=2)
    mean, std = pics.statistics(train[0])
    train_data = Pictures(*train, mean, std, augment=pics.moved)
    val_data = Pictures(*val, mean, std)
    model = SmallCNN(3, 8)
    optimizer = torch.optim.SGD(model.parameters(), 0.05, 0.9, weight_decay=5e-4, nesterov=True)
    return TrainingSetup(
        model=model,
        loss_fn=nn.CrossEntropyLoss(),
        optimizer=optimizer,
        scheduler=torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 600),
        train_data=train_data,
        val_data=val_data,
        train_loader=loader(train_data, 32, shuffle=True, drop_last=True),
        val_loader=loader(val_data, 64, shuffle=False),
        train_step=make_step(),
        evaluate=evaluate,
        save=save,
        load=load,
        declared=declare(8, mean, std, 600),
    )


@healthy
def shapes_transformer():
    """Patch transformer, 5 shapes; AdamW, warm-up and cosine, 4 micro-batches, smoothing 0.1."""
    torch.manual_seed(12)
    train, val = pics.shapes(1000, seed=3), pics.shapes(250, seed=4)
    mean, std = [0.5] * 3, [0.25] * 3
    train_data = Pictures(*train, mean, std, augment=pics.flipped)
    val_data = Pictures(*val, mean, std)
    model = PatchTransformer(3, 5, 32)
    optimizer = torch.optim.AdamW(model.parameters(), 2e-3, weight_decay=0.05)
    warm, total = 20, 400
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, total - warm)
    ramp = torch.optim.lr_scheduler.LinearLR(optimizer, 0.05, total_iters=warm)
    return TrainingSetup(
        model=model,
        loss_fn=nn.CrossEntropyLoss(label_smoothing=0.1),
        optimizer=optimizer,
        scheduler=torch.optim.lr_scheduler.SequentialLR(optimizer, [ramp, cosine], [warm]),
        train_data=train_data,
        val_data=val_data,
        train_loader=loader(train_data, 16, shuffle=True, drop_last=True),
        val_loader=loader(val_data, 50, shuffle=False),
        train_step=make_step(accumulate=4, clip=1.0),
        evaluate=evaluate,
        save=save,
        load=load,
        declared=declare(5, mean, std, total, accumulate=4, label_smoothing=0.1),
    )


class TensorBatches:
    """Batches of tensors that lie in memory; shuffled with torch's global generator."""

    def __init__(self, inputs, targets, batch_size, shuffle):
        self.inputs, self.targets = inputs, targets
        self.batch_size, self.shuffle = batch_size, shuffle

    def __len__(self):
        return -(-len(self.targets) // self.batch_size)

    def __iter__(self):
        count = len(self.targets)
        order = torch.randperm(count) if self.shuffle else torch.arange(count)
        for chosen in order.split(self.batch_size):
            yield self.inputs[chosen], self.targets[chosen]


class MLP(nn.Module):
    """Two hidden layers with dropout, no normalisation; gives log-probabilities."""

    def __init__(self, inputs=256, classes=10, width=128, dropout=0.2):
        super().__init__()
        self.fc1 = nn.Linear(inputs, width)
        self.fc2 = nn.Linear(width, width)
        self.fc3 = nn.Linear(width, classes)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x):
        x = self.dropout(F.relu(self.fc1(x.flatten(1))))
        x = self.dropout(F.relu(self.fc2(x)))
        return F.log_softmax(self.fc3(x), dim=1)


@healthy
def digits_mlp():
    """MLP with log_softmax and NLLLoss on grey digits; Adam, no schedule, tensors in memory."""
    torch.manual_seed(13)
    images, labels = pics.digits()
    mean, std = pics.statistics(images[:1400])
    train_data = Pictures(images[:1400], labels[:1400], mean, std)
    val_data = Pictures(images[1400:], labels[1400:], mean, std)
    model = MLP()
    return TrainingSetup(
        model=model,
        loss_fn=nn.NLLLoss(),
        optimizer=torch.optim.Adam(model.parameters(), 1e-3),
        scheduler=None,
        train_data=train_data,
        val_data=val_data,
        train_loader=TensorBatches(*in_memory(train_data), 50, shuffle=True),
        val_loader=TensorBatches(*in_memory(val_data), 100, shuffle=False),
        train_step=make_step(),
        evaluate=evaluate,
        save=save,
        load=load,
        declared=declare(10, mean, std, 560),
    )


def in_memory(data: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """All items of a data set as two tensors."""
    inputs, targets = zip(*(data[i] for i in range(len(data))), strict=True)
    return torch.stack(inputs), torch.tensor(targets)


class DepthwiseNet(nn.Module):
    """Depthwise separable blocks with BatchNorm, pooled by the maximum and the mean."""

    def __init__(self, channels, classes, width=16, depth=3):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(channels, width, 3, 2, 1), nn.BatchNorm2d(width))
        self.blocks = nn.ModuleList(self.block(width) for _ in range(depth))
        self.head = nn.Linear(2 * width, classes)

    @staticmethod
    def block(width):
        return nn.Sequential(
            nn.Conv2d(width, width, 3, 1, 1, groups=width, bias=False),
            nn.BatchNorm2d(width),
            nn.Conv2d(width, 2 * width, 1),
            nn.SiLU(),
            nn.Conv2d(2 * width, width, 1),
        )

    def forward(self, x):
        x = F.silu(self.stem(x))
        for block in self.blocks:
            x = x + block(x)
        return self.head(torch.cat([x.amax((2, 3)), x.mean((2, 3))], 1))


class FocalLoss(nn.Module):
    """Lin et al. 2017, mean over the batch."""

    def __init__(self, gamma=1.5):
        super().__init__()
        self.gamma = gamma

    def forward(self, logits, target):
        ce = F.cross_entropy(logits, target, reduction="none")
        return ((1 - torch.exp(-ce)) ** self.gamma * ce).mean()


@healthy
def cells_depthwise():
    """Depthwise net, grey, 4 classes of 62 to 5 per cent; focal loss, rare classes oversampled."""
    torch.manual_seed(14)
    train, val = pics.cells(1000, seed=5), pics.cells(400, seed=6)
    mean, std = pics.statistics(train[0])
    train_data = Pictures(*train, mean, std, augment=pics.flipped)
    val_data = Pictures(*val, mean, std)
    model = DepthwiseNet(1, 4)
    optimizer = torch.optim.SGD(model.parameters(), 0.05, 0.9)
    counts = torch.bincount(torch.from_numpy(train[1]))
    weights = (1.0 / counts)[torch.from_numpy(train[1])].tolist()
    sampler = WeightedRandomSampler(weights, 1000, generator=torch.Generator().manual_seed(1))
    return TrainingSetup(
        model=model,
        loss_fn=FocalLoss(),
        optimizer=optimizer,
        scheduler=torch.optim.lr_scheduler.StepLR(optimizer, 300, 0.1),
        train_data=train_data,
        val_data=val_data,
        train_loader=torch.utils.data.DataLoader(train_data, 40, sampler=sampler),
        val_loader=loader(val_data, 100, shuffle=False),
        train_step=make_step(),
        evaluate=evaluate,
        save=save,
        load=load,
        declared=declare(4, mean, std, 500),
    )
