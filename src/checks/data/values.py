"""The inputs as the net gets them: finite, varied, normalised alike and as declared, no leaks."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from src.checks.context import Context, Sample, draw
from src.checks.reading import rows_as_bytes
from src.checks.report import Check, fail, finding, ok, warn

BYTES = 120e6  # of items held in memory at once (choice)
ITEMS = 1200  # of training items looked at, and half as many for validation (choice)
FLAT = 1e-3  # standard deviation within an image below which it is empty
RAW = 20.0  # an input beyond so many standard deviations was never normalised
MEAN_FAIL, MEAN_WARN = 0.8, 0.5  # of a standard deviation, between training and validation
STD_FAIL, STD_WARN = 2.0, 1.6
DIGITS, NEAR = 1e-4, 0.02  # of the range 0..1: exactly at its ends, and about there
OWN_MEAN, OWN_STD = 0.5, (0.5, 2.0)  # of inputs normalised by numbers of their own (choice)
FAR = 10.0  # standard deviations from 0: images in 0..1 or 0..255 are at 2 to 4 (choice)
CLOSE, CLOSE_SHARE = 0.08, 0.1  # rms difference, of the image's deviation; share of val
LEAK_FAIL, LEAK_WARN = 0.02, 0.005  # of the validation items; real sets hold a few duplicates
OTHER = "normalised_with_other_statistics"


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


def check_statistics(ctx: Context) -> list[Check]:
    """Training against validation inputs, and both against the declared mean and std."""
    return [_train_against_val(ctx), *_against_declared(ctx)]


def _moments(sample: Sample) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation per channel (or of all, where there are no channels)."""
    x = sample.x
    x = x.reshape(len(x), x.shape[1] if x.ndim == 4 and x.shape[1] <= 4 else 1, -1)
    return x.mean((0, 2)), x.std((0, 2))


def _train_against_val(ctx: Context) -> Check:
    id = "input_statistics"
    fine = ok(id, None, None, "train and val inputs agree")
    (mean, std), *others = [_moments(sample) for _, sample in ctx.samples()]
    if not others or mean.shape != others[0][0].shape:
        return fine
    val_mean, val_std = others[0]
    scale = torch.maximum(std, val_std).clamp_min(1e-6)
    shift = float(((mean - val_mean).abs() / scale).max())
    ratio = float((std / val_std.clamp_min(1e-6)).log().abs().max().exp())
    reverse = float(((mean - val_mean.flip(0)).abs() / scale).max())
    text = f"train and val inputs differ by {shift:.2f} sd in the mean, x {ratio:.2f} in the sd"
    cause = "train_val_preprocessing_differ"
    if len(mean) == 3 and shift > 0.15 and reverse < 0.3 * shift:
        return fail(id, shift, 0.15, text, "channels_reversed", cause)
    if shift > MEAN_FAIL or ratio > STD_FAIL:
        return fail(id, shift, MEAN_FAIL, text, cause, "input_not_normalised")
    if shift > MEAN_WARN or ratio > STD_WARN:
        return warn(id, shift, MEAN_WARN, text, cause, "augmentation_destroys_label")
    return fine


def _against_declared(ctx: Context) -> list[Check]:
    """Undo the declared normalisation: images must come out in 0..1, on the grid of bytes."""
    declared, x = ctx.declared, (ctx.val_sample or ctx.sample).x[:256]
    if declared.mean is None or declared.std is None or x.ndim != 4:
        return []
    channels = x.shape[1]
    mean, std = torch.tensor(declared.mean), torch.tensor(declared.std)
    each = len(mean) == len(std) == channels
    if not each and not len(mean) == len(std) == 1:
        return []
    found = _undone(x, mean.expand(channels), std.expand(channels))
    return [*(_order_of_channels(x, mean, std) if each and found.status == "pass" else []), found]


def _undone(x: Tensor, mean: Tensor, std: Tensor) -> Check:
    """Where the inputs lie, as they are and with the declared normalisation undone."""
    id, raw = "normalisation", "input_not_normalised"
    restored = x * std.view(1, -1, 1, 1) + mean.view(1, -1, 1, 1)
    low, high, contrast = float(restored.min()), float(restored.max()), float(restored.std())
    text = f"with the declared mean and std undone, val inputs lie in {low:.2f}..{high:.2f}"
    if high > 30:
        return fail(id, high, 1.1, text, raw)
    far = float((x.mean((0, 2, 3)).abs() / x.std((0, 2, 3)).clamp_min(1e-6)).max())
    if far > FAR:
        text = f"the mean of the inputs lies {far:.0f} standard deviations from 0"
        return fail(id, far, FAR, text, raw, OTHER)
    least, most = float(x.min()), float(x.max())
    plain = most <= 1 + 1e-6 or float(x.mean()) > 0.5 * float((mean / std).mean())
    if least >= -1e-6 and plain and float(mean.min()) > 0.02:
        text = f"val inputs lie in {least:.2f}..{most:.2f}: the declared mean was not taken off"
        return fail(id, least, 0.0, text, raw)
    dull = high - low < 0.35 and contrast < 0.05
    if dull and _by_own_numbers(x):
        text += ": they use little of their range, and are normalised by numbers of their own"
        return ok(id, contrast, 0.05, text)
    step = _byte_step(x)
    if step is not None:
        return _on_bytes(restored, 1 / (255 * step), std, text)
    if low < -0.6 or high > 1.6:
        return fail(id, max(-low, high - 1), 0.6, text, "normalised_twice", OTHER)
    if dull:
        status, text = "fail" if contrast < 0.02 else "warn", f"{text}: next to no contrast"
        return finding(status, id, contrast, 0.05, text, OTHER, raw)
    return ok(id, max(-low, high - 1), 0.6, text)


def _on_bytes(restored: Tensor, used: Tensor, std: Tensor, text: str) -> Check:
    """Of inputs that were bytes: the std that was `used`, against the declared one."""
    id, low, high = "normalisation", float(restored.min()), float(restored.max())
    off = float((used / std).log().abs().max().exp())
    if off > 1.02:
        shown, wanted = (", ".join(f"{v:.3f}" for v in part.tolist()) for part in (used, std))
        text = f"val inputs are bytes divided by 255 and {shown}; the declared std is {wanted}"
        causes = [OTHER, "normalised_twice"]
        if low < -0.15 or high > 1.15:
            causes.reverse()
        if len(used) == 3 and float((used.flip(0) / std).log().abs().max().exp()) < 1.02:
            causes = ["channels_reversed", causes[0]]
        return fail(id, off, 1.02, text, *causes)
    rest = (restored * 255 - (restored * 255).round()).abs().mean()
    if low < -0.02 or high > 1.02 or float(rest) > 0.1:
        text += ", off the grid of bytes"
        return fail(id, max(-low, high - 1), 0.02, text, OTHER, "channels_reversed")
    return ok(id, off, 1.02, f"{text}, exactly on bytes")


def _by_own_numbers(x: Tensor) -> bool:
    """Whether each channel has mean near 0 and deviation near 1, as low-contrast images (fog,
    thermal, microscopy) have only when normalised by their own statistics."""
    mean, std = x.mean((0, 2, 3)).abs(), x.std((0, 2, 3))
    low, high = OWN_STD
    return bool((mean < OWN_MEAN).all() and (std > low).all() and (std < high).all())


def _byte_step(x: Tensor) -> Tensor | None:
    """The distance of neighbouring values per channel, where all lie on a grid of at most 256."""
    steps = []
    for channel in x.unbind(1):
        values = torch.unique((channel.double() * 1e5).round() / 1e5)
        if not 60 <= len(values) <= 256:
            return None
        gaps = values.diff()
        if not bool((gaps > 2e-4).any()):
            return None
        counts = gaps / gaps[gaps > 2e-4].min()
        whole = counts.round()
        # Other grids are not bytes for certain.
        if float((counts - whole).abs().max()) > 0.05 or not 200 < float(whole.sum()) <= 255:
            return None
        steps.append(float(values[-1] - values[0]) / float(whole.sum()))
    return torch.tensor(steps)


def _order_of_channels(x: Tensor, mean: Tensor, std: Tensor) -> list[Check]:
    """Declared statistics that are those of these data tell the order of the channels: normalised
    means are near 0 in the right order, and at predicted places in the reverse one."""
    found = _exchanged(x, mean, std)
    if found or len(mean) != 3:
        return found
    measured = x.mean((0, 2, 3))
    predicted = (mean.flip(0) - mean) / std
    top, off = float(measured.abs().max()), float((measured - predicted).abs().max())
    if float(predicted.abs().max()) > 0.2 and off < 0.25 * top:
        text = "the means of the channels fit the declared ones in reverse order"
        return [warn("channels", top, 0.2, text, "channels_reversed", OTHER)]
    return []


def _exchanged(x: Tensor, mean: Tensor, std: Tensor) -> list[Check]:
    """Normalised by the declared numbers in another way, which shows where images reach black or
    white: undone in that way, the extremes of all channels are 0 or 1 to the last digits."""
    low, high = x.amin((0, 2, 3)), x.amax((0, 2, 3))
    if _reaches(low * std + mean, high * std + mean, NEAR):
        return []
    ways = {
        "mean and std taken for each other": (std, mean),
        "the mean taken off and not divided by the std": (mean, torch.ones_like(std)),
    }
    for way, (minus, divisor) in ways.items():
        if bool((divisor - std).abs().max() < 0.02):
            continue
        if _reaches(low * divisor + minus, high * divisor + minus, DIGITS):
            text = f"the inputs are images in 0..1 exactly with {way}"
            return [warn("normalisation", None, None, text, OTHER)]
    off = torch.cat([x.mean((0, 2, 3)) - (mean - std) / mean, x.std((0, 2, 3)) - std / mean])
    usual = torch.cat([x.mean((0, 2, 3)), x.std((0, 2, 3)) - 1]).abs().max()
    usable = bool((mean > 0).all()) and float((mean - std).abs().max()) >= 0.03
    if usable and float(off.abs().max()) < 0.05 and float(usual) > 0.15:
        text = "the moments of the inputs fit the declared mean and std, taken for each other"
        return [warn("normalisation", float(usual), 0.15, text, OTHER)]
    return []


def _reaches(low: Tensor, high: Tensor, within: float) -> bool:
    """Whether all channels reach 0 or all reach 1; of one or two channels, both."""
    if float(low.min()) < -within or float(high.max()) > 1 + within:
        return False
    black, white = bool((low.abs() < within).all()), bool(((high - 1).abs() < within).all())
    return black or white if len(low) > 2 else black and white


def check_leakage(ctx: Context) -> list[Check]:
    """Validation images that are training images, up to a shift and a mirror image."""
    train, val, id = ctx.sample, ctx.val_sample, "leakage"
    if val is None or train.x.shape[1:] != val.x.shape[1:]:
        return []
    exact = set(rows_as_bytes(train.x.reshape(len(train), -1)))
    same = float(np.mean([row in exact for row in rows_as_bytes(val.x.reshape(len(val), -1))]))
    near = 0.0
    if train.x.ndim == 4:
        shifted, near = _shifted_share(train.x, val.x)
        same = max(same, shifted)
    # Only a part of the training set was looked at: the share is higher in all of it.
    same = min(1.0, same * train.total / len(train))
    text = f"{same:.1%} of the validation images are in the training set"
    if same > LEAK_FAIL:
        return [fail(id, same, LEAK_FAIL, text, "train_val_leakage")]
    if same > LEAK_WARN:
        return [warn(id, same, LEAK_WARN, text, "train_val_leakage", "duplicates")]
    if near > CLOSE_SHARE:
        text = f"{near:.0%} of the validation images are next to equal to training images"
        return [warn(id, near, CLOSE_SHARE, text, "train_val_leakage", "duplicates")]
    return [ok(id, same, LEAK_FAIL, text)]


def _shifted_share(train: Tensor, val: Tensor, count: int = 100) -> tuple[float, float]:
    """Shares of val images whose middle occurs in a training image: value for value, and nearly."""
    val = val[torch.linspace(0, len(val) - 1, min(count, len(val))).long()]
    height, width = val.shape[2:]
    margin = max(1, min(height, width) // 8)
    middle = val[:, :, margin : height - margin, margin : width - margin]
    alive = middle.reshape(len(val), -1).std(1) > 0.1 * float(val.std())
    small = functional.adaptive_avg_pool2d(train, 8).reshape(len(train), -1)
    found = torch.zeros(len(val), dtype=torch.bool)
    near = torch.zeros(len(val), dtype=torch.bool)
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
            difference = (patches - wanted[number][None, :, None, None]).abs()
            found[number] = bool((difference.amax((1, 4, 5)) < 1e-3).any())
            size = difference.square().mean((1, 4, 5)).sqrt().min()
            near[number] |= bool(size < CLOSE * wanted[number].std())
    return float(found.float().mean()), float((near | found).float().mean())
