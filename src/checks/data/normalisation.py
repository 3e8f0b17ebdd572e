"""Normalisation: train against val inputs, and both against the declared mean and std."""

import torch
from torch import Tensor

from src.checks.context import Context, Sample
from src.checks.report import Check

MEAN_FAIL, MEAN_WARN = 0.8, 0.5  # of a standard deviation, between training and validation
STD_FAIL, STD_WARN = 2.0, 1.6
DIGITS, NEAR = 1e-4, 0.02  # of the range 0..1: exactly at its ends, and about there
OWN_MEAN, OWN_STD = 0.5, (0.5, 2.0)  # of inputs normalised by numbers of their own (choice)
FAR = 10.0  # standard deviations from 0: pictures in 0..1 or 0..255 are at 2 to 4 (choice)


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
    far = float((x.mean((0, 2, 3)).abs() / x.std((0, 2, 3)).clamp_min(1e-6)).max())
    if far > FAR:
        text = f"the mean of the inputs lies {far:.0f} standard deviations from 0"
        causes = ["input_not_normalised", "normalised_with_other_statistics"]
        return [Check(id, "fail", far, FAR, text, causes)]
    plain = own_high <= 1 + 1e-6 or float(x.mean()) > 0.5 * float((mean / std).mean())
    if own_low >= -1e-6 and plain and float(mean.min()) > 0.02:
        text = (
            f"val inputs lie in {own_low:.2f}..{own_high:.2f}: the declared mean was not taken off"
        )
        return [Check(id, "fail", own_low, 0.0, text, ["input_not_normalised"])]
    contrast = float(restored.std())
    dull = high - low < 0.35 and contrast < 0.05
    if dull and _by_own_numbers(x):
        text += ": they use little of their range, and are normalised by numbers of their own"
        return [*_reversed(ctx, x), Check(id, "pass", contrast, 0.05, text)]
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
    if dull:
        status = "fail" if contrast < 0.02 else "warn"
        return [Check(id, status, contrast, 0.05, text + ": next to no contrast",
                      ["normalised_with_other_statistics", "input_not_normalised"])]  # fmt: skip
    return [*_reversed(ctx, x), Check(id, "pass", max(-low, high - 1), 0.6, text)]


def _by_own_numbers(x: Tensor) -> bool:
    """Whether each channel comes out near mean 0 and standard deviation 1, as fog, thermal pictures
    and microscopy do that are normalised by their own statistics: other numbers, or none, leave
    pictures with next to no contrast far from that."""
    mean, std = x.mean((0, 2, 3)).abs(), x.std((0, 2, 3))
    low, high = OWN_STD
    return bool((mean < OWN_MEAN).all() and (std > low).all() and (std < high).all())


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
    found = _exchanged(ctx, x)
    if found:
        return found
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


def _exchanged(ctx: Context, x: Tensor) -> list[Check]:
    """Normalised by the declared numbers in another way, which shows where pictures reach black or
    white: undone in that way, the extremes of all channels are 0 or 1 to the last digits."""
    declared = ctx.declared
    if declared.mean is None or declared.std is None or len(declared.mean) != x.shape[1]:
        return []
    mean, std = torch.tensor(declared.mean), torch.tensor(declared.std)
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
            text = f"the inputs are pictures in 0..1 exactly with {way}"
            return [Check("normalisation", "warn", None, None, text,
                          ["normalised_with_other_statistics"])]  # fmt: skip
    off = torch.cat([x.mean((0, 2, 3)) - (mean - std) / mean, x.std((0, 2, 3)) - std / mean])
    usual = torch.cat([x.mean((0, 2, 3)), x.std((0, 2, 3)) - 1])
    usable = bool((mean > 0).all()) and float((mean - std).abs().max()) >= 0.03
    if usable and float(off.abs().max()) < 0.05 and float(usual.abs().max()) > 0.15:
        text = "the moments of the inputs fit the declared mean and std, taken for each other"
        return [Check("normalisation", "warn", float(usual.abs().max()), 0.15, text,
                      ["normalised_with_other_statistics"])]  # fmt: skip
    return []


def _reaches(low: Tensor, high: Tensor, within: float) -> bool:
    """Whether all channels reach 0 or all reach 1; of one or two channels, both."""
    if float(low.min()) < -within or float(high.max()) > 1 + within:
        return False
    black, white = bool((low.abs() < within).all()), bool(((high - 1).abs() < within).all())
    return black or white if len(low) > 2 else black and white
