"""Healthy set-ups that look odd at first sight."""

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader, Dataset, default_collate

from tests.zoo.unseen import parts
from tests.zoo.unseen import pictures as pics
from tests.zoo.unseen.bases import DepthwiseNet, in_memory
from tests.zoo.unseen.contract import TrainingSetup
from tests.zoo.unseen.more_bases import PatchMixer, SoftCrossEntropy
from tests.zoo.unseen.registry import healthy


class GaborNet(nn.Module):
    """Fixed oriented filters, then trained layers."""

    def __init__(self, classes, angles=8):
        super().__init__()
        self.stem = nn.Conv2d(3, 2 * angles, 7, stride=2, padding=3, bias=False)
        y, x = np.mgrid[-3:4, -3:4]
        filters = []
        for a in np.arange(angles) * np.pi / angles:
            along, hull = x * np.cos(a) + y * np.sin(a), np.exp(-(x**2 + y**2) / 8)
            filters += [np.cos(1.6 * along) * hull, np.sin(1.6 * along) * hull]
        kernel = torch.tensor(np.stack(filters), dtype=torch.float32)
        kernel -= kernel.mean((1, 2), keepdim=True)
        self.stem.weight.data = kernel[:, None].repeat(1, 3, 1, 1) / kernel.norm() / 2
        self.body = nn.Sequential(
            nn.BatchNorm2d(2 * angles), nn.Conv2d(2 * angles, 32, 1), nn.ReLU()
        )
        self.head = nn.Linear(32, classes)

    def forward(self, x):
        return self.head(self.body(self.stem(x).abs()).mean((-1, -2)))


@healthy
def frozen_stem_declared():
    """A stem of fixed oriented filters, declared frozen, in an optimizer that holds everything."""
    torch.manual_seed(71)
    (x, y), (vx, vy) = pics.gratings(800, 10, seed=71), pics.gratings(200, 10, seed=72)
    mean, std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    train = pics.Pictures(x, y, mean, std, augment=pics.moved)
    val = pics.Pictures(vx, vy, mean, std)
    net = GaborNet(10)
    net.stem.weight.requires_grad_(False)
    opt = torch.optim.AdamW(net.parameters(), 5e-3)
    return TrainingSetup(
        model=net,
        loss_fn=nn.CrossEntropyLoss(label_smoothing=0.05),
        optimizer=opt,
        scheduler=torch.optim.lr_scheduler.PolynomialLR(opt, 400, power=0.9),
        train_data=train,
        val_data=val,
        train_loader=parts.loader(train, 40, shuffle=True),
        val_loader=parts.loader(val, 50, shuffle=False),
        train_step=parts.make_step(),
        evaluate=parts.evaluate,
        save=parts.save,
        load=parts.load,
        declared=parts.declare(10, mean, std, 400, label_smoothing=0.05, frozen=["stem.weight"]),
    )


def cutmix(items):
    """A collate function: half of the batches get a box of another picture, with its share."""
    inputs, targets = default_collate(items)
    hot = F.one_hot(targets, 12).float()
    if torch.rand(()) < 0.5:
        return inputs, hot
    size = inputs.shape[-1]
    edge = int(torch.randint(4, size // 2, ()))
    top, left = torch.randint(0, size - edge, (2,)).tolist()
    order, share = torch.randperm(len(inputs)), (edge / size) ** 2
    inputs = inputs.clone()
    inputs[:, :, top : top + edge, left : left + edge] = inputs[
        order, :, top : top + edge, left : left + edge
    ]
    return inputs, (1 - share) * hot + share * hot[order]


@healthy
def soft_targets_from_loader():
    """CutMix in the collate function: training batches carry probabilities (N, K)."""
    torch.manual_seed(81)
    (x, y), (vx, vy) = pics.tiles(900, seed=81), pics.tiles(240, seed=82)
    mean, std = pics.statistics(x)
    train, val = pics.Pictures(x, y, mean, std), pics.Pictures(vx, vy, mean, std)
    net = parts.SmallCNN(3, 12)
    opt = torch.optim.SGD(net.parameters(), 0.1, momentum=0.9, weight_decay=5e-4)
    return TrainingSetup(
        model=net,
        loss_fn=SoftCrossEntropy(),
        optimizer=opt,
        scheduler=torch.optim.lr_scheduler.CosineAnnealingLR(opt, 450),
        train_data=train,
        val_data=val,
        train_loader=parts.loader(train, 30, shuffle=True, collate_fn=cutmix),
        val_loader=parts.loader(val, 60, shuffle=False),
        train_step=parts.make_step(),
        evaluate=parts.evaluate,
        save=parts.save,
        load=parts.load,
        declared=parts.declare(12, mean, std, 450, mixup=0.5),
    )


class Normalised(nn.Module):
    """A net that normalises its inputs of 0..1 itself."""

    def __init__(self, net, mean, std):
        super().__init__()
        self.net = net
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1))

    def forward(self, x):
        return self.net((x - self.mean) / self.std)


@healthy
def normalisation_in_the_model():
    """Batches of 0..1 enter the net, which normalises them; log_softmax + NLLLoss, Adagrad."""
    torch.manual_seed(91)
    (x, y), (vx, vy) = pics.tiles(700, 12, 18, seed=91), pics.tiles(180, 12, 18, seed=92)
    mean, std = pics.statistics(x)
    zeros, ones = [0.0] * 3, [1.0] * 3
    train, val = pics.Pictures(x, y, zeros, ones), pics.Pictures(vx, vy, zeros, ones)
    net = nn.Sequential(Normalised(PatchMixer(3, 12), mean, std), nn.LogSoftmax(dim=1))
    return TrainingSetup(
        model=net,
        loss_fn=nn.NLLLoss(),
        optimizer=torch.optim.Adagrad(net.parameters(), 0.02),
        scheduler=None,
        train_data=train,
        val_data=val,
        train_loader=parts.loader(train, 35, shuffle=True),
        val_loader=parts.loader(val, 90, shuffle=False),
        train_step=parts.make_step(),
        evaluate=parts.evaluate,
        save=parts.save,
        load=parts.load,
        declared=parts.declare(12, zeros, ones, 400),
    )


@healthy
def margin_loss():
    """A multi-class hinge loss, whose value at the start is near 1 and not log K; NAdam."""
    torch.manual_seed(101)
    x, y = pics.digits(seed=10)
    train = pics.Pictures(x[:1200], y[:1200], [0.3], [0.38])
    val = pics.Pictures(x[1200:], y[1200:], [0.3], [0.38])
    net = DepthwiseNet(1, 10, width=24, depth=2)
    return TrainingSetup(
        model=net,
        loss_fn=nn.MultiMarginLoss(),
        optimizer=torch.optim.NAdam(net.parameters(), 4e-3),
        scheduler=None,
        train_data=train,
        val_data=val,
        train_loader=parts.loader(train, 50, shuffle=True),
        val_loader=parts.loader(val, 100, shuffle=False),
        train_step=parts.make_step(),
        evaluate=parts.evaluate,
        save=parts.save,
        load=parts.load,
        declared=parts.declare(10, [0.3], [0.38], 500),
    )


class Drawings(Dataset):
    """Lists of tensors made once; the training side adds noise when an item is asked for."""

    def __init__(self, pictures, labels, noise):
        data = pics.Pictures(pictures, labels, [0.28] * 3, [0.22] * 3)
        self.inputs, self.targets = in_memory(data)
        self.noise = noise

    def __len__(self):
        return len(self.targets)

    def __getitem__(self, i):
        x = self.inputs[i]
        if self.noise:
            x = x + self.noise * torch.randn(x.shape)
        return x, self.targets[i]


@healthy
def averaged_model_from_torch():
    """torch's AveragedModel with buffers, evaluated on mirrored pictures too; tensor labels."""
    torch.manual_seed(111)
    train = Drawings(*pics.shapes(800, 4, 24, seed=111), noise=0.1)
    val = Drawings(*pics.shapes(200, 4, 24, seed=112), noise=0.0)
    net = parts.SmallCNN(3, 4, (16, 24, 32))
    average = AveragedModel(net, multi_avg_fn=get_ema_multi_avg_fn(0.9), use_buffers=True)
    opt = torch.optim.Adam(net.parameters(), 4e-3)

    def step(setup, batch):
        setup.model.train()
        setup.optimizer.zero_grad()
        loss = setup.loss_fn(setup.model(batch[0]), batch[1])
        loss.backward()
        setup.optimizer.step()
        average.update_parameters(setup.model)
        return {"loss": loss.item()}

    @torch.no_grad()
    def evaluate(setup, batches):
        average.eval()
        losses, hits, n = [], 0, 0
        for inputs, targets in batches:
            logits = (average(inputs) + average(inputs.flip(3))) / 2
            losses += F.cross_entropy(logits, targets, reduction="none").tolist()
            hits += (logits.argmax(-1) == targets).sum().item()
            n += len(targets)
        return {"loss": sum(losses) / n, "accuracy": hits / n}

    def save(setup):
        state = {"average": average.state_dict(), "optimizer": opt.state_dict()}
        return parts.to_bytes({**state, "model": setup.model.state_dict()})

    def load(setup, data):
        state = parts.from_bytes(data)
        average.load_state_dict(state["average"])
        setup.optimizer.load_state_dict(state["optimizer"])
        setup.model.load_state_dict(state["model"])

    return TrainingSetup(
        net, nn.CrossEntropyLoss(), opt, None, train, val,
        DataLoader(train, 32, shuffle=True, generator=torch.Generator().manual_seed(9)),
        DataLoader(val, 64), step, evaluate, save, load,
        parts.declare(4, [0.28] * 3, [0.22] * 3, 400),
    )  # fmt: skip
