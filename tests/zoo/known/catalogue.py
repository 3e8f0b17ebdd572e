"""What is in the zoo: faults by name, each planted in a healthy base, harmless changes, healthy
set-ups; and the tools to plant with."""

from collections.abc import Callable, Iterable, Sequence
from copy import copy
from dataclasses import dataclass, replace
from functools import partial
from importlib import import_module
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, RandomSampler

from tests.zoo.known import bases
from tests.zoo.known.bases import Batches
from tests.zoo.known.complete_setup import Factory, TrainingSetup

Plant = Callable[[TrainingSetup], TrainingSetup | None]
OnTensor = Callable[[Tensor], Tensor]
Function = TypeVar("Function", bound=Callable[..., Any])

BASES: dict[str, Factory] = {
    "digits_resnet": bases.digits_resnet,
    "shapes_vit": bases.shapes_vit,
    "two_classes": bases.two_classes,
    "mixup_ema": bases.mixup_ema,
    "pretrained": bases.pretrained,
}
FAULT_MODULES = (
    "model",
    "outputs",
    "loss",
    "step",
    "optimizer",
    "data",
    "transform",
    "loader",
    "evaluate",
    "checkpoint",
    "mixing",
)


@dataclass(frozen=True)
class Change:
    """A change to a base: a fault or a harmless one. `causes`: those that count as right for a
    fault, any of them first or second in the first finding. `subtle`: nothing says before training
    that it is wrong, so it is listed and not counted."""

    name: str
    text: str
    base: str
    plant: Plant
    causes: Sequence[str] = ()
    subtle: bool = False

    def __call__(self) -> TrainingSetup:
        """A fresh set-up with the change in it."""
        setup = BASES[self.base]()
        return self.plant(setup) or setup


FAULTS: dict[str, Change] = {}
HARMLESS: dict[str, Change] = {}


def _put(setup: TrainingSetup, part: str, function: Callable) -> TrainingSetup:
    changed: dict[str, Any] = {part: function}
    return replace(setup, **changed)


def _register(
    table: dict[str, Change], bases: tuple[str, ...], replaces: str, *rest: Any
) -> Callable[[Function], Function]:
    def add(function: Function) -> Function:
        plant: Plant = function
        if replaces:
            plant = partial(_put, part=replaces, function=function)
        text = " ".join((function.__doc__ or "").split())
        for base in bases:
            name = function.__name__ if base == bases[0] else f"{function.__name__}.{base}"
            table[name] = Change(name, text, base, plant, *rest)
        return function

    return add


def fault(
    *bases: str, causes: Sequence[str], replaces: str = "", subtle: bool = False
) -> Callable[[Function], Function]:
    """Enter a fault; on a second base its name ends in the base's. The function changes the set-up
    in place or gives another one; with `replaces` it takes the place of that part of the set-up."""
    return _register(FAULTS, bases, replaces, causes, subtle)


def harmless(*bases: str, replaces: str = "") -> Callable[[Function], Function]:
    """Enter a change that looks odd and is fine."""
    return _register(HARMLESS, bases, replaces)


def all_faults() -> dict[str, Change]:
    for part in FAULT_MODULES:
        import_module(f"tests.zoo.known.faults_{part}")
    return FAULTS


def all_harmless() -> dict[str, Change]:
    import_module("tests.zoo.known.harmless")
    return HARMLESS


def everything_healthy() -> dict[str, Factory]:
    """Bases, harmless changes and healthy set-ups."""
    from tests.zoo.known.healthy import healthy

    return {**BASES, **all_harmless(), **healthy()}


# --- tools to plant with


def unchanged(x: Tensor) -> Tensor:
    return x


class Around(nn.Module):
    """A net with what is done to its input and its output. Its parameters are the net's own."""

    def __init__(self, net: nn.Module, first: OnTensor = unchanged, then: OnTensor = unchanged):
        super().__init__()
        self.net, self.first, self.then = net, first, then

    def forward(self, x: Tensor) -> Tensor:
        return self.then(self.net(self.first(x)))


def after(setup: TrainingSetup, then: OnTensor) -> TrainingSetup:
    return replace(setup, model=Around(setup.model, then=then))


def before(setup: TrainingSetup, first: OnTensor) -> TrainingSetup:
    return replace(setup, model=Around(setup.model, first))


class Mapped(Dataset):
    """Items of a data set, each through `change(index, image, label)`."""

    def __init__(self, data: Any, change: Callable[[int, Tensor, int], tuple[Tensor, Any]]):
        self.data, self.change = data, change

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> tuple[Tensor, Any]:
        if index >= len(self):
            raise IndexError(index)
        image, label = self.data[index]
        return self.change(index, image, label)


def load_from(loader: Any, data: Any, **changes: Any) -> Any:
    """A loader like this one over other data, with other arguments where they are given."""
    if isinstance(loader, Batches):
        new = copy(loader)
        new.data = data
        for name, value in changes.items():
            setattr(new, name, value)
        return new
    shuffled = isinstance(loader.sampler, RandomSampler)
    arguments = {
        "batch_size": loader.batch_size,
        "shuffle": shuffled,
        "drop_last": loader.drop_last,
        "generator": torch.Generator().manual_seed(23) if shuffled else None,
    }
    return DataLoader(data, **(arguments | changes))


def with_data(setup: TrainingSetup, train: Any = None, val: Any = None) -> TrainingSetup:
    """The set-up on other data, its loaders as they were."""
    if train is not None:
        setup = replace(setup, train_data=train, train_loader=load_from(setup.train_loader, train))
    if val is not None:
        setup = replace(setup, val_data=val, val_loader=load_from(setup.val_loader, val))
    return setup


def map_data(
    setup: TrainingSetup,
    change: Callable[[int, Tensor, int], tuple[Tensor, Any]],
    parts: Iterable[str] = ("train", "val"),
) -> TrainingSetup:
    """The set-up with each item of the named parts changed."""
    return with_data(
        setup, **{part: Mapped(getattr(setup, f"{part}_data"), change) for part in parts}
    )


def keep(setup: TrainingSetup, part: str, wanted: Callable[[int, int], bool]) -> TrainingSetup:
    """The set-up with those items of a part for which `wanted(index, label)` is true."""
    data = getattr(setup, f"{part}_data")
    kept = [i for i in range(len(data)) if wanted(i, int(data[i][1]))]
    return with_data(setup, **{part: torch.utils.data.Subset(data, kept)})


def labels_of(data: Any) -> list[int]:
    return [int(data[i][1]) for i in range(len(data))]
