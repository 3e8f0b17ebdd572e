"""What the loss makes of sure logits: a mistake is pulled back, and a right answer costs little."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from src.checks.context import Context
from src.checks.report import Check, fail, finding, ok
from src.checks.temporary import seed_all

# (logits B x K, labels int64 B) -> (loss, its gradient B x K)
LossAndGradient = Callable[[Tensor, Tensor], tuple[float, Tensor]]
FAR = 20.0  # a logit that is sure of itself: e^-20 is 2e-9
# Of the gradient at equal logits; cross-entropy, BCE and focal keep more than all of it at a sure
# mistake, softmax and the like in front of the loss 1e-8 (by formula).
SATURATED = 0.05
# Of the loss at equal logits: CE of softmax gives 0.45 (2 classes) to 0.8, a bounded loss 0.
FLOOR = 0.25
GAIN = 0.1  # of what right answers may gain: all of the loss, or what smoothing leaves of that
SAME = 0.02  # of a loss: log_softmax before it changes nothing
NOTHING = 1e-3  # of the loss at equal logits


def sure_logits(labels: Tensor, width: int, size: float, right: bool) -> Tensor:
    """Logits that are sure: of the label, or of the class after it."""
    z = torch.full((len(labels), width), -size if right else 0.0)
    rows = torch.arange(len(labels))
    z[rows, labels] = size if right else -size
    if not right:
        z[rows, (labels + 1) % width] = size
    return z


def check_confident(
    id: str, ctx: Context, loss: LossAndGradient, labels: Tensor, value: float, gradient: Tensor
) -> Check:
    """A sure mistake must be pulled back, and sure right answers must cost next to nothing.
    `value`, `gradient`: those of equal logits."""
    rows, width = torch.arange(len(labels)), ctx.width
    if ctx.log_probabilities:
        cost = _cost_of_log_probabilities(ctx, loss, labels, value)
        if cost is not None:
            text = "the net gives log-probabilities and the loss wants logits: right answers, "
            text += f"however sure, cost {cost:.3g}, equal ones {value:.3g}"
            return fail(id, cost, None, text, "activation_before_loss", "wrong_loss")
    _, wrong = loss(sure_logits(labels, width, FAR, right=False), labels)
    kept = (wrong[rows, labels].abs() / gradient[rows, labels].abs().clamp_min(1e-30)).min().item()
    share, least = _lowest_loss(ctx, loss, labels) / value, _least_by_smoothing(ctx)
    if not math.isfinite(kept) or not math.isfinite(share):
        text = "the loss of sure logits, or its gradient, is NaN or infinite"
        return fail(id, None, SATURATED, text, "loss_not_finite", "precision")
    text = (
        f"a sure mistake keeps {kept:.2g} of the gradient of equal logits; the loss of right "
        f"answers is {share:.2g} of that of equal logits"
    )
    if kept < SATURATED:
        causes, status = ["loss_bounded", "activation_before_loss"], "warn"
        if share > FLOOR or (wrong[rows, labels] == 0).all():
            causes, status = causes[::-1], "fail"
        return finding(status, id, kept, SATURATED, text, *causes)
    limit = 1 - GAIN * (1 - least)
    if share > limit:
        causes = ["wrong_loss", "label_smoothing_differs", "activation_before_loss"]
        return fail(id, share, limit, f"{text}: right answers are no gain", *causes)
    return ok(id, kept, SATURATED, text)


def _lowest_loss(ctx: Context, loss: LossAndGradient, labels: Tensor) -> float:
    """The lowest loss of right answers that are more or less sure."""
    sizes = [1.0, 2.0, 4.0, 8.0, 16.0]
    smoothing = ctx.declared.label_smoothing or 0.0
    if 0 < smoothing < 1:  # where cross-entropy with it is lowest
        sizes.append(math.log(1 + ctx.width * (1 - smoothing) / smoothing) / 2)
    return min(loss(sure_logits(labels, ctx.width, size, right=True), labels)[0] for size in sizes)


def _least_by_smoothing(ctx: Context) -> float:
    """What the declared smoothing leaves at least of the loss of equal logits, by formula: the
    entropy of the smoothed label over that of equal shares."""
    width, smoothing = ctx.width, ctx.declared.label_smoothing or 0.0
    if not 0 < smoothing < 1:
        return 0.0
    other = smoothing / width
    own = 1 - smoothing + other
    return -(own * math.log(own) + (width - 1) * other * math.log(other)) / math.log(width)


def _cost_of_log_probabilities(
    ctx: Context, loss: LossAndGradient, labels: Tensor, value: float
) -> float | None:
    """What sure right answers cost, where the loss does not take log-probabilities: log_softmax
    before it changes the loss, and one that is made for log-probabilities it is not either. Such a
    loss costs nothing at probability 1, or falls below 0 for what is no log-probability."""
    least = _lowest_loss(ctx, loss, labels)
    if least < NOTHING * value:  # logits could give it NaN, which a step would keep
        return None
    z = 2 * torch.randn(len(labels), ctx.width, generator=torch.Generator().manual_seed(9))
    seed_all(0)  # a step that mixes draws the same with and without
    normalised = loss(z, labels)[0]
    ctx.log_probabilities = False
    try:
        seed_all(0)
        plain, raised = loss(z, labels)[0], loss(z + FAR, labels)[0]
    finally:
        ctx.log_probabilities = True
    fits = math.isclose(plain, normalised, rel_tol=SAME) or raised < 0
    return None if fits else least
