"""The values of the inputs as the net gets them: finite, not empty, different."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from src.checks.context import Context, Sample, draw
from src.checks.reading import rows_as_bytes
from src.checks.report import Check, fail, finding, ok

BYTES = 120e6  # of items held in memory at once (choice)
ITEMS = 1200  # of training items looked at, and half as many for validation (choice)
FLAT = 1e-3  # standard deviation within an image below which it is empty
RAW = 20.0  # an input beyond so many standard deviations was never normalised


def draw_samples(ctx: Context) -> None:
    """Draw the items that all checks share, a fixed random choice in increasing order."""
    setup = ctx.fresh()

    def sample_of(data: Any, name: str, most: int) -> Sample:
        limit = int(max(16, min(most, BYTES / draw(data, [0], name).x.nbytes)))
        order = np.random.default_rng(0).permutation(len(data))[:limit]
        return draw(data, sorted(order.tolist()), name)

    ctx.train_sample = sample = sample_of(setup.train_data, "train_data", ITEMS)
    again = draw(setup.train_data, sample.indices[:16], "train_data")
    ctx.deterministic_train = torch.equal(again.x, sample.x[: len(again)])
    if setup.val_data is not None:
        ctx.val_sample = sample_of(setup.val_data, "val_data", ITEMS // 2)


def check_values(ctx: Context) -> list[Check]:
    """Finite, normalised, not empty, not all the same."""
    found = [check for name, sample in ctx.samples() for check in _values_of(ctx, name, sample)]
    return found or [ok("input_values", None, None, "inputs are finite and differ")]


def _values_of(ctx: Context, name: str, sample: Sample) -> Iterator[Check]:
    x = sample.x.reshape(len(sample), -1)
    bad = float((~x.isfinite().all(1)).float().mean())
    if bad:
        text = f"{bad:.1%} of the {name} items hold NaN or infinity"
        yield fail("input_finite", bad, 0.0, text, "input_not_finite")
        return
    top, mean, deviation = float(x.abs().max()), float(x.mean()), float(x.std())
    # Within a channel: an empty image may still have a colour.
    planes = sample.x.flatten(2) if sample.x.ndim == 4 else x[:, None]
    flat = float((planes.std(2).amax(1) < FLAT * max(1e-6, deviation)).float().mean())
    distinct = len(set(rows_as_bytes(x))) / len(x)
    if deviation < 0.02 * (1 + abs(mean)) and top > 0:
        text = f"{name} inputs have mean {mean:.3g}, standard deviation {deviation:.2g}"
        causes = ["input_not_normalised", "blank_images"]
        yield fail("input_scale", deviation, 0.02, f"{text}: next to no contrast", *causes)
    if top > RAW and deviation > 5 and ctx.declared.mean is None:
        text = f"{name} inputs reach {top:.4g} with standard deviation {deviation:.3g}"
        yield fail("input_scale", top, RAW, text, "input_not_normalised")
    if flat > 0.2:
        causes = ["blank_images", "augmentation_destroys_label"]
        if name == "train" and not ctx.deterministic_train:
            causes.reverse()
        yield fail("input_blank", flat, 0.2, f"{flat:.0%} of the {name} items are empty", *causes)
        return
    for status, limit, least in (("fail", 0.5, 8), ("warn", 0.9, 50)):
        if distinct < limit and len(x) >= least:
            text = f"only {distinct:.0%} of the {name} items differ from each other"
            yield finding(status, "input_distinct", distinct, limit, text, "duplicates")
            return
