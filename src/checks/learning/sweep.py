"""A short sweep of the learning rate: where does it diverge, and is the chosen one near that?"""

import math

from src.checks.context import Context
from src.checks.learning.climb import climb, mixed_batch
from src.checks.report import Check

NEAR = 2.0  # times the chosen rate
TRIES = 12  # steps at each rate
SLOW = 0.98  # of the loss at the start, after TRIES steps


def check_rate(ctx: Context) -> list[Check]:
    """A few steps on one batch at the chosen rate, at twice and at thirty times of it."""
    x, labels = mixed_batch(ctx, 16)
    tries = ctx.steps(0.04, len(x) * ctx.declared.accumulate, 5, TRIES)

    def ends(factor: float) -> float:
        result = climb(ctx, ctx.fresh(), x, labels, tries, factor)
        last = min(result.loss[-3:]) if result.finite else math.inf
        return last / result.loss[0] if result.loss[0] > 0 else 1.0

    own = ends(1.0)
    id = "lr_range"
    text = f"{tries} steps on one batch bring cross-entropy to {own:.2f} of the start"
    if not own < 1.5:
        lower = ends(0.1)
        if lower < 0.9:
            text += f", at a tenth of the learning rate to {lower:.2f}"
            return [Check(id, "warn", own, 1.5, text, ["lr_too_high"])]
    if own > SLOW:
        higher = ends(100.0)
        if higher < 0.8:
            text += f", at a hundred times the learning rate to {higher:.2f}"
            return [Check(id, "warn", own, SLOW, text, ["lr_too_low"])]
    return [Check(id, "pass", own, 1.5, text)]
