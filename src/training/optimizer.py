"""Optimizer and learning-rate schedule, both from timm's factories."""

from timm.optim import create_optimizer_v2
from timm.scheduler import create_scheduler_v2
from timm.scheduler.scheduler import Scheduler
from torch import nn
from torch.optim import Optimizer


def create_optimizer(
    model: nn.Module, name: str, lr: float, momentum: float, weight_decay: float
) -> Optimizer:
    """`adamw`, or `sgd` with Nesterov momentum; no weight decay on biases and norms."""
    return create_optimizer_v2(model, opt=name, lr=lr, momentum=momentum, weight_decay=weight_decay)


def create_scheduler(
    optimizer: Optimizer, schedule: str, warmup: float, epochs: int, steps: int, lr: float
) -> Scheduler:
    """A schedule that is stepped once per optimizer step (`scheduler.step_update(step)`).

    `warmup` in epochs, from lr / (number of warm-up steps) up to lr; `steps` per epoch. `constant`
    holds lr after the warm-up; `cosine` ends at 0.
    """
    scheduler, _ = create_scheduler_v2(
        optimizer,
        sched=schedule,
        num_epochs=epochs,
        min_lr=0.0,
        warmup_epochs=warmup,  # type: ignore[arg-type]  # a fraction of an epoch is fine by steps
        warmup_lr=lr / max(1.0, warmup * steps),
        step_on_epochs=False,
        updates_per_epoch=steps,
    )
    assert scheduler is not None
    return scheduler
