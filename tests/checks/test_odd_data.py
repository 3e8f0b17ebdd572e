"""No check stops by an exception, and none passes over in silence, whatever data there are."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from src.checks import TrainingSetup, run
from src.checks.catalogue import CHECKS
from src.checks.report import Report
from tests.checks import small_setup

BUDGET = 2.0  # seconds: the emergency stop comes after four times that
# Each looks at the data in some way, and must leave a word of it.
GROUPS = ("label_range", "label_signal", "leakage", "loader_coverage", "overfit_batch")


@dataclass(frozen=True)
class Data:
    """Images per class in train and val. `look`: noise, coarse (a pattern per class), constant,
    flat (a grey level per class) or dot (one pixel); `augmented`: rolled and mirrored by chance."""

    train: Sequence[int]
    val: Sequence[int]
    look: str = "coarse"
    size: int = 16
    channels: int = 3
    augmented: bool = False
    batch: int = 16


class Images(Dataset):
    """Images as they enter a net, and their labels."""

    def __init__(self, data: Data, counts: Sequence[int], seed: int, augmented: bool):
        draws, faces = torch.Generator().manual_seed(seed), torch.Generator().manual_seed(1)
        self.y = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
        shape = (len(self.y), data.channels, data.size, data.size)
        x = torch.rand(shape, generator=draws)
        if data.look == "coarse":
            small = torch.rand(len(counts), data.channels, 4, 4, generator=faces)[self.y]
            x = 0.8 * nn.functional.interpolate(small, size=data.size) + 0.2 * x
        elif data.look == "constant":
            x = torch.zeros(shape)
        elif data.look == "flat":
            x = (self.y / max(1, len(counts) - 1)).view(-1, 1, 1, 1).expand(shape).clone()
        elif data.look == "dot":
            x = torch.zeros(shape)
            x[:, :, 0, 0] = torch.rand(len(x), data.channels, generator=draws)
        self.x, self.augmented = ((x * 255).round() / 255 - 0.5) / 0.25, augmented

    def __len__(self) -> int:
        return len(self.y)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        if index >= len(self):
            raise IndexError(index)
        x = self.x[index]
        if self.augmented:
            x = x.roll(torch.randint(-2, 3, (2,)).tolist(), (1, 2))
            x = x.flip(2) if torch.rand(()) < 0.5 else x
        return x, int(self.y[index])


def set_up(data: Data) -> TrainingSetup:
    train = Images(data, data.train, 1, data.augmented)
    val = Images(data, data.val, 2, False)
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(data.channels, 16, 3, padding=1),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(64, len(data.train)),
    )
    order = torch.Generator().manual_seed(1)
    return TrainingSetup(
        model=model,
        loss_fn=nn.CrossEntropyLoss(),
        optimizer=torch.optim.AdamW(model.parameters(), lr=3e-3),
        train_data=train,
        val_data=val,
        train_loader=DataLoader(train, data.batch, shuffle=True, generator=order),
        val_loader=DataLoader(val, 64),
        train_step=small_setup.train_step,
        evaluate=small_setup.evaluate,
        save=small_setup.save,
        load=small_setup.load,
        declared={
            "num_classes": len(data.train),
            "mean": [0.5] * data.channels,
            "std": [0.25] * data.channels,
            "total_steps": 100,
            "label_smoothing": 0.0,
            "mixup": 0.0,
            "precision": "fp32",
            "frozen": [],
        },
    )


def report_of(data: Data) -> Report:
    torch.set_num_threads(1)
    return run(lambda: set_up(data), BUDGET)


def require_told(report: Report) -> None:
    """No check stopped, none was left out without a word."""
    found: dict[str, Any] = {check.id: check for check in report.checks}
    assert [c.message for c in report.checks if "stopped" in c.message] == []
    assert [id for id in found if id.startswith("runs_")] == []
    assert set(found) <= CHECKS
    signal = ("augmentation", "label_map", "train_val_agree")
    told = {"label_range": ("label_classes",), "label_signal": signal}
    for id in GROUPS:
        assert {id, *told.get(id, ())} & set(found), (id, sorted(found))
    assert {"eval_metric", "eval_mode", "eval_side_effects", "eval_determinism"} & set(found)


def by_id(report: Report) -> dict[str, str]:
    return {check.id: check.message for check in report.checks}


@pytest.mark.slow(seconds=10)
def test_many_classes_with_a_val_image_each() -> None:
    """130 classes of 20 at 16 px: both checks that ask the probe divided by 0."""
    report = report_of(Data([20] * 130, [1] * 130, augmented=True))
    require_told(report)
    assert "from one to the other" in by_id(report)["label_signal"]
    assert report.status == "pass"


SLOW = pytest.mark.slow(seconds=10)
ODD = {
    "an image a class": (Data([1] * 12, [1] * 12), "pass"),
    "two images": (Data([1, 1], [1, 1], augmented=True, batch=2), "warn"),
    "2,000 classes": (Data([2] * 2000, [1] * 2000, size=8, augmented=True), "pass"),
    "a long epoch": (Data([11] * 2000, [1] * 2000, "noise", size=8, channels=1), ""),
    "constant": (Data([20] * 4, [5] * 4, "constant"), "fail"),
    "constant, augmented": (Data([20] * 4, [20] * 4, "constant", augmented=True), "fail"),
    "a grey level a class": (Data([10] * 6, [10] * 6, "flat", channels=1, augmented=True), "fail"),
    "one class with 99 %": (Data([990, 10], [99, 1], augmented=True), "warn"),
    "val of one class": (Data([10] * 5, [30, 0, 0, 0, 0], augmented=True), "fail"),
    "a val image": (Data([10] * 5, [1, 0, 0, 0, 0]), "fail"),
    "a pixel": (Data([10] * 5, [10] * 5, "dot", size=9, augmented=True), ""),
}
LONG = ("2,000 classes", "a long epoch")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=SLOW if name in LONG else ()) for name in ODD]
)
def test_no_check_stops_on_odd_data(name: str) -> None:
    data, status = ODD[name]
    report = report_of(data)
    require_told(report)
    assert status in ("", report.status), by_id(report)


def test_what_cannot_be_told_is_said() -> None:
    """Nearly all of val is one class: nothing there contradicts the labels. They were called
    shuffled."""
    report = report_of(ODD["one class with 99 %"][0])
    assert "of val labels it cannot tell" in by_id(report)["label_signal"]
    few = by_id(report_of(ODD["two images"][0]))
    assert few["label_signal"].startswith("cannot tell: 2 training items of 2 classes")
    assert few["turned"].startswith("cannot tell: 2 val items")


@pytest.mark.parametrize("seed", [pytest.param(0, marks=pytest.mark.slow), *range(1, 6)])
def test_no_check_stops_on_data_by_chance(seed: int) -> None:
    """Numbers of classes and images, sizes, looks and augmentation by chance."""
    draws = torch.Generator().manual_seed(seed)

    def pick(*values: Any) -> Any:
        return values[int(torch.randint(len(values), (), generator=draws))]

    def counts(least: int) -> list[int]:
        return [pick(least, 1, 2, 3, pick(5, 40)) for _ in range(classes)]

    classes = pick(2, 3, 10, 60)
    val = counts(0)
    data = Data(
        counts(1),
        val if any(val) else [1] * classes,
        pick("noise", "coarse", "constant", "flat", "dot"),
        pick(8, 9, 16, 33),
        pick(1, 3),
        pick(True, False),
        pick(4, 16, 64),
    )
    require_told(report_of(data))
