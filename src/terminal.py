"""What a person sees while a stage works: a bar on a terminal, else a line now and then.

Nothing here can change an output, so no stage depends on this file.
"""

import sys
import time
from collections.abc import Mapping

from tqdm import tqdm


class Progress:
    """Progress of `epochs` epochs of `steps` steps of `batch_size` pictures, on stderr.

    `done` steps were made before (a resumed run). `mode`: auto (bar where stderr is a terminal,
    else a line per epoch) or off.
    """

    def __init__(self, epochs: int, steps: int, batch_size: int, done: int, mode: str):
        self.epochs, self.steps, self.batch_size = epochs, steps, batch_size
        self.off = mode == "off"
        self.done, self.start, self.started_at = done, done, time.monotonic()
        show_bar = not self.off and sys.stderr.isatty()
        self.bar = (
            tqdm(total=epochs * steps, initial=done, unit="step", leave=False, dynamic_ncols=True)
            if show_bar
            else None
        )

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            self.bar.close()

    def advance(self) -> None:
        """One step was made."""
        self.done += 1
        if self.bar is not None:
            self.bar.update()

    def show(self, step: int, loss: float, accuracy: float) -> None:
        """The means of this epoch so far, beside the bar."""
        if self.bar is not None:
            self.bar.set_postfix_str(f"loss {loss:.4f} accuracy {accuracy:.4f}", refresh=False)

    def epoch_done(self, row: Mapping[str, float]) -> None:
        """A line with the epoch's losses and accuracies, the rate and the time left."""
        if self.off:
            return
        seconds = max(time.monotonic() - self.started_at, 1e-9)
        rate = (self.done - self.start) / seconds  # steps per second since this process started
        # A run that was resumed at the end of an epoch has made no step yet.
        left = _minutes((self.epochs * self.steps - self.done) / rate) if rate else "?"
        line = (
            f"epoch {row['epoch']:>{len(str(self.epochs))}.0f}/{self.epochs}"
            f"  train loss {row['train_loss']:.4f} acc {row['train_accuracy']:.4f}"
            f"  val loss {row['val_loss']:.4f} acc {row['val_accuracy']:.4f}"
            f"  {rate * self.batch_size:.0f} pictures/s  {left} left"
        )
        if self.bar is not None:
            self.bar.write(line, file=sys.stderr)
        else:
            print(line, file=sys.stderr, flush=True)


def _minutes(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds >= 120 else f"{seconds:.0f} s"


class Counted:
    """Progress of `total` pictures of a stage, on stderr: a bar where it is a terminal, else a line
    now and then. `mode`: auto or off."""

    SECONDS = 15.0  # between two lines (choice)

    def __init__(self, stage: str, total: int, mode: str):
        self.stage, self.total, self.done = stage, total, 0
        self.off = mode == "off"
        self.started_at = self.shown_at = time.monotonic()
        show_bar = not self.off and sys.stderr.isatty()
        self.bar = (
            tqdm(total=total, desc=stage, unit="picture", leave=False, dynamic_ncols=True)
            if show_bar
            else None
        )

    def __enter__(self) -> "Counted":
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            self.bar.close()

    def advance(self) -> None:
        """One picture is done."""
        self.done += 1
        if self.bar is not None:
            self.bar.update()
        elif not self.off and self.done % 64 == 0:  # the clock is not read at each picture
            now = time.monotonic()
            if now - self.shown_at >= self.SECONDS:
                self.shown_at = now
                rate = self.done / (now - self.started_at)
                left = _minutes((self.total - self.done) / rate)
                line = (
                    f"{self.stage}: {self.done} of {self.total} pictures  {rate:.0f}/s  {left} left"
                )
                print(line, file=sys.stderr, flush=True)
