"""Normalisation: train against val inputs, and both against the declared mean and std."""

import torch
from torch import Tensor

from src.checks.context import Context, Sample
from src.checks.report import Check, fail, finding, ok, warn

MEAN_FAIL, MEAN_WARN = 0.8, 0.5  # of a standard deviation, between training and validation
STD_FAIL, STD_WARN = 2.0, 1.6
DIGITS, NEAR = 1e-4, 0.02  # of the range 0..1: exactly at its ends, and about there
OWN_MEAN, OWN_STD = 0.5, (0.5, 2.0)  # of inputs normalised by numbers of their own (choice)
FAR = 10.0  # standard deviations from 0: images in 0..1 or 0..255 are at 2 to 4 (choice)
OTHER = "normalised_with_other_statistics"


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
    declared, sample = ctx.declared, ctx.val_sample or ctx.sample
    if declared.mean is None or declared.std is None or sample.x.ndim != 4:
        return []
    channels = sample.x.shape[1]
    mean, std = torch.tensor(declared.mean), torch.tensor(declared.std)
    if len(mean) != channels or len(std) != channels:
        if len(mean) != 1 or len(std) != 1:
            return []
        mean, std = mean.expand(channels), std.expand(channels)
    x = sample.x[:256]
    found = _undone(x, mean, std)
    return [*(_order_of_channels(ctx, x) if found.status == "pass" else []), found]


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
    """Whether each channel comes out near mean 0 and standard deviation 1, as fog, thermal images
    and microscopy do that are normalised by their own statistics: other numbers, or none, leave
    images with next to no contrast far from that."""
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


def _order_of_channels(ctx: Context, x: Tensor) -> list[Check]:
    """Declared statistics that are those of these data tell the order of the channels: normalised
    means are near 0 in the right order, and at predicted places in the reverse one."""
    declared = ctx.declared
    if declared.mean is None or declared.std is None or len(declared.mean) != x.shape[1]:
        return []
    mean, std = torch.tensor(declared.mean), torch.tensor(declared.std)
    found = _exchanged(mean, std, x)
    if found or len(mean) != 3:
        return found
    measured = x.mean((0, 2, 3))
    predicted = (mean.flip(0) - mean) / std
    top, off = float(measured.abs().max()), float((measured - predicted).abs().max())
    if float(predicted.abs().max()) > 0.2 and off < 0.25 * top:
        text = "the means of the channels fit the declared ones in reverse order"
        return [warn("channels", top, 0.2, text, "channels_reversed", OTHER)]
    return []


def _exchanged(mean: Tensor, std: Tensor, x: Tensor) -> list[Check]:
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
            text = f"the inputs are pictures in 0..1 exactly with {way}"
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
