"""What a stage may tell the tracker, and what happens to it with tracking off: nothing."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any


class Run:
    """What a stage may tell the tracker. This one, for `machine.tracking: false`, drops it all.
    Nothing raises. Only `log_metrics` and `log_picture` are for a loop: the others wait for the
    server."""

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """Note values such as {"train/loss": 0.3} at a step. Takes microseconds."""

    def log_picture(self, name: str, png: bytes) -> None:
        """Keep a small PNG as the artifact `name`, such as examples/epoch_005.png. Takes the time
        of writing it to disk."""

    def log_artifact(self, path: Path | str, folder: str = "") -> None:
        """Copy a file into the run, below `folder`."""

    def log_model(self, folder: Path) -> None:
        """Copy the model of `folder` (model.json, model.safetensors) into the run as `model`, such
        that `mlflow models serve -m runs:/<run id>/model` answers pictures; see serving.py."""

    def log_input(self, name: str, digest: str, context: str) -> None:
        """Name a data set that the run read: `digest` its md5 as DVC writes it, `context` what it
        was read for (training, validation, test)."""

    def set_tags(self, tags: Mapping[str, Any]) -> None:
        """Set tags; values become text."""

    def describe(self, markdown: str) -> None:
        """The description at the head of the run's page. That of a training also says what changed
        and how the result is brought back."""
