"""The loss by itself, given logits of our choice: exact properties of every loss that classifies.

They hold for cross-entropy with smoothing, class weights (also as a weighted mean), for binary
cross-entropy per class, for focal loss and for shares as targets, whatever the constants are.
"""

import math

import torch
from torch import Tensor

from src.checks.context import Context, device_of
from src.checks.loss.confident import ValueAndGradient, check_confident
from src.checks.report import Check
from src.checks.setup import TrainingSetup

PULL = 0.99  # cosine of a row's gradient before and after another row changed


def direct(ctx: Context, setup: TrainingSetup) -> ValueAndGradient:
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

    def loss_of(z: Tensor, labels: Tensor) -> Tensor:
        wanted = ctx.target(labels, z) if z.shape[-1] == 1 else ctx.encode(labels, soft)
        return setup.loss_fn(z, wanted.to(z.device))

    def value_and_gradient(z: Tensor, labels: Tensor) -> tuple[float, Tensor]:
        z = z.to(device).clone().requires_grad_()
        given = z.log_softmax(1) if ctx.log_probabilities else z
        loss = loss_of(given, labels)
        loss = loss if loss.ndim == 0 else loss.mean()
        if not loss.requires_grad:
            return float(loss), torch.zeros(z.shape)
        (gradient,) = torch.autograd.grad(loss, z, allow_unused=True)
        return float(loss.detach()), torch.zeros(z.shape) if gradient is None else gradient.cpu()

    return value_and_gradient


def check_loss(ctx: Context, vg: ValueAndGradient, prefix: str = "loss") -> list[Check]:
    """The properties, each a check; later ones are left out where the first do not hold."""
    classes, width = ctx.classes, ctx.width
    # Each class twice and in no order: what goes by place shows, and so does sorting.
    some = torch.arange(min(classes, 32)).repeat(4 if classes < 4 else 2)
    labels = some[torch.randperm(len(some), generator=torch.Generator().manual_seed(6))]
    zero = torch.zeros(len(labels), width)
    value, gradient = vg(zero, labels)
    ids = [f"{prefix}_contract", f"{prefix}_gradient", f"{prefix}_confident", f"{prefix}_rows"]
    found = [_contract(ids[0], ctx, vg, zero, labels, value, prefix)]
    if found[0].status == "fail":
        return found
    if width == 1:
        return [*found, _binary(ids[1], gradient, labels)]
    found.append(_gradient(ids[1], gradient, labels))
    if found[1].likely_causes[:1] == ["class_weight_zero"]:
        # A class without weight has none at any logits; a loss to numbers is even at its own.
        other = torch.randn(len(labels), width, generator=torch.Generator().manual_seed(8))
        dead = gradient.abs().amax(1) == 0
        if bool((vg(other, labels)[1].abs().amax(1)[dead] > 0).any()):
            text = "the loss of equal logits is at rest for some labels, that of others is not"
            found[1] = Check(ids[1], "fail", None, None, text, ["wrong_loss", "class_weight_zero"])
    if found[1].status == "fail" and found[1].likely_causes[0] != "class_weight_zero":
        return found
    found.append(check_confident(ids[2], ctx, vg, labels, value, gradient))
    found.append(_rows(ids[3], vg, labels, width))
    return found


def _contract(
    id: str, ctx: Context, vg: ValueAndGradient, zero: Tensor, labels: Tensor, value: float,
    prefix: str,
) -> Check:  # fmt: skip
    even = ctx.declared.even_loss(ctx.classes)
    name = "log K of focal loss" if ctx.declared.focal_gamma else "log K"
    known = {name: even, "log 2": math.log(2), "K log 2": ctx.classes * math.log(2)}
    if not math.isfinite(value):
        text = f"the loss of equal logits is {value}"
        return Check(id, "fail", None, even, text, ["loss_not_finite", "wrong_loss"])
    if value < -1e-6:
        text = f"the loss of equal logits is {value:.4g}, below 0"
        causes = ["loss_expects_log_probabilities", "loss_sign"]
        if math.isclose(-value, even, rel_tol=0.3) or math.isclose(-value, math.log(2)):
            causes.reverse()
        return Check(id, "fail", value, even, text, causes)
    if value < 1e-6:
        text = "the loss of equal logits is 0: nothing to learn, or log-probabilities are expected"
        causes = ["loss_expects_log_probabilities", "loss_ignores_labels", "wrong_loss"]
        return Check(id, "fail", value, even, text, causes)
    # The same rows once, and 3 and 7 times: a mean does not move, a sum goes with the number, and
    # a softmax over the batch gives log B.
    one = torch.ones(1, dtype=torch.long)
    few, many = (vg(zero[:1].repeat(n, 1), one.repeat(n))[0] for n in (3, 7))
    if not few > 0 or not many > 0:
        text = f"the loss of equal logits is {few:.4g} for class 1 by itself"
        causes = ["wrong_loss", "loss_over_batch_axis"]
        return Check(id, "fail", few, even, text, causes)
    ctx.loss_reduction = "sum" if math.isclose(many / few, 7 / 3, rel_tol=1e-3) else "mean"
    if math.isclose(many / few, 3 / 7, rel_tol=1e-3):
        text = "the loss is divided by the batch size twice"
        return Check(id, "fail", few, even, text, ["loss_scale"])
    if ctx.width > 1 and math.isclose(many / few, math.log(7) / math.log(3), rel_tol=1e-3):
        text = "the loss of equal logits is the log of the batch size, not of the number of classes"
        return Check(id, "fail", few, even, text, ["loss_over_batch_axis"])
    per_row = value / (len(labels) if ctx.loss_reduction == "sum" else 1)
    name, near = min(known.items(), key=lambda item: abs(math.log(per_row / item[1])))
    ratio = per_row / near
    text = f"loss of equal logits {per_row:.4f} = {ratio:.3g} x {name}, {ctx.loss_reduction}"
    if not 1 / 20 < ratio < 20:
        causes = ["loss_scale", "wrong_loss"]
        status = "warn" if 1 / 200 < ratio < 200 else "fail"
        return Check(id, status, per_row, near, f"{text}: far from any usual loss", causes)
    return Check(id, "pass", per_row, near, text)


def _binary(id: str, gradient: Tensor, labels: Tensor) -> Check:
    """One logit for two classes: up for 1, down for 0."""
    wanted = torch.where(labels == 1, -1.0, 1.0)
    right = (gradient.reshape(-1).sign() == wanted).float().mean().item()
    if right < 1:
        text = f"the loss pulls {1 - right:.0%} of the labels the wrong way"
        return Check(id, "fail", right, 1.0, text, ["loss_sign", "targets_changed_in_step"])
    return Check(id, "pass", right, 1.0, "the loss pulls each logit towards its label")


def _gradient(id: str, gradient: Tensor, labels: Tensor) -> Check:
    """Where the loss of equal logits pulls: towards the label of each row, and nowhere else."""
    rows = torch.arange(len(labels))
    size = gradient.abs().sum(1)
    dead = size <= 1e-6 * size.max().clamp_min(1e-30)
    if size.max() == 0:
        text = "the loss of equal logits has no gradient"
        causes = ["activation_before_loss", "backward_missing", "loss_ignores_labels"]
        return Check(id, "fail", 0.0, None, text, causes)
    if dead.any():
        which = sorted({int(label) for label in labels[dead]})
        if any(bool((labels[~dead] == label).any()) for label in which):
            text = f"{int(dead.sum())} of {len(labels)} rows have no weight in the loss"
            value = float(dead.float().mean())
            return Check(id, "fail", value, 0.0, text, ["step_ignores_part_of_batch"])
        text = f"labels {', '.join(map(str, which[:5]))} have no weight in the loss"
        return Check(id, "fail", float(len(which)), 0.0, text, ["class_weight_zero"])
    pulled = gradient.argmin(1)
    right = (pulled == labels).float().mean().item()
    text = f"the loss pulls {right:.0%} of the rows towards their label"
    if right == 1 and bool((gradient[rows, labels] < 0).all()):
        return Check(id, "pass", right, 1.0, text)
    away = (gradient.argmax(1) == labels).float().mean().item()
    shift = (pulled - labels) % gradient.shape[1]
    if away == 1 and bool((gradient[rows, labels] > 0).all()):
        text, causes = "the loss pushes logits away from their label", ["loss_sign"]
    elif (pulled == pulled[0]).all():
        causes = ["loss_ignores_labels", "loss_label_shifted"]
    elif (shift == shift[0]).all():
        text = f"the loss pulls towards label + {int(shift[0])}"
        causes = ["loss_label_shifted", "labels_out_of_range"]
    else:
        causes = ["loss_label_shifted", "loss_ignores_labels", "wrong_loss"]
    return Check(id, "fail", right, 1.0, text, causes)


def _rows(id: str, vg: ValueAndGradient, labels: Tensor, width: int) -> Check:
    """Other logits in row 0 must not turn the gradient of another row. A loss may weigh rows by
    what is in the batch (weighted means, hard examples): that changes the length alone."""
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(len(labels), width, generator=generator)
    _, before = vg(z, labels)
    z[0] += 3 * torch.randn(width, generator=generator)
    _, after = vg(z, labels)
    a, b = before[1:], after[1:]
    alive = (a.norm(dim=1) > 1e-12) & (b.norm(dim=1) > 1e-12)
    cosine = torch.nn.functional.cosine_similarity(a[alive].double(), b[alive].double(), dim=1)
    lowest = cosine.min().item() if len(cosine) else 1.0
    if lowest < PULL:
        text = f"the gradient of a row turns (cosine {lowest:.2f}) when another row changes"
        return Check(id, "fail", lowest, PULL, text, ["loss_over_batch_axis", "samples_mixed"])
    return Check(id, "pass", lowest, PULL, "a row's gradient depends on its own logits")
