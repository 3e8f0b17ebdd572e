"""Checks of a training set-up before the first expensive hour: `run(factory) -> Report`.

from src.checks import TrainingSetup, run
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from src.checks.battery import run
    from src.checks.setup import TrainingSetup

__all__ = ["TrainingSetup", "run"]


def __getattr__(name: str) -> Any:
    """Imported when asked for: torch comes with them."""
    if name == "run":
        from src.checks.battery import run

        return run
    if name == "TrainingSetup":
        from src.checks.setup import TrainingSetup

        return TrainingSetup
    raise AttributeError(f"module {__name__} has no {name}")
