"""The data as the net gets them: values, statistics, loaders, leakage."""

import numpy as np
import torch

from src.checks.context import Context, draw
from src.checks.report import Check

BYTES = 120e6  # of items held in memory at once (choice)
ITEMS = 1200  # of training items looked at, and half as many for validation (choice)
FLAT = 1e-3  # standard deviation within a picture below which it is empty
RAW = 20.0  # an input beyond so many standard deviations was never normalised


def spread_indices(total: int, count: int) -> list[int]:
    """`count` of `total` indices, a fixed random choice in increasing order."""
    if total <= count:
        return list(range(total))
    order = np.random.default_rng(0).permutation(total)[:count]
    return sorted(int(index) for index in order)


def look(ctx: Context) -> None:
    """Draw the items that all checks share."""
    setup = ctx.fresh()
    for name, data in (("train_data", setup.train_data), ("val_data", setup.val_data)):
        if data is None:
            continue
        first = draw(data, [0], name)
        size = first.x.nbytes
        limit = int(max(16, min(ITEMS if name == "train_data" else ITEMS // 2, BYTES / size)))
        sample = draw(data, spread_indices(len(data), limit), name)
        setattr(ctx, "train_sample" if name == "train_data" else "val_sample", sample)
        if name == "train_data":
            again = draw(data, sample.indices[:16], name)
            ctx.deterministic_train = bool(torch.equal(again.x, sample.x[: len(again)]))


def check_values(ctx: Context) -> list[Check]:
    """Finite, normalised, not empty, not all the same."""
    found = []
    for name, sample in (("train", ctx.train_sample), ("val", ctx.val_sample)):
        if sample is None:
            continue
        x = sample.x.reshape(len(sample), -1)
        bad = float((~x.isfinite().all(1)).float().mean())
        if bad:
            text = f"{bad:.1%} of the {name} items hold NaN or infinity"
            found.append(Check("input_finite", "fail", bad, 0.0, text, ["input_not_finite"]))
            continue
        top = float(x.abs().max())
        # Within a channel: an empty picture may still have a colour.
        planes = sample.x.flatten(2) if sample.x.ndim == 4 else x[:, None]
        contrast = planes.std(2).amax(1)
        flat = float((contrast < FLAT * max(1e-6, float(x.std()))).float().mean())
        distinct = len({row.numpy().tobytes() for row in x}) / len(x)
        if float(x.std()) < 0.02 * (1 + float(x.mean().abs())) and top > 0:
            text = f"{name} inputs have mean {float(x.mean()):.3g}, standard deviation " \
                   f"{float(x.std()):.2g}: next to no contrast"  # fmt: skip
            found.append(Check("input_scale", "fail", float(x.std()), 0.02, text,
                               ["input_not_normalised", "blank_images"]))  # fmt: skip
        if top > RAW and float(x.std()) > 5 and ctx.declared.mean is None:
            text = f"{name} inputs reach {top:.4g} with standard deviation {float(x.std()):.3g}"
            found.append(Check("input_scale", "fail", top, RAW, text, ["input_not_normalised"]))
        if flat > 0.2:
            text = f"{flat:.0%} of the {name} items are empty"
            causes = ["blank_images", "augmentation_destroys_label"]
            if name == "train" and not ctx.deterministic_train:
                causes.reverse()
            found.append(Check("input_blank", "fail", flat, 0.2, text, causes))
        elif distinct < 0.5 and len(x) >= 8:
            text = f"only {distinct:.0%} of the {name} items differ from each other"
            found.append(Check("input_distinct", "fail", distinct, 0.5, text, ["duplicates"]))
        elif distinct < 0.9 and len(x) >= 50:
            text = f"only {distinct:.0%} of the {name} items differ from each other"
            found.append(Check("input_distinct", "warn", distinct, 0.9, text, ["duplicates"]))
    if not found:
        found.append(Check("input_values", "pass", None, None, "inputs are finite and differ"))
    return found
