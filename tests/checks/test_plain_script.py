"""A plain training script, as one finds them, with two faults in it: both are named."""

from typing import Any

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from src.checks import TrainingSetup, run
from tests.checks import small_setup

# --- the script


class Net(nn.Module):
    def __init__(self, classes: int = 10):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 16, 3, padding=1)
        self.bn1 = nn.BatchNorm2d(16)
        self.conv2 = nn.Conv2d(16, 32, 3, padding=1)
        self.bn2 = nn.BatchNorm2d(32)
        self.pool = nn.MaxPool2d(2)
        self.dropout = nn.Dropout(0.2)
        self.fc = nn.Linear(32 * 2 * 2, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(torch.relu(self.bn1(self.conv1(x))))
        x = self.pool(torch.relu(self.bn2(self.conv2(x))))
        x = self.fc(self.dropout(x.flatten(1)))
        return torch.softmax(x, dim=1)  # the first fault: CrossEntropyLoss does it again


def load_data() -> tuple[TensorDataset, TensorDataset]:
    digits = load_digits()
    x = torch.from_numpy(digits.images.astype(np.float32))[:, None] / 16
    x = (x - 0.305) / 0.376
    y = torch.from_numpy(digits.target)
    order = torch.randperm(len(y), generator=torch.Generator().manual_seed(0))
    x, y = x[order], y[order]
    return TensorDataset(x[:1200], y[:1200]), TensorDataset(x[1200:], y[1200:])


def train_one_batch(model: nn.Module, optimizer: Any, loss_fn: Any, x: Any, y: Any) -> float:
    model.train()
    loss = loss_fn(model(x), y)
    loss.backward()  # the second fault: nobody clears the gradients
    optimizer.step()
    return loss.item()


@torch.no_grad()
def test_model(model: nn.Module, loss_fn: Any, loader: Any) -> tuple[float, float]:
    model.eval()
    loss, correct, count = 0.0, 0, 0
    for x, y in loader:
        out = model(x)
        loss += loss_fn(out, y).item() * len(y)
        correct += (out.argmax(1) == y).sum().item()
        count += len(y)
    return loss / count, correct / count


test_model.__test__ = False  # type: ignore[attr-defined]


# --- the adapter


def factory() -> TrainingSetup:
    torch.manual_seed(0)
    train, test = load_data()
    model = Net()
    return TrainingSetup(
        model,
        nn.CrossEntropyLoss(),
        torch.optim.Adam(model.parameters(), lr=1e-3),
        None,
        train,
        test,
        DataLoader(train, batch_size=32, shuffle=True),
        DataLoader(test, 100),
        lambda s, batch: {"loss": train_one_batch(s.model, s.optimizer, s.loss_fn, *batch)},
        lambda s, loader: dict(
            zip(("loss", "accuracy"), test_model(s.model, s.loss_fn, loader), strict=True)
        ),
        small_setup.save,
        small_setup.load,
        {"num_classes": 10, "mean": [0.305], "std": [0.376], "accumulate": 1, "frozen": []},
    )


def healed() -> TrainingSetup:
    setup = factory()
    broken = setup.model.forward

    def without_softmax(x: Tensor) -> Tensor:
        return broken(x).log()  # log of softmax: what cross-entropy takes as logits

    setup.model.forward = without_softmax
    step = setup.train_step
    assert step is not None

    def clearing(setup: TrainingSetup, batch: Any) -> Any:
        setup.optimizer.zero_grad()
        return step(setup, batch)

    setup.train_step = clearing
    return setup


def test_both_faults_are_named() -> None:
    torch.set_num_threads(1)
    report = run(factory, 20)
    failed = {check.id: check for check in report.checks if check.status == "fail"}
    assert report.status == "fail"
    assert failed["outputs"].likely_causes[0] == "activation_before_loss"
    assert failed["grad_bookkeeping"].likely_causes[0] == "zero_grad_missing"
    text = report.as_text(colour=False)
    assert "softmax, sigmoid or the like stands between" in text
    assert "step: optimizer.zero_grad()" in text


def test_without_them_nothing_is_found() -> None:
    report = run(healed, 20)
    assert {c.id: c.message for c in report.checks if c.status != "pass"} == {}
