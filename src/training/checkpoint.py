"""The resume checkpoint: all that a killed run needs to go on with the same bits.

It lies at `<main repository>/.cache/checkpoints/<fingerprint>/`, outside every output, and is
removed when the stage has ended well. It never holds the state of a random generator: randomness
is a function of the step.
"""

import io
import shutil
import time
from pathlib import Path
from typing import Any

import torch

from src.files import write_bytes


class Checkpoint:
    """Saves and loads the state of one training run, identified by its fingerprint."""

    def __init__(self, root: Path, fingerprint: str, minutes: float, kind: dict[str, str]):
        self.path = root / ".cache" / "checkpoints" / fingerprint / "checkpoint.pt"
        self.seconds = minutes * 60
        self.kind = kind
        self._last = time.monotonic()

    def is_due(self) -> bool:
        """Whether `minutes` have passed since the last one. The clock decides when to save, never
        what a result is."""
        return time.monotonic() - self._last >= self.seconds

    def save(self, state: dict[str, Any]) -> None:
        """Write `state` so that a power cut leaves the old or the new checkpoint, whole."""
        buffer = io.BytesIO()
        torch.save({"kind": self.kind, "state": state}, buffer)
        write_bytes(self.path, buffer.getvalue(), durable=True)
        self._last = time.monotonic()

    def load(self) -> dict[str, Any] | None:
        """The state to go on from, or None: there is none, it was damaged, or another kind of
        machine made it (its bits would not be the same)."""
        if not self.path.exists():
            return None
        try:
            saved = torch.load(self.path, map_location="cpu", weights_only=True)
            kind, state = saved["kind"], saved["state"]
        except Exception as error:  # a damaged file raises many types: zip, pickle, keys, I/O
            reason = " ".join(str(error).split())[:80]
            print(f"train: starts over, the checkpoint cannot be read ({reason})")
            return None
        if kind != self.kind:
            print("train: starts over, the checkpoint is of another kind of machine")
            return None
        return state

    def remove(self) -> None:
        shutil.rmtree(self.path.parent, ignore_errors=True)
