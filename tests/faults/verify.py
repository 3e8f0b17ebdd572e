"""Is what the zoo calls healthy healthy? `python -m tests.faults.verify [NAME ...]` trains the bases,
the harmless changes and the healthy set-ups with plain code and prints what they learn."""

import math
import sys
import time
from collections.abc import Iterator
from typing import Any

import torch

from src.checks.setup import TrainingSetup


def endless(loader: Any) -> Iterator[Any]:
    """Epoch after epoch."""
    while True:
        yield from loader


def learn(setup: TrainingSetup, seconds: float, most: int = 2000) -> tuple[float, float, int]:
    """Train for a time, at most `most` micro-batches. Training accuracy (on 8 batches), validation
    accuracy, and the number of micro-batches."""
    started, step = time.perf_counter(), 0
    steps = setup.declared["total_steps"] * setup.declared["accumulate"]
    for step, batch in enumerate(endless(setup.train_loader), 1):
        setup.train_step(setup, batch)
        if time.perf_counter() - started > seconds or step >= min(most, steps):
            break
    loader = [batch for batch, _ in zip(setup.train_loader, range(8), strict=False)]
    return (
        setup.evaluate(setup, loader)["accuracy"],
        setup.evaluate(setup, setup.val_loader)["accuracy"],
        step,
    )


def guess(setup: TrainingSetup) -> float:
    """Validation accuracy of always naming the most frequent class, plus two standard errors."""
    labels = torch.tensor([int(label) for _, label in setup.val_data])
    share = torch.bincount(labels).max().item() / len(labels)
    return share + 2 * math.sqrt(share * (1 - share) / len(labels))


def main(names: list[str]) -> int:
    from tests.faults.catalogue import everything_healthy

    torch.set_num_threads(1)
    weak = 0
    for name, factory in everything_healthy().items():
        if names and name not in names:
            continue
        setup = factory()
        train, val, steps = learn(setup, 20)
        floor = guess(setup)
        healthy = val > floor or train > 0.9
        weak += not healthy
        mark = "ok  " if healthy else "WEAK"
        print(
            f"{mark} {name:<40} train {train:.2f}  val {val:.2f}  guess {floor:.2f}  {steps} steps",
            flush=True,
        )
    return 1 if weak else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
