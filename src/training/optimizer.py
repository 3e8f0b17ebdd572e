"""Optimizer and learning-rate schedule, from timm's factories."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch
from timm.scheduler import create_scheduler_v2
from timm.scheduler.scheduler import Scheduler
from torch import nn
from torch.optim import SGD, Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau

from src.base.eager import absent
from src.plumbing.errors import InputError
from src.plumbing.params import did_you_mean

with absent("torch.distributed.tensor"):  # Muon asks for it, for nets on many GPUs: 0.5 s of CPU
    from timm.optim import create_optimizer_v2, get_optimizer_class, list_optimizers


def create_optimizer(model: nn.Module, params: Mapping[str, Any], lr: float) -> Optimizer:
    """The timm optimizer that params name: `adamw`, `sgd` with Nesterov momentum, or another. No
    weight decay on biases and norms. `layer_decay` < 1: a layer's rate is that of the next one
    times it. `fused` counts where the optimizer has such a step (adamw, adam, adagrad). InputError
    for a name or switch that does not fit, or a net in which nothing learns."""
    name = params["optimizer"]
    if name not in list_optimizers():
        hint = did_you_mean(name, list_optimizers())
        raise InputError(
            f"params.yaml: optimizer must be the name of a timm optimizer, got '{name}'{hint}"
        )
    if name == "sgd" and not params["momentum"]:
        name = "momentum"  # timm's `sgd` is Nesterov's, which needs some; this is plain SGD
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise InputError(f"params.yaml: model {params['model']} has no parameters that learn")
    options: dict[str, Any] = {}
    if params["layer_decay"] < 1:
        if not hasattr(model, "group_matcher"):
            raise InputError(
                f"params.yaml: layer_decay must be 1 for model {params['model']}: only nets of "
                "timm say which layer is which"
            )
        options["layer_decay"] = params["layer_decay"]
    try:
        kind = get_optimizer_class(name, bind_defaults=False)
        if params["fused"] and _has_fused_step(kind):
            options["fused"] = True
        optimizer = create_optimizer_v2(
            model,
            opt=name,
            lr=lr,
            momentum=params["momentum"],
            weight_decay=params["weight_decay"],
            **options,
        )
    except (TypeError, RuntimeError, ValueError, AssertionError, ImportError) as error:
        reason = " ".join(str(error).split())[:120]
        also = ", or fused false" if "fused" in options else ""
        raise InputError(
            f"params.yaml: optimizer {name} cannot be made ({reason}): set another one{also}"
        ) from None
    if getattr(optimizer, "is_second_order", False):
        raise InputError(
            f"params.yaml: optimizer {name} needs second derivatives, which train does not compute"
        )
    return optimizer


def _has_fused_step(kind: Callable[..., Optimizer]) -> bool:
    """Not SGD: torch's fused step of it fails for parameters whose first gradient comes later than
    that of others, as after `freeze_epochs` (torch 2.15)."""
    return kind is not SGD and "fused" in inspect.signature(kind).parameters


def create_scheduler(
    optimizer: Optimizer, params: Mapping[str, Any], lr: float, steps: int
) -> "Scheduler | Plateau":
    """A schedule that is stepped after each optimizer step (`step_update(steps done)`) and after
    each epoch (`step(epochs done, metric)`); `steps` per epoch. `warmup` in epochs, from lr /
    (number of warm-up steps) up to lr. Then `constant` holds lr, `cosine` ends at 0, `step` drops
    by `decay_rate` every `decay_epochs`, `plateau` after that many epochs without a gain of the
    metric `best_by`."""
    warmup, plateau = params["warmup"], params["schedule"] == "plateau"
    scheduler, _ = create_scheduler_v2(
        optimizer,
        sched="constant" if plateau else params["schedule"],
        num_epochs=params["epochs"],
        decay_epochs=params["decay_epochs"],
        decay_rate=params["decay_rate"],
        min_lr=0.0,
        warmup_epochs=warmup,
        warmup_lr=lr / max(1.0, warmup * steps),
        step_on_epochs=False,
        updates_per_epoch=steps,
    )
    assert scheduler is not None
    return Plateau(scheduler, optimizer, params) if plateau else scheduler


class Plateau:
    """timm's warm-up, then torch's ReduceLROnPlateau on a stand-in, whose rate becomes a factor on
    all groups' rates. timm's own plateau schedule is deprecated and forgets its counters in a
    checkpoint."""

    def __init__(self, warmup: Scheduler, optimizer: Optimizer, params: Mapping[str, Any]):
        self.warmup, self.optimizer, self.warmup_epochs = warmup, optimizer, params["warmup"]
        self._stand_in = SGD([torch.zeros(1)], lr=1.0)
        self.plateau = ReduceLROnPlateau(
            self._stand_in,
            mode="min" if params["best_by"] == "val/loss" else "max",
            factor=params["decay_rate"],
            patience=params["decay_epochs"] - 1,  # torch counts the epochs that it forgives
        )

    @property
    def factor(self) -> float:
        """The share of lr that is left."""
        return self._stand_in.param_groups[0]["lr"]

    def step_update(self, num_updates: int) -> None:
        """Set the rates for the next step; `num_updates` steps are done."""
        self.warmup.step_update(num_updates)
        for group in self.optimizer.param_groups:
            group["lr"] *= self.factor

    def step(self, epoch: int, metric: float) -> None:
        """`epoch` epochs are done, the last with this value of the metric."""
        if epoch <= self.warmup_epochs:
            return
        before = self.factor
        self.plateau.step(metric)
        for group in self.optimizer.param_groups:
            group["lr"] *= self.factor / before

    def state_dict(self) -> dict[str, Any]:
        return {
            "warmup": self.warmup.state_dict(),
            "plateau": self.plateau.state_dict(),
            "factor": self.factor,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.warmup.load_state_dict(state["warmup"])
        self.plateau.load_state_dict(state["plateau"])
        self._stand_in.param_groups[0]["lr"] = state["factor"]
