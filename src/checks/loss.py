"""The loss by itself, given chosen logits: exact properties of every loss that classifies.

They hold for cross-entropy with smoothing, class weights (also as a weighted mean), for binary
cross-entropy per class, for focal loss and for shares as targets, whatever the constants are.
"""

import math
from collections.abc import Callable
from unittest.mock import patch

import torch
from torch import Tensor

from src.checks.context import Context
from src.checks.reading import device_of
from src.checks.report import Check, fail, finding, ok, warn
from src.checks.temporary import seed_all
from src.checks.training_setup import TrainingSetup

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
SMOOTHING_TOLERANCE = 0.02
PULL = 0.99  # cosine of a row's gradient before and after another row changed


def loss_alone(ctx: Context, setup: TrainingSetup) -> LossAndGradient:
    """The set-up's loss function, called as the step calls it."""
    # The step may make shares of the loader's labels, and the loss take nothing else. One row more
    # than outputs: equal numbers of both would hide that in a broadcast.
    device, soft = device_of(setup.model), ctx.soft
    rows = torch.arange(ctx.width + 1, device=device) % max(1, min(ctx.classes, ctx.width))
    if ctx.width > 1:
        try:
            setup.loss_fn(torch.zeros(len(rows), ctx.width, device=device), ctx.encode(rows, soft))
        except (RuntimeError, ValueError, IndexError, TypeError):
            soft = not soft

    def loss_and_gradient(z: Tensor, labels: Tensor) -> tuple[float, Tensor]:
        wanted = ctx.target(labels, z) if z.shape[-1] == 1 else ctx.encode(labels, soft)
        z = z.to(device).clone().requires_grad_()
        loss = setup.loss_fn(z.log_softmax(1) if ctx.log_probabilities else z, wanted.to(device))
        loss = loss if loss.ndim == 0 else loss.mean()
        if not loss.requires_grad:
            return float(loss), torch.zeros(z.shape)
        (gradient,) = torch.autograd.grad(loss, z, allow_unused=True)
        return float(loss.detach()), torch.zeros(z.shape) if gradient is None else gradient.cpu()

    return loss_and_gradient


def check_loss(ctx: Context, loss: LossAndGradient, prefix: str = "loss") -> list[Check]:
    """The properties, each a check; later ones are left out where the first do not hold."""
    classes, width = ctx.classes, ctx.width
    # Each class twice and in no order: what goes by place shows, and so does sorting.
    some = torch.arange(min(classes, 32)).repeat(4 if classes < 4 else 2)
    labels = some[torch.randperm(len(some), generator=torch.Generator().manual_seed(6))]
    value, gradient = loss(torch.zeros(len(labels), width), labels)
    contract = _contract(f"{prefix}_contract", ctx, loss, value, len(labels))
    if contract.status == "fail":
        return [contract]
    id = f"{prefix}_gradient"
    if width == 1:
        return [contract, _binary(id, gradient, labels)]
    pull = _pull(id, loss, gradient, labels)
    if pull.status == "fail" and pull.likely_causes[0] != "class_weight_zero":
        return [contract, pull]
    confident = _confident(f"{prefix}_confident", ctx, loss, labels, value, gradient)
    return [contract, pull, confident, _rows(f"{prefix}_rows", loss, labels, width)]


def _contract(id: str, ctx: Context, loss: LossAndGradient, value: float, count: int) -> Check:
    """`value`, the loss of `count` rows of equal logits, is a known loss's, as a mean or a sum."""
    even = ctx.declared.even_loss(ctx.classes)
    name = "log K of focal loss" if ctx.declared.focal_gamma else "log K"
    known = {name: even, "log 2": math.log(2), "K log 2": ctx.classes * math.log(2)}
    if not math.isfinite(value):
        text = f"the loss of equal logits is {value}"
        return fail(id, None, even, text, "loss_not_finite", "wrong_loss")
    if value < -1e-6:
        causes, text = ["loss_expects_log_probabilities", "loss_sign"], f"{value:.4g}, below 0"
        if math.isclose(-value, even, rel_tol=0.3) or math.isclose(-value, math.log(2)):
            causes.reverse()
        return fail(id, value, even, f"the loss of equal logits is {text}", *causes)
    if value < 1e-6:
        text = "the loss of equal logits is 0: nothing to learn, or log-probabilities are expected"
        causes = ["loss_expects_log_probabilities", "loss_ignores_labels", "wrong_loss"]
        return fail(id, value, even, text, *causes)
    # The same rows once, and 3 and 7 times: a mean does not move, a sum goes with the number, and
    # a softmax over the batch gives log B.
    one = torch.ones(1, dtype=torch.long)
    few, many = (loss(torch.zeros(n, ctx.width), one.repeat(n))[0] for n in (3, 7))
    if not few > 0 or not many > 0:
        text = f"the loss of equal logits is {few:.4g} for class 1 by itself"
        return fail(id, few, even, text, "wrong_loss", "loss_over_batch_axis")
    ctx.loss_reduction = "sum" if math.isclose(many / few, 7 / 3, rel_tol=1e-3) else "mean"
    if math.isclose(many / few, 3 / 7, rel_tol=1e-3):
        return fail(id, few, even, "the loss is divided by the batch size twice", "loss_scale")
    if ctx.width > 1 and math.isclose(many / few, math.log(7) / math.log(3), rel_tol=1e-3):
        text = "the loss of equal logits is the log of the batch size, not of the number of classes"
        return fail(id, few, even, text, "loss_over_batch_axis")
    per_row = value / (count if ctx.loss_reduction == "sum" else 1)
    name, near = min(known.items(), key=lambda item: abs(math.log(per_row / item[1])))
    ratio = per_row / near
    text = f"loss of equal logits {per_row:.4f} = {ratio:.3g} x {name}, {ctx.loss_reduction}"
    if 1 / 20 < ratio < 20:
        return ok(id, per_row, near, text)
    status = "warn" if 1 / 200 < ratio < 200 else "fail"
    text += ": far from any usual loss"
    return finding(status, id, per_row, near, text, "loss_scale", "wrong_loss")


def _binary(id: str, gradient: Tensor, labels: Tensor) -> Check:
    """One logit for two classes: up for 1, down for 0."""
    wanted = torch.where(labels == 1, -1.0, 1.0)
    right = (gradient.reshape(-1).sign() == wanted).float().mean().item()
    if right < 1:
        text = f"the loss pulls {1 - right:.0%} of the labels the wrong way"
        return fail(id, right, 1.0, text, "loss_sign", "targets_changed_in_step")
    return ok(id, right, 1.0, "the loss pulls each logit towards its label")


def _pull(id: str, loss: LossAndGradient, gradient: Tensor, labels: Tensor) -> Check:
    """Where the loss of equal logits pulls: towards the label of each row, and nowhere else."""
    size = gradient.abs().sum(1)
    dead = size <= 1e-6 * size.max().clamp_min(1e-30)
    if size.max() == 0:
        causes = ["activation_before_loss", "backward_missing", "loss_ignores_labels"]
        return fail(id, 0.0, None, "the loss of equal logits has no gradient", *causes)
    if dead.any():
        return _without_weight(id, loss, gradient, labels, dead)
    rows, pulled = torch.arange(len(labels)), gradient.argmin(1)
    right = (pulled == labels).float().mean().item()
    text = f"the loss pulls {right:.0%} of the rows towards their label"
    if right == 1 and bool((gradient[rows, labels] < 0).all()):
        return ok(id, right, 1.0, text)
    away = (gradient.argmax(1) == labels).float().mean().item()
    shift = (pulled - labels) % gradient.shape[1]
    causes = ["loss_label_shifted", "loss_ignores_labels", "wrong_loss"]
    if away == 1 and bool((gradient[rows, labels] > 0).all()):
        text, causes = "the loss pushes logits away from their label", ["loss_sign"]
    elif (pulled == pulled[0]).all():
        causes = ["loss_ignores_labels", "loss_label_shifted"]
    elif (shift == shift[0]).all():
        text = f"the loss pulls towards label + {int(shift[0])}"
        causes = ["loss_label_shifted", "labels_out_of_range"]
    return fail(id, right, 1.0, text, *causes)


def _without_weight(
    id: str, loss: LossAndGradient, gradient: Tensor, labels: Tensor, dead: Tensor
) -> Check:
    """Rows that are `dead`: those of a class without weight, or a part of the batch."""
    which = sorted({int(label) for label in labels[dead]})
    if any(bool((labels[~dead] == label).any()) for label in which):
        text = f"{int(dead.sum())} of {len(labels)} rows have no weight in the loss"
        return fail(id, float(dead.float().mean()), 0.0, text, "step_ignores_part_of_batch")
    # A class without weight has none at any logits; a loss to numbers is even at its own.
    other = torch.randn(gradient.shape, generator=torch.Generator().manual_seed(8))
    exactly = gradient.abs().amax(1) == 0
    if bool((loss(other, labels)[1].abs().amax(1)[exactly] > 0).any()):
        text = "the loss of equal logits is at rest for some labels, that of others is not"
        return fail(id, None, None, text, "wrong_loss", "class_weight_zero")
    text = f"labels {', '.join(map(str, which[:5]))} have no weight in the loss"
    return fail(id, float(len(which)), 0.0, text, "class_weight_zero")


def _rows(id: str, loss: LossAndGradient, labels: Tensor, width: int) -> Check:
    """Other logits in row 0 must not turn the gradient of another row. A loss may weigh rows by
    what is in the batch (weighted means, hard examples): that changes the length alone."""
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(len(labels), width, generator=generator)
    _, before = loss(z, labels)
    z[0] += 3 * torch.randn(width, generator=generator)
    _, after = loss(z, labels)
    a, b = before[1:], after[1:]
    alive = (a.norm(dim=1) > 1e-12) & (b.norm(dim=1) > 1e-12)
    cosine = torch.nn.functional.cosine_similarity(a[alive].double(), b[alive].double(), dim=1)
    lowest = cosine.min().item() if len(cosine) else 1.0
    if lowest < PULL:
        text = f"the gradient of a row turns (cosine {lowest:.2f}) when another row changes"
        return fail(id, lowest, PULL, text, "loss_over_batch_axis", "samples_mixed")
    return ok(id, lowest, PULL, "a row's gradient depends on its own logits")


def _sure_logits(labels: Tensor, width: int, size: float, right: bool) -> Tensor:
    """Logits that are sure: of the label, or of the class after it."""
    z = torch.full((len(labels), width), -size if right else 0.0)
    rows = torch.arange(len(labels))
    z[rows, labels] = size if right else -size
    if not right:
        z[rows, (labels + 1) % width] = size
    return z


def _confident(
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
    _, wrong = loss(_sure_logits(labels, width, FAR, right=False), labels)
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
    return min(loss(_sure_logits(labels, ctx.width, size, right=True), labels)[0] for size in sizes)


def _least_by_smoothing(ctx: Context) -> float:
    """Entropy of the declared smoothed label over that of equal shares: the least relative loss."""
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
    with patch.object(ctx, "log_probabilities", False):
        seed_all(0)
        plain, raised = loss(z, labels)[0], loss(z + FAR, labels)[0]
    fits = math.isclose(plain, normalised, rel_tol=SAME) or raised < 0
    return None if fits else least


def check_smoothing(ctx: Context, loss: LossAndGradient, also: float) -> list[Check]:
    """Smoothing and temperature of a softmax loss. `also`: smoothing already in the targets."""
    width = ctx.width
    if width < 2:
        return []
    labels = torch.arange(min(ctx.classes, 32))
    value, _ = loss(torch.zeros(len(labels), width), labels)
    z = torch.randn(len(labels), width, generator=torch.Generator().manual_seed(1))
    _, gradient = loss(z, labels)
    if gradient.sum(1).abs().max() > 1e-4 * gradient.abs().max():
        return []  # not of softmax: BCE
    size = 40.0
    wrong = loss(_sure_logits(labels, width, size, right=False), labels)[0] / size
    right = loss(_sure_logits(labels, width, size, right=True), labels)[0] / size
    spread = 2 * (width - 1) / width
    ratio = right / max(wrong, 1e-30)
    smoothing = 2 * ratio / (spread + ratio)
    temperature = wrong / max(value, 1e-30) * ctx.declared.even_loss(width) / (2 - smoothing)
    high = 3.5
    if width > 2 and smoothing < 0.005:
        temperature = _temperature_by_ratio(loss, labels, width)
    elif width == 2 and not ctx.declared.focal_gamma:
        # A focal loss that is not declared rises up to 8 times as steeply, by (1 - 1 / 2) ** gamma.
        high = 12.0
    found = [_judge_smoothing(ctx.declared.label_smoothing, max(smoothing, also))]
    # A hinge: no softmax, whatever its temperature, rises equally everywhere.
    return found if abs(temperature) < 1e-6 else [*found, _judge_temperature(temperature, high)]


def _judge_smoothing(declared: float | None, smoothing: float) -> Check:
    id, text = "label_smoothing", f"label smoothing {smoothing:.3f}"
    causes = ["label_smoothing_differs", "loss_scale"]
    if declared is not None and abs(smoothing - declared) > SMOOTHING_TOLERANCE:
        status, text = "fail" if smoothing > 0.5 else "warn", f"{text}, declared {declared:g}"
        return finding(status, id, smoothing, declared, text, *causes)
    if declared is None and smoothing > 0.5:
        return warn(id, smoothing, 0.5, f"{text}, very strong", causes[0])
    return ok(id, smoothing, declared, text)


def _judge_temperature(temperature: float, high: float) -> Check:
    id, text = "temperature", f"logits enter the loss times {temperature:.3g}"
    if not 1 / 12 < temperature < (12 if high < 12 else 40):
        return fail(id, temperature, 12.0, text, "temperature")
    if not 1 / 3.5 < temperature < high:
        return warn(id, temperature, high, text, "temperature")
    return ok(id, temperature, high, text)


def _temperature_by_ratio(loss: LossAndGradient, labels: Tensor, width: int) -> float:
    """Wrong classes 1 logit apart are pushed down in the ratio e^temperature, by focal loss too."""
    rows, first, second = torch.arange(len(labels)), (labels + 1) % width, (labels + 2) % width
    z = torch.zeros(len(labels), width)
    z[rows, first] = 1.0
    _, gradient = loss(z, labels)
    middle = float((gradient[rows, first] / gradient[rows, second]).median())
    return math.log(middle) if middle > 0 else math.inf
