"""The data as the net gets them: values, statistics, loaders, leakage."""

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from src.checks.context import Context, Sample, draw, labels_of, split_batch, to_tensor
from src.checks.report import Check

BYTES = 120e6  # of items held in memory at once (choice)
ITEMS = 1200  # of training items looked at, and half as many for validation (choice)
FLAT = 1e-3  # standard deviation within a picture below which it is empty
RAW = 20.0  # an input beyond so many standard deviations was never normalised
MEAN_FAIL, MEAN_WARN = 0.8, 0.5  # of a standard deviation, between training and validation
STD_FAIL, STD_WARN = 2.0, 1.6
LEAK_FAIL, LEAK_WARN = 0.02, 0.005  # of the validation items; real sets hold a few duplicates


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
        flat = float((x.std(1) < FLAT * max(1e-6, float(x.std()))).float().mean())
        distinct = len({row.numpy().tobytes() for row in x}) / len(x)
        if float(x.std()) < 0.02 * (1 + float(x.mean().abs())) and top > 0:
            text = f"{name} inputs have mean {float(x.mean()):.3g}, standard deviation " \
                   f"{float(x.std()):.2g}: next to no contrast"  # fmt: skip
            found.append(Check("input_scale", "fail", float(x.std()), 0.02, text,
                               ["input_not_normalised", "blank_images"]))  # fmt: skip
        if top > RAW and float(x.std()) > 5:
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


def _moments(sample: Sample) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation per channel (or of all, where there are no channels)."""
    x = sample.x
    x = x.reshape(len(x), x.shape[1] if x.ndim == 4 and x.shape[1] <= 4 else 1, -1)
    return x.mean((0, 2)), x.std((0, 2))


def check_statistics(ctx: Context) -> list[Check]:
    """Training against validation inputs, and both against the declared mean and std."""
    if ctx.train_sample is None:
        return []
    found = []
    mean, std = _moments(ctx.train_sample)
    if ctx.val_sample is not None and mean.shape == _moments(ctx.val_sample)[0].shape:
        val_mean, val_std = _moments(ctx.val_sample)
        scale = torch.maximum(std, val_std).clamp_min(1e-6)
        shift = float(((mean - val_mean).abs() / scale).max())
        ratio = float((std / val_std.clamp_min(1e-6)).log().abs().max().exp())
        reverse = float(((mean - val_mean.flip(0)).abs() / scale).max())
        text = f"train and val inputs differ by {shift:.2f} sd in the mean, x {ratio:.2f} in the sd"
        causes = ["train_val_preprocessing_differ"]
        if len(mean) == 3 and shift > 0.15 and reverse < 0.3 * shift:
            found.append(Check("input_statistics", "fail", shift, 0.15, text,
                               ["channels_reversed", *causes]))  # fmt: skip
        elif shift > MEAN_FAIL or ratio > STD_FAIL:
            found.append(Check("input_statistics", "fail", shift, MEAN_FAIL, text,
                               [*causes, "input_not_normalised"]))  # fmt: skip
        elif shift > MEAN_WARN or ratio > STD_WARN:
            found.append(Check("input_statistics", "warn", shift, MEAN_WARN, text,
                               [*causes, "augmentation_destroys_label"]))  # fmt: skip
    if not found:
        found.append(Check("input_statistics", "pass", None, None, "train and val inputs agree"))
    return found + _declared(ctx)


def _declared(ctx: Context) -> list[Check]:
    """Undo the declared normalisation: pictures must come out in 0..1, on the grid of bytes."""
    declared, sample = ctx.declared, ctx.val_sample or ctx.train_sample
    if declared.mean is None or declared.std is None or sample is None or sample.x.ndim != 4:
        return []
    channels = sample.x.shape[1]
    mean, std = torch.tensor(declared.mean), torch.tensor(declared.std)
    if len(mean) != channels or len(std) != channels:
        if len(mean) != 1 or len(std) != 1:
            return []
        mean, std = mean.expand(channels), std.expand(channels)
    id = "normalisation"
    x = sample.x[:256]
    restored = x * std.view(1, -1, 1, 1) + mean.view(1, -1, 1, 1)
    low, high = float(restored.min()), float(restored.max())
    text = f"with the declared mean and std undone, val inputs lie in {low:.2f}..{high:.2f}"
    own_low, own_high = float(x.min()), float(x.max())
    if high > 30:
        return [Check(id, "fail", high, 1.1, text, ["input_not_normalised"])]
    if own_low >= -1e-6 and own_high <= 1 + 1e-6 and float(mean.min()) > 0.02:
        text = f"val inputs lie in {own_low:.2f}..{own_high:.2f}: the declared mean was not taken off"
        return [Check(id, "fail", own_low, 0.0, text, ["input_not_normalised"])]
    step = _byte_step(x, channels)
    if step is not None:
        used = 1 / (255 * step)
        off = float((used / std).log().abs().max().exp())
        shown = ", ".join(f"{value:.3f}" for value in used.tolist())
        wanted = ", ".join(f"{value:.3f}" for value in std.tolist())
        if off > 1.02:
            text = f"val inputs are bytes divided by 255 and {shown}; the declared std is {wanted}"
            causes = ["normalised_with_other_statistics", "normalised_twice"]
            if low < -0.15 or high > 1.15:
                causes.reverse()
            if channels == 3 and float((used.flip(0) / std).log().abs().max().exp()) < 1.02:
                causes = ["channels_reversed", causes[0]]
            return [Check(id, "fail", off, 1.02, text, causes)]
        rest = (restored * 255 - (restored * 255).round()).abs().mean()
        if low < -0.02 or high > 1.02 or float(rest) > 0.1:
            return [Check(id, "fail", max(-low, high - 1), 0.02, text + ", off the grid of bytes",
                          ["normalised_with_other_statistics", "channels_reversed"])]  # fmt: skip
        return [*_reversed(ctx, x), Check(id, "pass", off, 1.02, text + ", exactly on bytes")]
    if low < -0.6 or high > 1.6:
        return [Check(id, "fail", max(-low, high - 1), 0.6, text,
                      ["normalised_twice", "normalised_with_other_statistics"])]  # fmt: skip
    if high - low < 0.35 and float(restored.std()) < 0.05:
        return [Check(id, "warn", high - low, 0.35, text,
                      ["normalised_with_other_statistics", "input_not_normalised"])]  # fmt: skip
    return [*_reversed(ctx, x), Check(id, "pass", max(-low, high - 1), 0.6, text)]


def _byte_step(x: Tensor, channels: int) -> Tensor | None:
    """The distance of neighbouring values per channel, where all lie on a grid of at most 256."""
    steps = []
    for channel in range(channels):
        values = torch.unique((x[:, channel].double() * 1e5).round() / 1e5)
        if not 60 <= len(values) <= 256:
            return None
        gaps = values.diff()
        step = float(gaps[gaps > 2e-4].min()) if bool((gaps > 2e-4).any()) else 0.0
        if not step:
            return None
        counts = gaps / step
        if float((counts - counts.round()).abs().max()) > 0.05:
            return None
        if not 200 < float(counts.round().sum()) <= 255:  # other grids are not bytes for certain
            return None
        steps.append(float(values[-1] - values[0]) / float(counts.round().sum()))
    return torch.tensor(steps)


def _reversed(ctx: Context, x: Tensor) -> list[Check]:
    """Declared statistics that are those of these data tell the order of the channels: normalised
    means are near 0 in the right order, and at predicted places in the reverse one."""
    declared = ctx.declared
    if x.shape[1] != 3 or declared.mean is None or declared.std is None or len(declared.mean) != 3:
        return []
    mean, std = torch.tensor(declared.mean), torch.tensor(declared.std)
    measured = x.mean((0, 2, 3))
    predicted = (mean.flip(0) - mean) / std
    if float(predicted.abs().max()) > 0.2 and float((measured - predicted).abs().max()) < 0.25 * \
            float(measured.abs().max()):  # fmt: skip
        text = "the means of the channels fit the declared ones in reverse order"
        return [Check("channels", "warn", float(measured.abs().max()), 0.2, text,
                      ["channels_reversed", "normalised_with_other_statistics"])]  # fmt: skip
    return []


def check_leakage(ctx: Context) -> list[Check]:
    """Validation pictures that are training pictures, up to a shift and a mirror image."""
    train, val = ctx.train_sample, ctx.val_sample
    if train is None or val is None or train.x.shape[1:] != val.x.shape[1:]:
        return []
    exact = {row.numpy().tobytes() for row in train.x.reshape(len(train), -1)}
    hits = [row.numpy().tobytes() in exact for row in val.x.reshape(len(val), -1)]
    same = float(np.mean(hits))
    if train.x.ndim == 4 and not ctx.deterministic_train:
        same = max(same, _shifted_share(train.x, val.x))
    # Only a part of the training set was looked at: the share is higher in all of it.
    same = min(1.0, same * train.total / len(train))
    text = f"{same:.1%} of the validation pictures are in the training set"
    if same > LEAK_FAIL:
        return [Check("leakage", "fail", same, LEAK_FAIL, text, ["train_val_leakage"])]
    if same > LEAK_WARN:
        return [Check("leakage", "warn", same, LEAK_WARN, text,
                      ["train_val_leakage", "duplicates"])]  # fmt: skip
    return [Check("leakage", "pass", same, LEAK_FAIL, text)]


def _shifted_share(train: Tensor, val: Tensor, count: int = 150) -> float:
    """The share of val pictures whose middle occurs in a training picture, value for value."""
    import torch.nn.functional as functional

    val = val[torch.linspace(0, len(val) - 1, min(count, len(val))).long()]
    height, width = val.shape[2:]
    margin = max(1, min(height, width) // 8)
    middle = val[:, :, margin : height - margin, margin : width - margin]
    alive = middle.reshape(len(val), -1).std(1) > 0.1 * float(val.std())
    small = functional.adaptive_avg_pool2d(train, 8).reshape(len(train), -1)
    found = torch.zeros(len(val), dtype=torch.bool)
    for mirrored in (False, True):
        wanted = middle.flip(3) if mirrored else middle
        whole = val.flip(3) if mirrored else val
        close = torch.cdist(functional.adaptive_avg_pool2d(whole, 8).reshape(len(val), -1), small)
        nearest = close.topk(min(5, len(train)), largest=False).indices
        for number in range(len(val)):
            if found[number] or not alive[number]:
                continue
            patches = train[nearest[number]].unfold(2, middle.shape[2], 1)
            patches = patches.unfold(3, middle.shape[3], 1)
            difference = (patches - wanted[number][None, :, None, None]).abs().amax((1, 4, 5))
            found[number] = bool((difference < 1e-3).any())
    return float(found.float().mean())


def check_loaders(ctx: Context) -> list[Check]:
    """What the loaders give against what the data sets hold: how much, in which order, paired how."""
    setup = ctx.fresh()
    found = []
    first = _labels_of_pass(setup.train_loader)
    second = _labels_of_pass(setup.train_loader)
    if first is not None and setup.train_data is not None:
        found += _coverage(ctx, first, second, len(setup.train_data), setup.train_loader)
    if setup.val_loader is not None and setup.val_data is not None:
        found += _pairs(ctx, setup)
    return found or [Check("loader", "pass", None, None, "no loader to compare")]


PASS_LIMIT = 20_000  # items of a loader that are read through (choice)


def _labels_of_pass(loader: Any) -> list[Tensor] | None:
    """Labels of each batch of an epoch; None where it is too long to read."""
    batches, count = [], 0
    for batch in loader:
        labels = labels_of(split_batch(batch)[1])
        batches.append(labels)
        count += len(labels)
        if count > PASS_LIMIT:
            return None
    return batches


def _coverage(
    ctx: Context, first: list[Tensor], second: list[Tensor] | None, total: int, loader: Any
) -> list[Check]:
    found = []
    count = sum(map(len, first))
    share = count / max(1, total)
    biggest = max(map(len, first), default=0)
    text = f"an epoch has {count} of {total} training items in {len(first)} batches"
    if total - count >= biggest and share < 0.9:
        found.append(Check("loader_coverage", "fail", share, 0.9, text,
                           ["loader_incomplete", "loader_of_other_data"]))  # fmt: skip
    elif share > 1.5:
        found.append(Check("loader_coverage", "warn", share, 1.5, text,
                           ["loader_repeats", "loader_of_other_data"]))  # fmt: skip
    else:
        found.append(Check("loader_coverage", "pass", share, 0.9, text))
    full = [labels for labels in first if len(labels) == biggest]
    everything = torch.cat(first)
    kinds = np.mean([len(labels.unique()) for labels in full])
    shares = torch.bincount(everything.clamp_min(0)).float() / len(everything)
    expected = float((1 - (1 - shares) ** biggest).sum())
    soft = ctx.soft
    text = f"batches hold {kinds:.1f} classes, {expected:.1f} by chance"
    same = second is not None and len(first) > 1 and len(first) == len(second) and all(
        torch.equal(a, b) for a, b in zip(first, second, strict=True))  # fmt: skip
    if kinds < 0.6 * expected and expected > 1.3:
        found.append(Check("loader_order", "fail", float(kinds), 0.6 * expected, text,
                           ["loader_sorted", "loader_not_shuffled"]))  # fmt: skip
    elif same and not soft and len(everything.unique()) > 1 and not isinstance(loader, list | tuple):
        text = "two epochs have the same order"
        found.append(Check("loader_order", "warn", 1.0, 0.0, text, ["loader_not_shuffled"]))
    else:
        found.append(Check("loader_order", "pass", float(kinds), 0.6 * expected, text))
    norms = any(isinstance(m, torch.nn.modules.batchnorm._BatchNorm)
                for m in ctx.fresh().model.modules())  # fmt: skip
    smallest = min(map(len, first))
    if norms and (biggest < 4 or smallest < 2):
        text = f"batches of {smallest} to {biggest} are too small for BatchNorm"
        found.append(Check("batch_size", "warn", float(smallest), 4.0, text, ["batch_too_small"]))
    return found


def _pairs(ctx: Context, setup: Any) -> list[Check]:
    """Each (picture, label) of the loaders is an item of its data set; exactly, where the data set
    gives the same picture each time."""
    found = []
    plans = [("val", setup.val_loader, setup.val_data, ctx.val_sample)]
    if ctx.deterministic_train:
        plans.append(("train", setup.train_loader, setup.train_data, ctx.train_sample))
    for name, loader, data, sample in plans:
        if sample is None:
            continue
        known = {row.numpy().tobytes(): int(y) for row, y in zip(sample.x, sample.y, strict=True)}
        count = paired = matched = 0
        for batch in loader:
            x, targets = split_batch(batch)
            labels, rows = labels_of(targets), to_tensor(x).detach().cpu().float()
            count += len(labels)
            for row, label in zip(rows, labels, strict=True):
                own = known.get(row.numpy().tobytes())
                matched += own is not None
                paired += own is not None and own == int(label)
            if count > PASS_LIMIT:
                break
        whole = len(sample) == sample.total
        if name == "val" and count != len(data) and count <= PASS_LIMIT:
            text = f"the val loader gives {count} of {len(data)} items"
            found.append(Check("val_loader", "fail", count / len(data), 1.0, text,
                               ["loader_incomplete", "loader_of_other_data"]))  # fmt: skip
        if matched and paired < 0.98 * matched:
            text = f"only {paired / matched:.0%} of the {name} loader's pictures have their own label"
            found.append(Check("loader_pairs", "fail", paired / matched, 0.98, text,
                               ["loader_misaligned", "labels_shuffled"]))  # fmt: skip
        elif whole and name == "val" and not matched and _repeatable(data, sample):
            text = "none of the val loader's pictures is an item of val_data"
            found.append(Check("val_loader", "warn", 0.0, 0.9, text,
                               ["loader_of_other_data", "train_val_preprocessing_differ"]))  # fmt: skip
    return found or [Check("loader_pairs", "pass", 1.0, 0.98, "pictures come with their labels")]


def _repeatable(data: Any, sample: Sample) -> bool:
    again = draw(data, sample.indices[:8], "val_data")
    return bool(torch.equal(again.x, sample.x[: len(again)]))


def check_val_random(ctx: Context) -> list[Check]:
    """Validation pictures are the same each time: no augmentation there."""
    setup = ctx.fresh()
    if ctx.val_sample is None or _repeatable(setup.val_data, ctx.val_sample):
        return []
    text = "validation pictures differ from call to call: is the training's augmentation on?"
    return [Check("val_random", "warn", 1.0, 0.0, text,
                  ["train_val_preprocessing_differ", "eval_not_deterministic"])]  # fmt: skip


def check_workers(ctx: Context) -> list[Check]:
    """Random draws of several worker processes differ, where those of one process do."""
    setup = ctx.fresh()
    loader = setup.train_loader
    workers = getattr(loader, "num_workers", 0)
    if workers < 1 or ctx.deterministic_train or setup.train_data is None:
        return []
    count = 2 * max(2, workers)
    probe = torch.utils.data.DataLoader(
        setup.train_data, batch_size=1, sampler=[0] * count, num_workers=max(2, workers),
        worker_init_fn=getattr(loader, "worker_init_fn", None),
        collate_fn=lambda items: items,
    )  # fmt: skip
    draws = []
    for _ in range(2):
        draws += [to_tensor(split_batch(items[0])[0]).float().numpy().tobytes() for items in probe]
    inside = len({to_tensor(split_batch(setup.train_data[0])[0]).float().numpy().tobytes()
                  for _ in range(count)}) / count  # fmt: skip
    distinct = len(set(draws)) / len(draws)
    text = f"{distinct:.0%} of the draws of {max(2, workers)} workers differ"
    if distinct <= 0.55 and inside > 0.8 and not math.isnan(distinct):
        return [Check("workers", "fail", distinct, 0.55, text, ["worker_seeds_equal"])]
    return [Check("workers", "pass", distinct, 0.55, text)]
