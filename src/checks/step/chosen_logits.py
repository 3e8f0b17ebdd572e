"""One training step whose net gives logits that a check chose.

What reaches the loss, and what gradient comes back, can then be compared exactly with the loss
function alone: no training, no dependence on the architecture.
"""

import math
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

from src.checks.context import Context
from src.checks.loss.confident_logits import LossAndGradient
from src.checks.reading import device_of
from src.checks.training_setup import TrainingSetup


@dataclass
class StepTrace:
    """What one call of train_step on `batch` did with the chosen logits `z` (B x K)."""

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
    trace = StepTrace(batch, z.to(device_of(setup.model)).clone().requires_grad_())
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
