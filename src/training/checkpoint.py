"""The resume checkpoint: all that a killed run needs to go on with the same bits.

One per kind of machine at `<main repository>/.cache/checkpoints/<fingerprint>/`, outside every
output, until the stage ends well. No random state: randomness is a function of the step.
"""

import hashlib
import io
import shutil
import time
from pathlib import Path
from typing import Any

import torch

from src.base.files import write_bytes


class Checkpoint:
    """Saves and loads the state of one training run, identified by its fingerprint. `kind`: what
    must be equal for the same bits; `anywhere`: whether to go on from another kind of machine."""

    def __init__(
        self,
        root: Path,
        fingerprint: str,
        minutes: float,
        kind: dict[str, str],
        anywhere: bool = False,
    ):
        name = hashlib.sha256(repr(sorted(kind.items())).encode()).hexdigest()[:8]
        self.path = root / ".cache" / "checkpoints" / fingerprint / f"checkpoint-{name}.pt"
        self.seconds = minutes * 60
        self.kind, self.anywhere = kind, anywhere
        self.own_kind = ", ".join(kind.values())
        self.kinds = [self.own_kind]  # of all machines that had a part in the training
        self._last = time.monotonic()

    @property
    def needed_kind(self) -> str:
        """The kind of machine that whoever goes on must be of; empty if any may."""
        return "" if self.anywhere else self.own_kind

    def is_due(self) -> bool:
        """Whether `minutes` have passed. The clock decides when to save, never what a result is."""
        return time.monotonic() - self._last >= self.seconds

    def save(self, state: dict[str, Any]) -> None:
        """Write `state` so that a power cut leaves the old or the new checkpoint, whole."""
        buffer = io.BytesIO()
        torch.save({"kind": self.kind, "kinds": self.kinds, "state": state}, buffer)
        write_bytes(self.path, buffer.getvalue(), durable=True)
        self._last = time.monotonic()

    def load(self) -> dict[str, Any] | None:
        """The state to go on from, or None: there is none, or it was damaged. One of another kind
        of machine, with which the bits are not the same, counts only with `anywhere`."""
        here = self.path.parent
        try:
            others = sorted(here.glob("*.pt"), key=lambda path: path.stat().st_mtime)
        except OSError:  # another process ended and removed them
            return None
        path = self.path if self.path.exists() else others[-1] if others else None
        if path is None:
            return None
        try:
            saved = torch.load(path, map_location="cpu", weights_only=True)
            kind, kinds, state = dict(saved["kind"]), list(saved["kinds"]), dict(saved["state"])
        except Exception as error:  # a damaged file raises many types: zip, pickle, keys, I/O
            reason = " ".join(str(error).split())[:80]
            print(f"train: starts over, the checkpoint cannot be read ({reason})")
            return None
        if kind == self.kind or self.anywhere:
            self.kinds = [*kinds, *(own for own in self.kinds if own not in kinds)]
        if kind == self.kind:
            return state
        other = ", ".join(f"{key} {kind[key]}" for key in kind if kind[key] != self.kind.get(key))
        if self.anywhere:
            print(f"train: the checkpoint is of another machine ({other}): the bits will differ")
            return state
        print(
            f"train: starts over, the checkpoint is of another machine ({other}); to go on from it "
            "set machine.resume=any"
        )
        return None

    def remove(self) -> None:
        shutil.rmtree(self.path.parent, ignore_errors=True)
