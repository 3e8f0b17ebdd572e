"""What the step does between batch and gradient, by one call with the stub."""

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from src.checks.context import Context, labels_of
from src.checks.report import Check
from src.checks.setup import TrainingSetup
from src.checks.step import mixing

CLOSE = 1e-4  # relative: rounding of float32
HALF_CLOSE = 0.02  # of 16-bit floats
SCALE_OFF = 0.02  # of the gradient: a forgotten division by accumulate is at least a factor of 2


@dataclass
class Seen:
    """What one call of train_step did with the stub: its inputs, the arguments and values of the
    loss, the logits that were given and the gradient that came back."""

    z: Tensor
    inputs: list[Tensor] = field(default_factory=list)
    calls: list[tuple[Tensor, Any]] = field(default_factory=list)
    values: list[float] = field(default_factory=list)
    reported: float = math.nan
    told_more: bool = False  # whether the net was given more than pictures, or has hooks
    gradient: Tensor | None = None


def _same_rows(a: Tensor, b: Tensor, tolerance: float = CLOSE) -> bool:
    close = tolerance * float(b.abs().max())
    return a.shape == b.shape and torch.allclose(a.float(), b.float(), tolerance, close)


def check_inputs(
    ctx: Context, setup: TrainingSetup, x: Any, targets: Any, seen: Seen, before: Any
) -> Check:
    """The pictures enter the net in the order of the batch; those mixed in the step have labels
    mixed alike. `before`: the inputs of the call before."""
    id = "step_inputs"
    count = sum(len(part) for part in seen.inputs)
    if isinstance(x, Tensor) and count < len(x):
        text = f"the net saw {count} of the {len(x)} pictures of the batch"
        return Check(id, "fail", count / len(x), 1.0, text, ["step_ignores_part_of_batch"])
    entered = torch.cat([part.cpu() for part in seen.inputs])
    told = Check(id, "pass", None, None, "inputs are changed in the step; not compared")
    if not isinstance(x, Tensor) or count % len(x):
        return told
    rows, own = entered[: len(x)].float(), x.detach().cpu().float()
    if rows.shape != own.shape:
        return told
    labels = labels_of(targets)
    shares = None if ctx.soft else mixed_shares(ctx, setup, seen, labels)
    if _same_rows(rows, own):
        judged = ctx.width > 2 and not seen.told_more
        if judged and shares is not None and mixing.labels_alone(labels, shares):
            text = "labels are mixed within the batch, and the pictures enter the net as they are"
            causes = ["mixed_labels_differ", "targets_changed_in_step"]
            return Check(id, "warn", 0.0, 1.0, text, causes)
        return Check(id, "pass", 1.0, 1.0, "pictures enter the net in the order of the batch")
    earlier = before.detach().cpu().float() if isinstance(before, Tensor) else rows[:0]
    if _same_rows(rows, earlier):
        text = "the net is given the pictures of an earlier batch"
        return Check(id, "fail", 0.0, 1.0, text, ["inputs_changed_in_step"])
    parts = mixing.take_apart(rows, own) if shares is not None else None
    if parts is None or shares is None:
        return told
    value, how = mixing.judge(parts, labels, shares)
    if how:
        text = f"{value:.0%} of the pictures enter the net as, or mixed with, others of the batch, "
        causes = ["mixed_labels_differ", "targets_changed_in_step"]
        if how == mixing.UNCHANGED:
            causes = ["inputs_changed_in_step", "mixed_labels_differ"]
        return Check(id, "fail", value, 0.0, f"{text}and {how}", causes)
    return Check(id, "pass", 0.0, 0.0, "mixed pictures and their labels were recounted")


def mixed_shares(ctx: Context, setup: TrainingSetup, seen: Seen, labels: Tensor) -> Tensor | None:
    """The targets that reached the loss as shares B x K, smoothing taken off: those of one call, or
    labels of several calls with the weights that the step's gradient shows. None where there is no
    way to tell."""
    targets = [target for _, target in seen.calls]
    if not targets or not all(isinstance(target, Tensor) for target in targets):
        return None
    if int(labels.min()) < 0 or int(labels.max()) >= ctx.width or ctx.width < 2:
        return None
    smoothing = ctx.declared.label_smoothing or 0.0
    if len(targets) == len(seen.inputs):
        rows = torch.cat([target.detach().cpu() for target in targets])
    elif len(seen.inputs) == 1 and seen.gradient is not None:
        weights = call_weights(ctx, setup, seen)[0]
        if not bool((weights > -SCALE_OFF * weights.abs().max()).all()):
            return None
        if not all(target.ndim == 1 and len(target) == len(labels) for target in targets):
            return None
        hot = [functional.one_hot(t.detach().cpu().long(), ctx.width) for t in targets]
        rows = sum(w * h for w, h in zip(weights.clamp_min(0), hot, strict=True))
        smoothing = 0.0
    else:
        return None
    if rows.ndim == 1 and len(rows) == len(labels) and not rows.is_floating_point():
        rows = functional.one_hot(rows.long(), ctx.width)
    if rows.shape != (len(labels), ctx.width):
        return None
    return mixing.plain_shares(rows, smoothing)


def check_logits(seen: Seen) -> Check:
    """What the net gave is what the loss gets."""
    id = "step_logits"
    got = torch.cat([logits.reshape(len(logits), -1) for logits, _ in seen.calls]).cpu().float()
    z = seen.z.detach().cpu()
    given = torch.cat([z] * max(1, len(got) // len(z)))
    if got.shape[0] < len(z):
        text = f"the loss saw {len(got)} of the {len(z)} rows"
        return Check(id, "fail", len(got) / len(z), 1.0, text, ["step_ignores_part_of_batch"])
    if _same_rows(got, given, HALF_CLOSE):
        return Check(id, "pass", 1.0, 1.0, "the net's outputs reach the loss as they are")
    if got.shape != given.shape:
        text = f"the loss got logits of shape {tuple(got.shape)} for {tuple(given.shape)}"
        return Check(id, "warn", None, None, text, ["logits_changed_in_step"])
    if _same_rows(got, given.log_softmax(1), HALF_CLOSE):
        text = "log_softmax before the loss: harmless for cross-entropy, which does it again"
        return Check(id, "pass", 1.0, 1.0, text)
    for name, activation in (
        ("softmax", given.softmax(1)), ("sigmoid", given.sigmoid()), ("tanh", given.tanh()),
        ("relu", given.relu()), ("softmax over the batch", given.softmax(0)),
    ):  # fmt: skip
        if _same_rows(got, activation, HALF_CLOSE):
            cause = "loss_over_batch_axis" if "batch" in name else "activation_before_loss"
            text = f"the step puts a {name} between the net and the loss"
            return Check(id, "fail", None, None, text, [cause])
    factor = float((got * given).sum() / (given * given).sum())
    if factor and _same_rows(got, given * factor, HALF_CLOSE):
        status = "warn" if 1 / 12 < factor < 12 else "fail"
        causes = ["temperature"] if factor > 0 else ["loss_sign", "temperature"]
        text = f"the step multiplies the logits by {factor:.3g}"
        return Check(id, status, factor, 1.0, text, causes)
    distance = torch.cdist(got, given).min(1).values
    if (distance < 1e-3).all():
        text = "the step brings the logits into another order than the labels"
        return Check(id, "fail", None, None, text, ["inputs_changed_in_step"])
    text = "the step changes the net's outputs before the loss"
    return Check(id, "warn", None, None, text, ["logits_changed_in_step", "activation_before_loss"])


def check_targets(ctx: Context, targets: Any, seen: Seen) -> Check:
    """The labels of the batch are what the loss gets; mixed ones must hold a share of them."""
    id = "step_targets"
    wanted = labels_of(targets)
    rows = torch.arange(len(wanted))
    got = [target for _, target in seen.calls if isinstance(target, Tensor)]
    if not got:
        return Check(id, "pass", None, None, "targets are no tensors; not compared")
    if got[0].shape[0] < len(wanted):  # in parts
        got = [torch.cat([part.detach().cpu() for part in got])]
    first = got[0].detach().cpu()
    hard = [labels_of(target)[: len(wanted)] for target in got]
    if any(len(labels) == len(wanted) and bool((labels == wanted).all()) for labels in hard):
        return Check(id, "pass", 1.0, 1.0, "the labels of the batch reach the loss")
    if first.ndim == 2 and first.shape == (len(wanted), ctx.width) and first.is_floating_point():
        share = first[rows, wanted]
        if bool((share > first.min(dim=1).values + 1e-6).float().mean() > 0.9):
            return Check(id, "pass", None, None, "targets are mixed; each holds its own label")
    same = (hard[0][: len(wanted)] == wanted[: len(hard[0])]).float().mean().item()
    shift = (hard[0] - wanted[: len(hard[0])]) % ctx.classes
    how = f"all by {int(shift[0])}" if (shift == shift[0]).all() else "from row to row"
    text = f"only {same:.0%} of the labels reach the loss unchanged ({how})"
    return Check(id, "fail", same, 1.0, text, ["targets_changed_in_step", "loss_label_shifted"])


def call_weights(
    ctx: Context, setup: TrainingSetup, seen: Seen
) -> tuple[Tensor, list[Tensor], Tensor]:
    """The weight of each call of the loss in the step's gradient, the calls' own gradients, and
    their weighted sum. Calls on the whole batch add up with their shares; calls on parts stand one
    after another and share one weight."""
    assert seen.gradient is not None
    parts = []
    for logits, target in seen.calls:
        z = logits.detach().clone().float().requires_grad_()
        loss = setup.loss_fn(z.log_softmax(1) if ctx.log_probabilities else z, target)
        loss = loss if loss.ndim == 0 else loss.mean()
        (gradient,) = torch.autograd.grad(loss, z)
        parts.append(gradient.cpu())
    whole = all(len(part) == len(seen.z) for part in parts)
    basis = (
        torch.stack([p.flatten() for p in parts], 1) if whole else torch.cat(parts).reshape(-1, 1)
    ).double()
    made = seen.gradient.flatten().double()
    weights = torch.linalg.lstsq(basis, made[:, None]).solution[:, 0]
    return weights, parts, basis @ weights


def check_scale(ctx: Context, setup: TrainingSetup, seen: Seen, count: int) -> list[Check]:
    """The gradient that comes out of the step, against that of the loss function alone."""
    assert seen.gradient is not None
    weights, parts, fitted = call_weights(ctx, setup, seen)
    whole, made = all(len(part) == count for part in parts), seen.gradient.flatten().double()
    cosine = float(made @ fitted / (made.norm() * fitted.norm()).clamp_min(1e-30))
    factor = float(weights.sum()) * (1 if whole else len(parts))
    accumulate, id = ctx.declared.accumulate, "gradient_scale"
    expected = 1 / accumulate
    passes = len(seen.inputs) if all(len(part) == count for part in seen.inputs) else 1
    if passes > 1 and math.isclose(factor, passes * expected, rel_tol=SCALE_OFF):
        expected *= passes  # each forward pass of the whole batch has a loss: sharpness-aware steps
    text = f"the step's gradient is {factor:.4g} x that of the loss, expected {expected:.4g}"
    found = []
    if cosine < 0.99:
        text = f"the step's gradient is not that of the loss (cosine {cosine:.2f})"
        causes = ["logits_changed_in_step", "gradient_changed"]
        found.append(Check(id, "warn", cosine, 0.99, text, causes))
    elif factor < 0:
        causes = ["loss_sign", "gradient_sign_flipped"]
        found.append(Check(id, "fail", factor, expected, text, causes))
    elif ctx.loss_reduction == "sum":
        ratio = factor * count / expected
        if abs(math.log(ratio)) > math.log(1.5):
            text += f", and the loss is summed over {count} pictures"
            found.append(Check(id, "fail", ratio, 1.5, text, ["loss_reduction_sum", "loss_scale"]))
    elif ctx.declared.precision == "fp16" and factor > 100:
        text = "the gradient is scaled for fp16"
    elif abs(factor / expected - 1) > SCALE_OFF:
        off = factor / expected
        causes = ["loss_scale", "gradient_not_divided_by_accumulate"]
        # Micro-batches of several calls, or those that one call cuts its batch into.
        summed = accumulate if accumulate > 1 else len(parts)
        if not (whole and accumulate == 1) and math.isclose(off, summed, rel_tol=0.05):
            causes.reverse()
        status = "fail" if not 1 / 4 < off < 4 or causes[0] != "loss_scale" else "warn"
        found.append(Check(id, status, factor, expected, text, causes))
    if not found:
        found = [Check(id, "pass", factor, expected, text)]
    reported, value = seen.reported, sum(seen.values) / len(seen.values)
    shares = {1.0, 1 / accumulate, float(accumulate), float(count), 1 / count, factor}
    if not math.isfinite(reported):
        text = f"train_step reports a loss of {reported}"
        found.append(Check("reported_loss", "fail", None, value, text, ["reported_loss_differs"]))
    elif len(seen.calls) == 1 and not any(
        math.isclose(reported, value * share, rel_tol=0.02) for share in shares
    ):
        text = f"train_step reports {reported:.4g}, its loss was {value:.4g}"
        causes = ["reported_loss_differs"]
        found.append(Check("reported_loss", "warn", reported, value, text, causes))
    return found
