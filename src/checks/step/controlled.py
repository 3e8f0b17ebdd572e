"""The step by itself: its net is replaced by one whose outputs are logits of our choice.

What reaches the loss, and what gradient comes back, can then be compared exactly with the loss
function alone. No training, no dependence on the architecture.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from src.checks.context import Context, device_of, labels_of, split_batch
from src.checks.loss.confident import ValueAndGradient
from src.checks.loss.contract import check_loss, direct
from src.checks.loss.smoothing import check_smoothing
from src.checks.report import Check
from src.checks.setup import TrainingSetup
from src.checks.step import batch_to_gradient
from src.checks.step.batch_to_gradient import Seen


@contextmanager
def patched_forward(model: nn.Module, replacement: Callable[..., Any]) -> Iterator[None]:
    """`replacement` in the place of the net's forward."""
    own = model.__dict__.get("forward")
    model.__dict__["forward"] = replacement
    try:
        yield
    finally:
        if own is None:
            model.__dict__.pop("forward", None)
        else:
            model.__dict__["forward"] = own


def stub_step(ctx: Context, setup: TrainingSetup, batch: Any, z: Tensor) -> Seen:
    """One train_step in which the net's outputs are the rows of `z` (B x K), taken in turn."""
    seen = Seen(z.to(device_of(setup.model)).clone().requires_grad_())
    position = 0
    touched = [p for p in setup.model.parameters() if p.requires_grad]

    seen.told_more = any(m._forward_hooks or m._forward_pre_hooks for m in setup.model.modules())

    def forward(x: Tensor, *more: Any, **named: Any) -> Tensor:
        nonlocal position
        count = len(x)
        seen.told_more |= bool(more or named)
        if position + count > len(seen.z):
            position = 0
        rows = seen.z[position : position + count]
        position += count
        seen.inputs.append(x.detach())
        rows = rows.log_softmax(1) if ctx.log_probabilities else rows
        # Zero gradients for the parameters: a scaler or a clip may insist on some.
        return rows + 0 * sum(p.flatten()[0] for p in touched)

    loss_fn = setup.loss_fn

    def spied(logits: Tensor, target: Any, *rest: Any, **more: Any) -> Any:
        value = loss_fn(logits, target, *rest, **more)
        if isinstance(value, Tensor) and torch.is_grad_enabled():
            seen.calls.append((logits.detach(), target))
            seen.values.append(float(value.detach().mean()))
        return value

    setup.loss_fn = spied
    try:
        with patched_forward(setup.model, forward):
            seen.reported = ctx.step(setup, batch)
    finally:
        setup.loss_fn = loss_fn
    seen.gradient = None if seen.z.grad is None else seen.z.grad.detach().cpu()
    return seen


def check_stub(ctx: Context) -> list[Check]:
    """The loss function alone, then the step around it."""
    setup = ctx.fresh()
    vg = direct(ctx, setup)
    batch = ctx.batches[0]
    x, targets = split_batch(batch)
    labels = labels_of(targets)
    z = 2 * torch.randn(len(labels), ctx.width, generator=torch.Generator().manual_seed(2))
    seen = stub_step(ctx, setup, batch, z)
    if not seen.inputs:
        text = "train_step did not call setup.model"
        return [
            Check("step_model", "fail", 0.0, 1.0, text, ["model_not_used"]),
            *check_loss(ctx, vg),
        ]
    if seen.gradient is not None and not bool(seen.gradient.isfinite().all()):
        text = "the gradient of usual logits is NaN or infinite"
        causes = ["loss_not_finite", "precision"]
        return [Check("step_backward", "fail", None, None, text, causes), *check_loss(ctx, vg)]
    if seen.gradient is None or not bool(seen.gradient.abs().max() > 0):
        text = "train_step gave no gradient to the net's outputs"
        causes = ["backward_missing", "activation_before_loss", "gradient_blocked"]
        return [Check("step_backward", "fail", 0.0, None, text, causes), *check_loss(ctx, vg)]
    if not seen.calls:  # a loss of its own: the step is the black box
        found = check_loss(ctx, through_step(ctx, setup, x, len(labels)), "step_loss")
        return [*found, *_unused_loss(ctx, vg)]
    also = _smoothing_of(ctx, seen)
    found = check_loss(ctx, vg)
    if not any(check.status == "fail" for check in found):
        found += check_smoothing(ctx, vg, also)
    found.append(_later_calls(ctx, setup, x))
    found.append(batch_to_gradient.check_logits(seen))
    found.append(batch_to_gradient.check_targets(ctx, *ctx.later))
    if found[-1].status == found[-2].status == "pass":
        found += batch_to_gradient.check_scale(ctx, setup, seen, len(labels))
    return found


def _later_calls(ctx: Context, setup: TrainingSetup, before: Any) -> Check:
    """Some more batches: what the step kept of the ones before shows, and so does mixing, whose
    share is often near 0 or 1."""
    for batch in [*ctx.batches[1:5], ctx.batches[0]]:
        x, targets = split_batch(batch)
        z = 2 * torch.randn(len(labels_of(targets)), ctx.width, generator=torch.Generator())
        seen = stub_step(ctx, setup, batch, z)
        told, ctx.later = (
            batch_to_gradient.check_inputs(ctx, setup, x, targets, seen, before),
            (targets, seen),
        )
        if told.status != "pass":
            break
        before = x
    return told


def _unused_loss(ctx: Context, vg: ValueAndGradient) -> list[Check]:
    text = "train_step computes its loss without setup.loss_fn; judged as it comes out of the step"
    return [Check("step_loss_fn", "pass", None, None, text)]


def through_step(ctx: Context, setup: TrainingSetup, x: Tensor, count: int) -> ValueAndGradient:
    """Loss and gradient of the whole step, as the properties of a loss want them."""

    def value_and_gradient(z: Tensor, labels: Tensor) -> tuple[float, Tensor]:
        inputs = x[torch.arange(len(labels)) % count]
        seen = stub_step(ctx, setup, (inputs, ctx.target(labels, z)), z)
        gradient = torch.zeros_like(z) if seen.gradient is None else seen.gradient
        return seen.reported, gradient * ctx.declared.accumulate

    return value_and_gradient


def _smoothing_of(ctx: Context, seen: Seen) -> float:
    """Smoothing that the targets carry when they reach the loss: K times their smallest share."""
    target = seen.calls[0][1]
    if not isinstance(target, Tensor) or target.ndim != 2 or not target.is_floating_point():
        return 0.0
    return float(target.min() * target.shape[1]) if target.shape[1] > 1 else 0.0
