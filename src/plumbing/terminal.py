"""What a person sees while a stage works: a bar on a terminal, else a line now and then."""

import sys
import time
from collections.abc import Mapping
from typing import NoReturn, Self, TextIO

from tqdm import tqdm


class _Bar:
    """A bar of `total` units on a terminal, else lines of the subclasses. `mode`: auto or off."""

    SECONDS = 15.0  # between two lines now and then (choice)
    FORMAT: str | None = None  # of the bar; else tqdm's own, with the rate and the time left

    def __init__(self, total: int, done: int, unit: str, name: str | None, mode: str):
        self.off = mode == "off"
        self.done, self.started_at = done, time.monotonic()
        self.shown_at = self.started_at
        self.bar: tqdm[NoReturn] | None = None
        if not self.off and sys.stderr.isatty():
            self.bar = tqdm(
                total=total,
                initial=done,
                desc=name,
                unit=unit,
                bar_format=self.FORMAT,
                leave=False,
                dynamic_ncols=True,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            self.bar.close()

    def advance(self) -> None:
        """One unit is done."""
        self.done += 1
        if self.bar is not None:
            self.bar.update()

    def _line_is_due(self) -> bool:
        """Whether there is no bar, and the last line, or the start, was a while ago."""
        now = time.monotonic()
        if self.off or self.bar is not None or now - self.shown_at < self.SECONDS:
            return False
        self.shown_at = now
        return True


class Progress(_Bar):
    """Progress of `epochs` epochs of `steps` steps of `batch_size` samples: a bar, or a line per
    epoch. `unit`: what people call samples; `done`: steps made before (a resumed run)."""

    def __init__(self, epochs: int, steps: int, batch_size: int, unit: str, done: int, mode: str):
        self.epochs, self.steps, self.batch_size, self.unit = epochs, steps, batch_size, unit
        self.start = done
        super().__init__(epochs * steps, done, "step", None, mode)

    def show(self, step: int, loss: float, accuracy: float) -> None:
        """The means of this epoch so far, beside the bar."""
        if self.bar is not None:
            self.bar.set_postfix_str(f"loss {loss:.4f} accuracy {accuracy:.4f}", refresh=False)

    def say(self, line: str, file: TextIO | None = None) -> None:
        """A line, on stdout if no file is given, that the bar does not run into."""
        if self.bar is not None:
            self.bar.write(line, file)
        else:
            print(line, file=file)

    def epoch_done(self, row: Mapping[str, float]) -> None:
        """A line with the epoch's losses and accuracies, the rate and the time left. Its means stay
        beside the bar until the next `show`, which an epoch of a few steps does not have."""
        if self.off:
            return
        self.show(int(row["epoch"]) * self.steps, row["train_loss"], row["train_accuracy"])
        seconds = max(time.monotonic() - self.started_at, 1e-9)
        rate = (self.done - self.start) / seconds  # steps per second since this process started
        left = (self.epochs * self.steps - self.done) / rate if rate else 0.0
        samples = f"{rate * self.batch_size:.0f} {self.unit}/s"
        # A run that was resumed at the end of an epoch has made no step yet.
        speed = f"  {samples}  {_minutes(left)} left" if rate else ""
        self.say(
            f"epoch {row['epoch']:>{len(str(self.epochs))}.0f}/{self.epochs}"
            f"  train loss {row['train_loss']:.4f} acc {row['train_accuracy']:.4f}"
            f"  val loss {row['val_loss']:.4f} acc {row['val_accuracy']:.4f}{speed}",
            sys.stderr,
        )


def _minutes(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds >= 120 else f"{seconds:.0f} s"


class Counted(_Bar):
    """Progress of a stage's `total` samples, called `unit`: a bar, or a line now and then."""

    def __init__(self, stage: str, total: int, unit: str, mode: str):
        self.stage, self.total, self.unit = stage, total, unit
        super().__init__(total, 0, unit, stage, mode)

    def advance(self) -> None:
        super().advance()
        # The clock is not read at each sample.
        if self.done % 64 == 0 and self._line_is_due():
            rate = self.done / (self.shown_at - self.started_at)
            left = _minutes((self.total - self.done) / rate)
            count = f"{self.stage}: {self.done} of {self.total} {self.unit}"
            print(f"{count}  {rate:.0f}/s  {left} left", file=sys.stderr, flush=True)


class Checks(_Bar):
    """Progress of the `total` checks of overfit-check: a bar, or a line now and then, without the
    time left, since checks take very different times."""

    FORMAT = "{desc}: {n_fmt}/{total_fmt} |{bar}| {elapsed}{postfix}"

    def __init__(self, total: int, mode: str):
        self.total, self.begun = total, 0
        super().__init__(total, 0, "check", "overfit-check", mode)

    def begin(self, name: str) -> None:
        """The check `name` begins, which ends the one before."""
        self.begun += 1
        if self.begun > 1:
            self.advance()
        if self.bar is not None:
            self.bar.set_postfix_str(name)
        elif self._line_is_due():
            line = f"overfit-check: {self.done} of {self.total} checks done, now {name}"
            print(line, file=sys.stderr, flush=True)
