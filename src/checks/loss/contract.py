"""The loss by itself, given chosen logits: exact properties of every loss that classifies.

They hold for cross-entropy with smoothing, class weights (also as a weighted mean), for binary
cross-entropy per class, for focal loss and for shares as targets, whatever the constants are.
"""

import math

import torch
from torch import Tensor

from src.checks.context import Context
from src.checks.loss.confident_logits import LossAndGradient, check_confident
from src.checks.reading import device_of
from src.checks.report import Check, fail, finding, ok
from src.checks.training_setup import TrainingSetup

PULL = 0.99  # cosine of a row's gradient before and after another row changed


def loss_alone(ctx: Context, setup: TrainingSetup) -> LossAndGradient:
    """The set-up's loss function, called as the step calls it."""
    device = device_of(setup.model)

    # The step may make shares of the loader's labels, and the loss take nothing else. One row more
    # than outputs: equal numbers of both would hide that in a broadcast.
    soft = ctx.soft
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
    confident = check_confident(f"{prefix}_confident", ctx, loss, labels, value, gradient)
    return [contract, pull, confident, _rows(f"{prefix}_rows", loss, labels, width)]


def _contract(id: str, ctx: Context, loss: LossAndGradient, value: float, count: int) -> Check:
    """Whether `value`, the loss of `count` rows of equal logits, is that of a known kind of loss,
    as a mean or as a sum."""
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
