"""The tables: `HEALTHY` and `FAULTS`, filled by the decorators as their modules are imported."""

from collections.abc import Callable
from dataclasses import dataclass, fields
from types import SimpleNamespace
from typing import Any

from tests.zoo.unseen.contract import TrainingSetup

Factory = Callable[..., TrainingSetup]


@dataclass(frozen=True)
class Healthy:
    """A set-up that trains well; `description` is the first line of its factory's docstring."""

    name: str
    description: str
    factory: Factory


@dataclass(frozen=True)
class Fault:
    """One mistake in the healthy set-up `base`; `expected` is the cause a good report names."""

    name: str
    description: str
    base: str
    expected: str
    factory: Factory


HEALTHY: dict[str, Healthy] = {}
FAULTS: dict[str, Fault] = {}


def _first_line(function: Callable) -> str:
    return (function.__doc__ or "").strip().splitlines()[0]


def healthy(factory: Factory) -> Factory:
    """Enter a factory under its own name."""
    HEALTHY[factory.__name__] = Healthy(factory.__name__, _first_line(factory), factory)
    return factory


def as_namespace(setup: TrainingSetup) -> SimpleNamespace:
    """The parts of a set-up where they can be exchanged, whatever the dataclass allows."""
    return SimpleNamespace(**{field.name: getattr(setup, field.name) for field in fields(setup)})


def fault(base: Factory, expected: str) -> Callable:
    """Enter a function that breaks one thing in a fresh set-up of `base`."""

    def enter(damage: Callable[[Any], None]) -> Callable[[Any], None]:
        def factory() -> TrainingSetup:
            parts = as_namespace(base())
            damage(parts)
            return TrainingSetup(**vars(parts))

        name = damage.__name__
        FAULTS[name] = Fault(name, _first_line(damage), base.__name__, expected, factory)
        return damage

    return enter
