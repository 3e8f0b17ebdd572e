"""Is what the zoo calls healthy healthy? `python -m tests.zoo.known.verify_healthy [NAME ...]`
trains the bases, the harmless changes and the healthy set-ups with plain code and prints what they
learn."""

import math
import sys
from collections.abc import Iterator
from typing import Any

import torch

from tests.zoo.known.complete_setup import TrainingSetup

STEPS = 400  # micro-batches: enough for all of them


def endless(loader: Any) -> Iterator[Any]:
    """Epoch after epoch."""
    while True:
        yield from loader


def learn(setup: TrainingSetup, steps: int) -> tuple[float, float]:
    """Train for so many micro-batches, at most as many as are declared. Gives training accuracy (on
    8 batches) and validation accuracy."""
    steps = min(steps, setup.declared["total_steps"] * setup.declared["accumulate"])
    for _, batch in zip(range(steps), endless(setup.train_loader), strict=False):
        setup.train_step(setup, batch)
    loader = [batch for batch, _ in zip(setup.train_loader, range(8), strict=False)]
    train = setup.evaluate(setup, loader)["accuracy"]
    return train, setup.evaluate(setup, setup.val_loader)["accuracy"]


def guess(setup: TrainingSetup) -> float:
    """Validation accuracy of always naming the most frequent class, plus two standard errors."""
    labels = torch.tensor([int(label) for _, label in setup.val_data])
    share = torch.bincount(labels).max().item() / len(labels)
    return share + 2 * math.sqrt(share * (1 - share) / len(labels))


def main(names: list[str]) -> int:
    from tests.zoo.known.catalogue import everything_healthy

    torch.set_num_threads(1)
    weak = 0
    for name, factory in everything_healthy().items():
        if names and name not in names:
            continue
        setup = factory()
        train, val = learn(setup, STEPS)
        floor = guess(setup)
        healthy = val > floor or train > 0.9
        weak += not healthy
        mark = "ok  " if healthy else "WEAK"
        print(f"{mark} {name:<40} train {train:.2f}  val {val:.2f}  guess {floor:.2f}", flush=True)
    return 1 if weak else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
