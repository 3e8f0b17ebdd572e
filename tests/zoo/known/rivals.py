"""Simpler practices on the same set-ups: what each would have caught.

Each returns a line that says what it saw, or None. They see what the code itself reports, as a
person would who follows the advice.
"""

import math
from collections.abc import Callable
from typing import Any

import torch

from tests.zoo.known.complete_setup import Factory
from tests.zoo.known.verify_healthy import endless

OVERFIT_STEPS = 200  # micro-batches; healthy nets of this size need 5 to 100 (measured)
OVERFIT_ACCURACY = 0.95


def dry_run(factory: Factory) -> str | None:
    """Three optimizer steps, an evaluation, a checkpoint: does anything crash?"""
    try:
        setup = factory()
        steps = 3 * setup.declared.get("accumulate", 1)
        for _, batch in zip(range(steps), endless(_not_empty(setup.train_loader)), strict=False):
            setup.train_step(setup, batch)
        setup.evaluate(setup, setup.val_loader)
        fresh = factory()
        fresh.load(fresh, setup.save(setup))
    except Exception as error:
        return f"{type(error).__name__}: {error}"[:200]
    return None


def overfit_one_batch(factory: Factory) -> str | None:
    """Train on one batch again and again: does the reported loss fall to a tenth of its start (to a
    half where labels are smoothed or mixed), and the reported accuracy on it reach 0.95?"""
    try:
        setup = factory()
        batch = next(iter(_not_empty(setup.train_loader)))
        low = 0.1
        if setup.declared.get("label_smoothing") or setup.declared.get("mixup"):
            low = 0.5
        losses: list[float] = []
        accuracy = 0.0
        for step in range(OVERFIT_STEPS):
            losses.append(float(setup.train_step(setup, batch)["loss"]))
            if not math.isfinite(losses[-1]):
                return f"loss {losses[-1]} after {step + 1} steps"
            if step % 20 == 19:
                fallen = min(losses[-5:]) <= low * losses[0]
                accuracy = setup.evaluate(setup, [batch])["accuracy"]
                if fallen and accuracy >= OVERFIT_ACCURACY:
                    return None
    except Exception as error:
        return f"{type(error).__name__}: {error}"[:200]
    return f"loss {losses[0]:.3g} -> {losses[-1]:.3g}, accuracy {accuracy:.2f}"


def torchtest_like(factory: Factory) -> str | None:
    """After three optimizer steps (a warm-up may begin at 0): every trainable parameter has changed
    and no other, the output is finite, and it is not confined to 0..1."""
    try:
        setup = factory()
        start = {name: p.detach().clone() for name, p in setup.model.named_parameters()}
        batches = endless(_not_empty(setup.train_loader))
        batch = next(batches)
        for _ in range(3 * setup.declared.get("accumulate", 1)):
            setup.train_step(setup, batch)
            batch = next(batches)
        for name, p in setup.model.named_parameters():
            if torch.equal(start[name], p.detach()) == p.requires_grad:
                return f"{name} {'stays' if p.requires_grad else 'changes'}"
        with torch.no_grad():
            outputs = setup.model(batch[0])
        if not outputs.isfinite().all():
            return "the output is not finite"
        if outputs.min() >= 0 and outputs.max() <= 1:
            return "the output lies in 0..1"
    except Exception as error:
        return f"{type(error).__name__}: {error}"[:200]
    return None


def _not_empty(loader: Any) -> Any:
    if len(loader) == 0:
        raise ValueError("the loader gives no batch")
    return loader


RIVALS: dict[str, Callable[[Factory], str | None]] = {
    "dry_run": dry_run,
    "overfit_one_batch": overfit_one_batch,
    "torchtest_like": torchtest_like,
}
