"""A healthy set-up that the faults break, part 3: a pretrained body and a new head."""

from functools import lru_cache

import torch
from torch import nn
from torch.nn import functional as F

from tests.zoo.unseen import parts
from tests.zoo.unseen import pictures as pics
from tests.zoo.unseen.contract import TrainingSetup
from tests.zoo.unseen.pictures import Pictures
from tests.zoo.unseen.registry import healthy


@lru_cache(1)
def pretrained():
    """State of a CNN trained on 16 grating classes, as a download would give it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(90)
        images, labels = pics.gratings(1600, 16, 24, 3, frequencies=2, seed=90)
        data = Pictures(images, labels, [0.47] * 3, [0.2] * 3)
        model = parts.SmallCNN(3, 16, (12, 16, 24))
        optimizer = torch.optim.AdamW(model.parameters(), 1e-2)
        for _ in range(3):
            for inputs, targets in parts.loader(data, 32, shuffle=True):
                optimizer.zero_grad()
                F.cross_entropy(model(inputs), targets).backward()
                optimizer.step()
    return model.state_dict()


class FineTuned(nn.Module):
    """A pretrained body that stays as it is, its statistics too, and a new head."""

    def __init__(self, classes):
        super().__init__()
        net = parts.SmallCNN(3, 16, (12, 16, 24))
        net.load_state_dict(pretrained())
        self.body = net.features
        self.head = nn.Linear(24, classes)

    def train(self, mode=True):
        super().train(mode)
        self.body.eval()
        return self

    def forward(self, x):
        return self.head(self.body(x).mean((2, 3)))


@healthy
def transfer_frozen():
    """Pretrained body, declared frozen, a new head for 6 classes; SGD with momentum, StepLR."""
    model = FineTuned(6)
    torch.manual_seed(17)
    nn.init.normal_(model.head.weight, std=0.01)
    nn.init.zeros_(model.head.bias)
    model.body.requires_grad_(False)
    train, val = pics.gratings(600, 6, seed=11), pics.gratings(240, 6, seed=12)
    mean, std = [0.47] * 3, [0.2] * 3
    train_data, val_data = Pictures(*train, mean, std), Pictures(*val, mean, std)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], 0.2, 0.9)
    return TrainingSetup(
        model=model,
        loss_fn=nn.CrossEntropyLoss(),
        optimizer=optimizer,
        scheduler=torch.optim.lr_scheduler.StepLR(optimizer, 150, 0.2),
        train_data=train_data,
        val_data=val_data,
        train_loader=parts.loader(train_data, 30, shuffle=True),
        val_loader=parts.loader(val_data, 80, shuffle=False),
        train_step=parts.make_step(),
        evaluate=parts.evaluate,
        save=parts.save,
        load=parts.load,
        declared=parts.declare(
            6, mean, std, 300, frozen=[n for n, _ in model.named_parameters() if "body" in n]
        ),
    )
