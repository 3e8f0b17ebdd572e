"""The one place that names the contract."""

from src.checks import TrainingSetup

__all__ = ["TrainingSetup"]
