"""Checks of a training set-up before the first expensive hour: `run(factory) -> Report`.

from src.checks import TrainingSetup, run
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from src.checks.battery import run
    from src.checks.training_setup import TrainingSetup

__all__ = ["TrainingSetup", "run"]
HOMES = {"run": "battery", "TrainingSetup": "training_setup"}


def __getattr__(name: str) -> Any:
    """Imported when asked for: torch comes with them."""
    if name not in HOMES:
        raise AttributeError(f"module {__name__} has no {name}")
    return getattr(import_module(f"{__name__}.{HOMES[name]}"), name)
