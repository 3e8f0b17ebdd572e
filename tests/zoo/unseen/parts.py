"""What several set-ups share: nets, a step, an evaluation, checkpoints."""

import io

import torch
from torch import nn
from torch.utils.data import DataLoader

from tests.zoo.unseen.registry import as_namespace


class SmallCNN(nn.Module):
    """Convolutions with BatchNorm, pooled, one linear layer."""

    def __init__(self, channels, classes, widths=(12, 24, 32)):
        super().__init__()
        layers: list[nn.Module] = []
        before = channels
        for i, width in enumerate(widths):
            stride = 1 if i == 0 else 2
            layers += [nn.Conv2d(before, width, 3, stride, 1, bias=False)]
            layers += [nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
            before = width
        self.features = nn.Sequential(*layers)
        self.head = nn.Linear(before, classes)

    def forward(self, x):
        return self.head(self.features(x).mean((2, 3)))


class PatchTransformer(nn.Module):
    """Patches, learned positions, encoder layers over (N, tokens, width), mean of the tokens."""

    def __init__(self, channels, classes, size, patch=8, width=48, depth=2, batch_first=True):
        super().__init__()
        self.patches = nn.Conv2d(channels, width, patch, patch)
        self.positions = nn.Parameter(0.02 * torch.randn(1, (size // patch) ** 2, width))
        layer = nn.TransformerEncoderLayer(
            width, 4, 2 * width, dropout=0.0, norm_first=True, batch_first=batch_first
        )
        self.encoder = nn.TransformerEncoder(layer, depth, enable_nested_tensor=False)
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, classes)

    def forward(self, x):
        tokens = self.patches(x).flatten(2).transpose(1, 2) + self.positions
        return self.head(self.norm(self.encoder(tokens)).mean(1))


def loader(data, batch_size, shuffle, seed=0, **options):
    """A DataLoader that shuffles with its own generator."""
    generator = torch.Generator().manual_seed(seed)
    return DataLoader(data, batch_size, shuffle=shuffle, generator=generator, **options)


def make_step(accumulate=1, clip=None):
    """A train step that counts its micro-batches; the schedule moves with the optimizer."""
    calls = 0

    def train_step(setup, batch):
        nonlocal calls
        setup.model.train()
        inputs, targets = batch
        loss = setup.loss_fn(setup.model(inputs), targets)
        (loss / accumulate).backward()
        calls += 1
        if calls % accumulate == 0:
            if clip is not None:
                nn.utils.clip_grad_norm_(setup.model.parameters(), clip)
            setup.optimizer.step()
            setup.optimizer.zero_grad()
            if setup.scheduler is not None:
                setup.scheduler.step()
        return {"loss": loss.item()}

    return train_step


@torch.no_grad()
def evaluate(setup, batches, model=None):
    """Mean loss and accuracy over all examples, of the set-up's model or of another one."""
    model = (setup.model if model is None else model).eval()
    loss, correct, seen = 0.0, 0, 0
    for inputs, targets in batches:
        logits = model(inputs)
        loss += setup.loss_fn(logits, targets).item() * len(targets)
        correct += (logits.argmax(1) == targets).sum().item()
        seen += len(targets)
    return {"loss": loss / seen, "accuracy": correct / seen}


def to_bytes(state):
    """torch.save into memory."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


def from_bytes(data):
    """The reverse of `to_bytes`."""
    return torch.load(io.BytesIO(data), weights_only=True)


def save(setup):
    """Model, optimizer and schedule."""
    state = {"model": setup.model.state_dict(), "optimizer": setup.optimizer.state_dict()}
    if setup.scheduler is not None:
        state["scheduler"] = setup.scheduler.state_dict()
    return to_bytes(state)


def load(setup, data):
    """The reverse of `save`."""
    state = from_bytes(data)
    setup.model.load_state_dict(state["model"])
    setup.optimizer.load_state_dict(state["optimizer"])
    if setup.scheduler is not None:
        setup.scheduler.load_state_dict(state["scheduler"])


def declare(classes, mean, std, total_steps, **more):
    """The `declared` entry with the usual values, changed by `more`."""
    usual = {"accumulate": 1, "label_smoothing": 0.0, "mixup": 0.0, "precision": "float32"}
    fixed = {"num_classes": classes, "mean": mean, "std": std, "total_steps": total_steps}
    return {**usual, "frozen": [], **fixed, **more}


def become(setup, other):
    """Turn a set-up into another one that its author would have written instead."""
    vars(setup).update(vars(as_namespace(other)))
