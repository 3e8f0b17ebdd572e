"""What the step does between batch and gradient, and the loss in it, by steps on chosen logits.

Compared exactly with the loss function alone: no training, whatever the architecture.
"""

import math
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.nn import functional

from src.checks.context import Context
from src.checks.loss import LossAndGradient, check_loss, check_smoothing, loss_alone
from src.checks.reading import are_shares, as_labels, device_of, labels_of, split_batch
from src.checks.report import Check, fail, finding, ok, warn
from src.checks.step import mixing
from src.checks.training_setup import TrainingSetup

CLOSE = 1e-4  # relative: rounding of float32
HALF_CLOSE = 0.02  # of 16-bit floats
SCALE_OFF = 0.02  # of the gradient: a forgotten division by accumulate is at least a factor of 2


@dataclass
class StepTrace:
    """What one call of `setup`'s train_step on `batch` did with the chosen logits `z` (B x K)."""

    setup: TrainingSetup
    batch: Any
    z: Tensor
    inputs: list[Tensor] = field(default_factory=list)  # of each call of the net
    calls: list[tuple[Tensor, Any]] = field(default_factory=list)  # what the loss was given
    values: list[float] = field(default_factory=list)  # of the loss, for each call
    reported: float = math.nan  # loss that train_step returned
    more_inputs: bool = False  # whether the net was given more than samples, or has hooks
    gradient: Tensor | None = None  # B x K, that came back to `z`


def step_on_logits(ctx: Context, setup: TrainingSetup, batch: Any, z: Tensor) -> StepTrace:
    """One train_step in which the net's outputs are the rows of `z` (B x K), taken in turn."""
    trace = StepTrace(setup, batch, z.to(device_of(setup.model)).clone().requires_grad_())
    position = 0
    learn = [p for p in setup.model.parameters() if p.requires_grad]
    trace.more_inputs = any(m._forward_hooks or m._forward_pre_hooks for m in setup.model.modules())

    def forward(x: Tensor, *more: Any, **named: Any) -> Tensor:
        nonlocal position
        trace.more_inputs |= bool(more or named)
        if position + len(x) > len(trace.z):
            position = 0
        rows = trace.z[position : position + len(x)]
        position += len(x)
        trace.inputs.append(x.detach())
        rows = rows.log_softmax(1) if ctx.log_probabilities else rows
        # Zero gradients for the parameters: a scaler or a clip may insist on some.
        return rows + 0 * sum(p.flatten()[0] for p in learn)

    loss_fn = setup.loss_fn

    def recorded_loss(logits: Tensor, target: Any, *rest: Any, **more: Any) -> Any:
        value = loss_fn(logits, target, *rest, **more)
        if isinstance(value, Tensor) and torch.is_grad_enabled():
            trace.calls.append((logits.detach(), target))
            trace.values.append(float(value.detach().mean()))
        return value

    with (
        patch.object(setup, "loss_fn", recorded_loss),
        patch.object(setup.model, "forward", forward),
    ):
        trace.reported = ctx.step(setup, batch)
    trace.gradient = None if trace.z.grad is None else trace.z.grad.detach().cpu()
    return trace


def loss_of_step(ctx: Context, setup: TrainingSetup, x: Tensor, count: int) -> LossAndGradient:
    """Loss and gradient of the whole step, for a step that computes a loss of its own."""

    def loss_and_gradient(z: Tensor, labels: Tensor) -> tuple[float, Tensor]:
        inputs = x[torch.arange(len(labels)) % count]
        trace = step_on_logits(ctx, setup, (inputs, ctx.target(labels, z)), z)
        gradient = torch.zeros_like(z) if trace.gradient is None else trace.gradient
        return trace.reported, gradient * ctx.declared.accumulate

    return loss_and_gradient


def check_step_and_loss(ctx: Context) -> list[Check]:
    """The loss function alone, then the step around it."""
    setup, batch = ctx.fresh(), ctx.batches[0]
    alone, count = loss_alone(ctx, setup), len(labels_of(batch))
    z = 2 * torch.randn(count, ctx.width, generator=torch.Generator().manual_seed(2))
    trace = step_on_logits(ctx, setup, batch, z)
    stops = _without_gradient(trace)
    if stops is not None:
        return [stops, *check_loss(ctx, alone)]
    x = split_batch(batch)[0]
    if not trace.calls:  # a loss of its own: the step is the black box
        text = "train_step computes its loss without setup.loss_fn; judged as it comes out of the "
        found = check_loss(ctx, loss_of_step(ctx, setup, x, count), "step_loss")
        return [*found, ok("step_loss_fn", None, None, f"{text}step")]
    found = check_loss(ctx, alone)
    if not any(check.status == "fail" for check in found):
        found += check_smoothing(ctx, alone, _smoothing_of_targets(trace))
    inputs, last = _later_inputs(ctx, setup, x)
    path = [_check_logits(trace), _check_targets(ctx, last)]
    found += [inputs, *path]
    if all(check.status == "pass" for check in path):
        found += _check_scale(ctx, trace)
    return found


def _without_gradient(trace: StepTrace) -> Check | None:
    """A step that does not use the net, or whose gradient does not come back to its outputs."""
    gradient, id = trace.gradient, "step_backward"
    if not trace.inputs:
        return fail("step_model", 0.0, 1.0, "train_step did not call setup.model", "model_not_used")
    if gradient is not None and not bool(gradient.isfinite().all()):
        text = "the gradient of usual logits is NaN or infinite"
        return fail(id, None, None, text, "loss_not_finite", "precision")
    if gradient is None or not bool(gradient.abs().max() > 0):
        causes = ["backward_missing", "activation_before_loss", "gradient_blocked"]
        return fail(id, 0.0, None, "train_step gave no gradient to the net's outputs", *causes)
    return None


def _smoothing_of_targets(trace: StepTrace) -> float:
    """Smoothing that the targets carry when they reach the loss: K times their smallest share."""
    target = trace.calls[0][1]
    shares = isinstance(target, Tensor) and are_shares(target) and target.is_floating_point()
    return float(target.min() * target.shape[1]) if shares else 0.0


def _later_inputs(ctx: Context, setup: TrainingSetup, before: Any) -> tuple[Check, StepTrace]:
    """More batches show what the step kept and how it mixes. Returns the finding and its step."""
    for batch in [*ctx.batches[1:5], ctx.batches[0]]:
        z = 2 * torch.randn(len(labels_of(batch)), ctx.width, generator=torch.Generator())
        trace = step_on_logits(ctx, setup, batch, z)
        check = _check_inputs(ctx, trace, before)
        if check.status != "pass":
            break
        before = split_batch(batch)[0]
    return check, trace


def _same_rows(a: Tensor, b: Tensor, tolerance: float = CLOSE) -> bool:
    close = tolerance * float(b.abs().nan_to_num().max())
    return a.shape == b.shape and torch.allclose(a.float(), b.float(), tolerance, close)


def _check_inputs(ctx: Context, trace: StepTrace, before: Any) -> Check:
    """Samples enter in the batch's order, labels mixed alike. `before`: the inputs before these."""
    id, mixed = "step_inputs", ["mixed_labels_differ", "targets_changed_in_step"]
    x, labels = split_batch(trace.batch)[0], labels_of(trace.batch)
    count = sum(len(part) for part in trace.inputs)
    if isinstance(x, Tensor) and count < len(x):
        text = f"the net saw {count} of the {len(x)} images of the batch"
        return fail(id, count / len(x), 1.0, text, "step_ignores_part_of_batch")
    entered = torch.cat([part.cpu() for part in trace.inputs])
    unknown = ok(id, None, None, "inputs are changed in the step; not compared")
    if not isinstance(x, Tensor) or count % len(x):
        return unknown
    rows, own = entered[: len(x)].float(), x.detach().cpu().float()
    if rows.shape != own.shape:
        return unknown
    shares = None if ctx.soft else _mixed_shares(ctx, trace, labels)
    if _same_rows(rows, own):
        judged = ctx.width > 2 and not trace.more_inputs
        if judged and shares is not None and mixing.labels_alone(labels, shares):
            text = "labels are mixed within the batch, and the images enter the net as they are"
            return warn(id, 0.0, 1.0, text, *mixed)
        return ok(id, 1.0, 1.0, "images enter the net in the order of the batch")
    earlier = before.detach().cpu().float() if isinstance(before, Tensor) else rows[:0]
    if _same_rows(rows, earlier):
        text = "the net is given the images of an earlier batch"
        return fail(id, 0.0, 1.0, text, "inputs_changed_in_step")
    parts = mixing.take_apart(rows, own) if shares is not None else None
    if parts is None or shares is None:
        return unknown
    value, how = mixing.judge(parts, labels, shares)
    if not how:
        return ok(id, 0.0, 0.0, "mixed images and their labels were recounted")
    text = f"{value:.0%} of the images enter the net as, or mixed with, others of the batch, "
    if how == mixing.UNCHANGED:
        mixed = ["inputs_changed_in_step", "mixed_labels_differ"]
    return fail(id, value, 0.0, f"{text}and {how}", *mixed)


def _mixed_shares(ctx: Context, trace: StepTrace, labels: Tensor) -> Tensor | None:
    """Targets that reached the loss, as shares B x K without smoothing: of one call, or of several,
    weighted as the step's gradient shows. None where that cannot be told."""
    targets = [target for _, target in trace.calls]
    if not targets or not all(isinstance(target, Tensor) for target in targets):
        return None
    if int(labels.min()) < 0 or int(labels.max()) >= ctx.width or ctx.width < 2:
        return None
    smoothing = ctx.declared.label_smoothing or 0.0
    if len(targets) == len(trace.inputs):
        rows = torch.cat([target.detach().cpu() for target in targets])
    elif len(trace.inputs) == 1 and trace.gradient is not None:
        weights = _weights_of_calls(ctx, trace)[0]
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


def _check_logits(trace: StepTrace) -> Check:
    """What the net gave is what the loss gets."""
    id, z = "step_logits", trace.z.detach().cpu()
    got = torch.cat([logits.reshape(len(logits), -1) for logits, _ in trace.calls]).cpu().float()
    given = torch.cat([z] * max(1, len(got) // len(z)))
    if got.shape[0] < len(z):
        text = f"the loss saw {len(got)} of the {len(z)} rows"
        return fail(id, len(got) / len(z), 1.0, text, "step_ignores_part_of_batch")
    if _same_rows(got, given, HALF_CLOSE):
        return ok(id, 1.0, 1.0, "the net's outputs reach the loss as they are")
    if got.shape != given.shape:
        text = f"the loss got logits of shape {tuple(got.shape)} for {tuple(given.shape)}"
        return warn(id, None, None, text, "logits_changed_in_step")
    if _same_rows(got, given.log_softmax(1), HALF_CLOSE):
        text = "log_softmax before the loss: harmless for cross-entropy, which does it again"
        return ok(id, 1.0, 1.0, text)
    activations = {
        "softmax": given.softmax(1),
        "sigmoid": given.sigmoid(),
        "tanh": given.tanh(),
        "relu": given.relu(),
        "softmax over the batch": given.softmax(0),
    }
    for name, activation in activations.items():
        if _same_rows(got, activation, HALF_CLOSE):
            cause = "loss_over_batch_axis" if "batch" in name else "activation_before_loss"
            text = f"the step puts a {name} between the net and the loss"
            return fail(id, None, None, text, cause)
    factor = float((got * given).sum() / (given * given).sum())
    if factor and _same_rows(got, given * factor, HALF_CLOSE):
        status = "warn" if 1 / 12 < factor < 12 else "fail"
        text = f"the step multiplies the logits by {factor:.3g}"
        causes = ["temperature"] if factor > 0 else ["loss_sign", "temperature"]
        return finding(status, id, factor, 1.0, text, *causes)
    if (torch.cdist(got, given).min(1).values < 1e-3).all():
        text = "the step brings the logits into another order than the labels"
        return fail(id, None, None, text, "inputs_changed_in_step")
    causes = ["logits_changed_in_step", "activation_before_loss"]
    return warn(id, None, None, "the step changes the net's outputs before the loss", *causes)


def _check_targets(ctx: Context, trace: StepTrace) -> Check:
    """The labels of the batch are what the loss gets; mixed ones must hold a share of them."""
    id, wanted = "step_targets", labels_of(trace.batch)
    got = [target for _, target in trace.calls if isinstance(target, Tensor)]
    if not got:
        return ok(id, None, None, "targets are no tensors; not compared")
    if got[0].shape[0] < len(wanted):  # in parts
        got = [torch.cat([part.detach().cpu() for part in got])]
    first = got[0].detach().cpu()
    hard = [as_labels(target)[: len(wanted)] for target in got]
    if any(torch.equal(labels, wanted) for labels in hard):
        return ok(id, 1.0, 1.0, "the labels of the batch reach the loss")
    if first.shape == (len(wanted), ctx.width) and first.is_floating_point():
        share = first[torch.arange(len(wanted)), wanted]
        if bool((share > first.min(dim=1).values + 1e-6).float().mean() > 0.9):
            return ok(id, None, None, "targets are mixed; each holds its own label")
    same = (hard[0] == wanted[: len(hard[0])]).float().mean().item()
    shift = (hard[0] - wanted[: len(hard[0])]) % ctx.classes
    how = f"all by {int(shift[0])}" if (shift == shift[0]).all() else "from row to row"
    text = f"only {same:.0%} of the labels reach the loss unchanged ({how})"
    return fail(id, same, 1.0, text, "targets_changed_in_step", "loss_label_shifted")


def _weights_of_calls(ctx: Context, trace: StepTrace) -> tuple[Tensor, list[Tensor], Tensor]:
    """Weight of each loss call in the step's gradient, the calls' gradients, their weighted sum.
    Calls on the whole batch add up by share; calls on parts follow one another with one weight."""
    assert trace.gradient is not None
    parts = []
    for logits, target in trace.calls:
        z = logits.detach().clone().float().requires_grad_()
        loss = trace.setup.loss_fn(z.log_softmax(1) if ctx.log_probabilities else z, target)
        loss = loss if loss.ndim == 0 else loss.mean()
        (gradient,) = torch.autograd.grad(loss, z)
        parts.append(gradient.cpu())
    if all(len(part) == len(trace.z) for part in parts):
        basis = torch.stack([part.flatten() for part in parts], 1).double()
    else:
        basis = torch.cat(parts).reshape(-1, 1).double()
    made = trace.gradient.flatten().double()
    weights = torch.linalg.lstsq(basis, made[:, None]).solution[:, 0]
    return weights, parts, basis @ weights


def _check_scale(ctx: Context, trace: StepTrace) -> list[Check]:
    """The step's gradient against that of the loss alone, and the reported loss against it."""
    assert trace.gradient is not None
    weights, parts, fitted = _weights_of_calls(ctx, trace)
    made, count = trace.gradient.flatten().double(), len(trace.z)
    whole = all(len(part) == count for part in parts)
    cosine = float(made @ fitted / (made.norm() * fitted.norm()).clamp_min(1e-30))
    factor = float(weights.sum()) * (1 if whole else len(parts))
    id, accumulate = "gradient_scale", ctx.declared.accumulate
    expected = 1 / accumulate
    passes = len(trace.inputs) if all(len(part) == count for part in trace.inputs) else 1
    if passes > 1 and math.isclose(factor, passes * expected, rel_tol=SCALE_OFF):
        expected *= passes  # each forward pass of the whole batch has a loss: sharpness-aware steps
    text = f"the step's gradient is {factor:.4g} x that of the loss, expected {expected:.4g}"
    off, scale = factor / expected, ok(id, factor, expected, text)
    if cosine < 0.99:
        text = f"the step's gradient is not that of the loss (cosine {cosine:.2f})"
        scale = warn(id, cosine, 0.99, text, "logits_changed_in_step", "gradient_changed")
    elif factor < 0:
        scale = fail(id, factor, expected, text, "loss_sign", "gradient_sign_flipped")
    elif ctx.loss_reduction == "sum":
        ratio = factor * count / expected
        if abs(math.log(ratio)) > math.log(1.5):
            text += f", and the loss is summed over {count} images"
            scale = fail(id, ratio, 1.5, text, "loss_reduction_sum", "loss_scale")
    elif ctx.declared.precision == "fp16" and factor > 100:
        scale = ok(id, factor, expected, "the gradient is scaled for fp16")
    elif abs(off - 1) > SCALE_OFF:
        causes = ["loss_scale", "gradient_not_divided_by_accumulate"]
        # Micro-batches of several calls, or those that one call cuts its batch into.
        summed = accumulate if accumulate > 1 else 0 if whole else len(parts)
        if math.isclose(off, summed, rel_tol=0.05):
            causes.reverse()
        status = "fail" if not 1 / 4 < off < 4 or causes[0] != "loss_scale" else "warn"
        scale = finding(status, id, factor, expected, text, *causes)
    return [scale, *_check_reported_loss(ctx, trace, factor)]


def _check_reported_loss(ctx: Context, trace: StepTrace, factor: float) -> list[Check]:
    """The loss that train_step returned, up to division by accumulate or the batch."""
    id, reported, accumulate = "reported_loss", trace.reported, ctx.declared.accumulate
    value, count = sum(trace.values) / len(trace.values), len(trace.z)
    if not math.isfinite(reported):
        text = f"train_step reports a loss of {reported}"
        return [fail(id, None, value, text, "reported_loss_differs")]
    shares = {1.0, 1 / accumulate, float(accumulate), float(count), 1 / count, factor}
    near = any(math.isclose(reported, value * share, rel_tol=0.02) for share in shares)
    text = f"train_step reports {reported:.4g}, its loss was {value:.4g}"
    more = len(trace.calls) > 1
    return [] if near or more else [warn(id, reported, value, text, "reported_loss_differs")]
