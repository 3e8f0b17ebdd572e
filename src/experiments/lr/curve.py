"""What a range test shows: its curve smoothed, and the rates that two rules of thumb suggest."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from src.base.figure import DPI, png, same_for_everyone

LEAST = 30  # steps on a curve that can be read (choice)
STEPS = 150  # as a rule: a curve that ends at a fifth of the range can still be read (choice)
BANDWIDTH = 0.2  # decades: standard deviation of the smoothing kernel (choice)
FINEST = 2.0  # factor to each side of the range, at least: rules of thumb are no finer (choice)
RISES = 0.1  # of the curve's height, by which its end lies above its minimum: it diverges (choice)
START = 1.25  # a steepest descent within this factor of the lowest rate may lie below (choice)
BELOW_MINIMUM = 10.0  # the rate at the minimum is at the edge; a tenth is usual (fastai's rule)


@dataclass(frozen=True)
class Curve:
    """A range test of one seed: `rates` and `losses` as measured, `smooth` and `slope` (loss per
    decade) as fitted, all float64 of one length."""

    rates: np.ndarray
    losses: np.ndarray
    smooth: np.ndarray
    slope: np.ndarray

    @property
    def steepest(self) -> float:
        """The rate of the steepest fall up to the minimum; beyond it lie bumps of divergence."""
        return float(self.rates[self.slope[: self.smooth.argmin() + 1].argmin()])

    @property
    def minimum(self) -> float:
        """The rate at which the loss is lowest."""
        return float(self.rates[self.smooth.argmin()])

    @property
    def diverges(self) -> bool:
        """Whether the loss rises after its minimum: else that may lie above the rates tried."""
        low, high = self.smooth.min(), self.smooth.max()
        return bool(self.smooth[-1] - low > RISES * (high - low))


def fit(rates: np.ndarray, losses: np.ndarray) -> Curve:
    """The losses smoothed by local linear regression over the log of the rate, with a Gaussian of
    BANDWIDTH. A running mean lags behind and suggests rates that are too high."""
    x = np.log10(rates)
    smooth, slope = np.empty_like(x), np.empty_like(x)
    for i, here in enumerate(x):
        weight = np.exp(-0.5 * ((x - here) / BANDWIDTH) ** 2)
        weight /= weight.sum()
        mean_x, mean_y = weight @ x, weight @ losses
        slope[i] = (weight * (x - mean_x)) @ losses / ((weight * (x - mean_x)) @ (x - mean_x))
        smooth[i] = mean_y + slope[i] * (here - mean_x)
    return Curve(rates, losses, smooth, slope)


@dataclass(frozen=True)
class Suggestion:
    """Rates in the unit of the knob; several seeds by their geometric mean."""

    steepest: float
    minimum: float  # the rate with the lowest loss
    least: float  # the lowest rate that was tried: what lies below it, nobody saw
    diverges: bool  # whether all curves do: else `minimum` is no more than the highest rate tried
    per_seed: tuple[float, ...]  # what each of several seeds alone suggests

    @property
    def to_try(self) -> float:
        """The lower of the two. Measured on four set-ups, one seed and 4
        epochs each: a third of their mean was better than the mean on all, by far so for a convnet
        with SGD. A steepest descent at the very start of the range does not count."""
        return self.tenth if self.from_start else min(self.steepest, self.tenth)

    @property
    def from_start(self) -> bool:
        """Whether the loss falls fastest at the lowest rate, as a fresh net's does at any rate."""
        return self.steepest <= self.least * START

    @property
    def tenth(self) -> float:
        """A tenth of the rate at the minimum."""
        return max(self.minimum / BELOW_MINIMUM, self.least)

    @property
    def limits(self) -> tuple[float, float]:
        """The range around the two, at least a factor of FINEST to each side of the one to try."""
        low = max(self.to_try / FINEST, self.least)
        return low, max(self.steepest, self.tenth, self.to_try * FINEST)


def suggest(curves: Sequence[Curve]) -> Suggestion:
    """What the curves of one or several seeds suggest."""
    alone = [suggest([curve]).to_try for curve in curves] if len(curves) > 1 else []
    return Suggestion(
        float(np.exp(np.log([curve.steepest for curve in curves]).mean())),
        float(np.exp(np.log([curve.minimum for curve in curves]).mean())),
        max(float(curve.rates[0]) for curve in curves),
        all(curve.diverges for curve in curves),
        tuple(alone),
    )


def table(curves: Sequence[Curve], seed: int) -> tuple[list[str], list[list[float]]]:
    """Header and rows: each point of each curve, of the seeds from `seed` on."""
    rows = [
        [seed + number, *point]
        for number, curve in enumerate(curves)
        for point in zip(curve.rates, curve.losses, curve.smooth, curve.slope, strict=True)
    ]
    return ["seed", "rate", "loss", "smooth", "slope"], rows


def explained(found: Suggestion, now: float, text: Callable[[float], str]) -> list[str]:
    """The lines that say what each rate is. `now`: the configured one; `text`: a rate as people
    read it."""
    low, high = found.limits
    where = "below" if now < low else "above" if now > high else "inside"
    steepest = (
        "the lowest that was tried: the steepest descent may lie below, and does not count"
        if found.from_start
        else "steepest descent: here a step of this size gains most"
    )
    lowest = (
        f"the rate with the lowest loss ({text(found.minimum)}): above it the loss rises"
        if found.diverges
        else f"{text(found.minimum)}: the loss is still low where the range ends, it may be more"
    )
    lines = [
        f"  {text(found.steepest):>8}  {steepest}",
        f"  {text(found.tenth):>8}  a tenth of {lowest}",
        f"  {text(now):>8}  configured, {where} the suggested range {text(low)} .. {text(high)}",
    ]
    if found.per_seed:
        least, most = min(found.per_seed), max(found.per_seed)
        lines.append(
            f"  seeds alone suggest {text(least)} .. {text(most)} (a factor of {most / least:.1f})"
        )
    return lines


@same_for_everyone()
def draw(
    curves: Sequence[Curve],
    marks: Mapping[str, float],
    limits: tuple[float, float],
    x_label: str,
    title: str,
) -> bytes:
    """PNG: the batches' losses, the smoothed curves (several: their mean and range as a band), the
    suggested range shaded, a vertical line for each of `marks`."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.4), dpi=DPI, layout="constrained")
    axes = figure.add_subplot()
    for curve in curves:
        axes.plot(curve.rates, curve.losses, ".", color="grey", markersize=2, alpha=0.5)
    shortest = min(len(curve.rates) for curve in curves)
    rates = curves[0].rates[:shortest]
    smooth = np.stack([curve.smooth[:shortest] for curve in curves])
    label = "smoothed" if len(curves) == 1 else f"mean of {len(curves)} seeds, and their range"
    axes.plot(rates, smooth.mean(axis=0), color="C0", label=label)
    if len(curves) > 1:
        axes.fill_between(rates, smooth.min(axis=0), smooth.max(axis=0), color="C0", alpha=0.25)
    axes.axvspan(*limits, color="C2", alpha=0.15, label="suggested")
    for number, (name, rate) in enumerate(marks.items(), start=1):
        axes.axvline(rate, color=f"C{number}", linestyle="--", label=f"{name}: {rate:.2g}")
    top = max(curve.smooth.max() for curve in curves)
    axes.set(xscale="log", title=title, xlabel=x_label, ylabel="training loss", ylim=(0, 1.1 * top))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")  # without formulas
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    return png(figure)
