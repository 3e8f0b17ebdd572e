"""What can be read without training: optimizer, freezing, schedule, settings of layers."""

import math

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from src.checks.context import Context
from src.checks.report import Check
from src.checks.setup import TrainingSetup

DECAY_FAIL, DECAY_WARN = 2e-2, 2e-3  # lr x weight_decay: what a step takes off each weight
LARGE = 15.0  # times 1 / sqrt(fan in); usual initialisations lie below 2 (by formula)


def check_optimizer(ctx: Context) -> list[Check]:
    """All that learns is in the optimizer, and nothing rests that was not declared."""
    setup = ctx.fresh()
    groups = setup.optimizer.param_groups
    held = {id(p) for group in groups for p in group["params"]}
    learns = {n: p for n, p in setup.model.named_parameters() if p.requires_grad}
    missing = [name for name, p in learns.items() if id(p) not in held]
    found = []
    if learns and len(missing) == len(learns):
        text = "the optimizer holds no parameter of the net"
        found.append(Check("optimizer_params", "fail", float(len(missing)), 0.0, text,
                           ["optimizer_of_other_model", "parameter_not_in_optimizer"]))  # fmt: skip
    elif missing and not all(ctx.declared.is_frozen(name) for name in missing):
        text = f"the optimizer lacks {len(missing)} of {len(learns)} parameters ({_some(missing)})"
        found.append(Check("optimizer_params", "fail", float(len(missing)), 0.0, text,
                           ["parameter_not_in_optimizer"]))  # fmt: skip
    else:
        text = f"the optimizer holds all {len(learns)} parameters that learn"
        found.append(Check("optimizer_params", "pass", 0.0, 0.0, text))
    steered = getattr(setup.scheduler, "optimizer", setup.optimizer)
    if steered is not setup.optimizer and hasattr(steered, "param_groups"):
        text = "the schedule steers another optimizer"
        found.append(Check("schedule", "fail", 1.0, 0.0, text, ["optimizer_of_other_model"]))
    return [*found, *_frozen(ctx, setup), *_settings(setup, ctx)]


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (" ..." if len(names) > 3 else "")


def _frozen(ctx: Context, setup: TrainingSetup) -> list[Check]:
    names = dict(setup.model.named_parameters())
    rests = [n for n, p in names.items() if not p.requires_grad and not ctx.declared.is_frozen(n)]
    id = "frozen_params"
    if not rests:
        held = {id_ for group in setup.optimizer.param_groups for id_ in map(_key, group["params"])}
        moving = [n for n, p in names.items() if p.requires_grad and ctx.declared.is_frozen(n)
                  and _key(p) in held]  # fmt: skip
        if moving:
            text = f"{len(moving)} parameters declared frozen are trained ({_some(moving)})"
            return [Check(id, "fail", float(len(moving)), 0.0, text, ["frozen_parameter_moves"])]
        return [Check(id, "pass", 0.0, 0.0, "only what is declared frozen rests")]
    text = f"{len(rests)} of {len(names)} parameters rest undeclared ({_some(rests)})"
    status = "warn" if ctx.declared.frozen is None and len(rests) < len(names) else "fail"
    return [Check(id, status, float(len(rests)), 0.0, text, ["parameter_frozen"])]


def _key(p: torch.Tensor) -> int:
    return id(p)


def _settings(setup: TrainingSetup, ctx: Context) -> list[Check]:
    """Momentum, eps, decay and direction of the optimizer."""
    found = []
    id = "optimizer_settings"
    for number, group in enumerate(setup.optimizer.param_groups):
        lr = ctx.peak_lrs[number] if number < len(ctx.peak_lrs) else float(group.get("lr", 0))
        momentum = float(group.get("momentum", 0) or 0)
        betas = group.get("betas") or (0.0, 0.0)
        fast = max(momentum, float(betas[0]))
        eps = float(group.get("eps", 0) or 0)
        if group.get("maximize"):
            found.append(Check(id, "fail", 1.0, 0.0, "the optimizer maximises the loss",
                               ["gradient_sign_flipped"]))  # fmt: skip
        if fast >= 0.995 or float(betas[-1]) >= 1:
            status = "fail" if fast >= 0.9999 or float(betas[-1]) >= 1 else "warn"
            text = f"momentum {fast:g} averages over {1 / max(1e-9, 1 - fast):.0f} steps"
            found.append(Check(id, status, fast, 0.995, text, ["momentum_too_high"]))
        if eps > 1e-3 and "betas" in group:
            text = f"eps {eps:g} is larger than most gradients"
            status = "fail" if eps >= 0.1 else "warn"
            found.append(Check(id, status, eps, 1e-3, text, ["optimizer_eps"]))
        taken = lr * float(group.get("weight_decay", 0) or 0)
        if taken > DECAY_WARN:
            status = "fail" if taken > DECAY_FAIL else "warn"
            text = f"lr x weight_decay {taken:.2g}: each step takes that share off the weights"
            found.append(Check("weight_decay", status, taken, DECAY_FAIL, text,
                               ["weight_decay_too_high", "lr_too_high"]))  # fmt: skip
        if lr == 0 and any(p.requires_grad for p in group["params"]):
            text = f"the learning rate of group {number} is 0 throughout"
            causes = ["lr_too_low", "schedule_too_short"][: 1 + (setup.scheduler is not None)]
            found.append(Check("lr_zero", "fail", 0.0, 0.0, text, causes))
        if not math.isfinite(lr) or lr < 0:
            found.append(Check("lr_zero", "fail", None, 0.0, f"the learning rate is {lr}",
                               ["lr_too_high"]))  # fmt: skip
    unique = {(check.id, check.message): check for check in found}
    return list(unique.values()) or [Check(id, "pass", None, None, "usual optimizer settings")]


def check_layers(ctx: Context) -> list[Check]:
    """Settings of BatchNorm and dropout, and weights as they start."""
    setup = ctx.fresh()
    found = []
    for name, layer in setup.model.named_modules():
        if isinstance(layer, _BatchNorm) and layer.track_running_stats:
            momentum = layer.momentum
            if momentum is not None and (momentum < 0.005 or momentum > 0.98):
                status = "fail" if momentum < 5e-4 else "warn"
                text = f"BatchNorm {name} has momentum {momentum:g} (usual: 0.1, 0.01)"
                found.append(Check("batchnorm", status, momentum, 0.005, text,
                                   ["batchnorm_momentum", "train_eval_differ"]))  # fmt: skip
        if isinstance(layer, nn.modules.dropout._DropoutNd) and layer.p > 0.75:
            status = "fail" if layer.p > 0.95 else "warn"
            text = f"{name} drops {layer.p:.0%}"
            found.append(Check("dropout", status, layer.p, 0.75, text, ["dropout_too_high"]))
        found += _start(name, layer)
    unique: dict[str, Check] = {}
    for check in found:
        unique.setdefault(check.id, check)
    return list(unique.values()) or [
        Check("layers", "pass", None, None, "usual settings of layers")
    ]


def _start(name: str, layer: nn.Module) -> list[Check]:
    """Weights of a layer that cannot learn as they are: NaN, all the same, far too large."""
    weight = getattr(layer, "weight", None)
    if not isinstance(layer, nn.Linear | nn.Conv1d | nn.Conv2d) or weight is None:
        return []
    w = weight.detach().float()
    if not bool(w.isfinite().all()):
        return [Check("weights", "fail", None, None, f"{name} holds NaN or infinity",
                      ["bad_initialisation"])]  # fmt: skip
    if w.numel() > 4 and bool((w == w.flatten()[0]).all()) and bool(w.any()):
        return [Check("weights", "fail", 0.0, None, f"all weights of {name} are equal",
                      ["bad_initialisation"])]  # fmt: skip
    rows = w.reshape(len(w), -1)
    if len(rows) > 1 and bool(w.any()) and bool((rows == rows[0]).all()):
        return [Check("weights", "fail", 0.0, None, f"all units of {name} have the same weights",
                      ["bad_initialisation"])]  # fmt: skip
    gain = float(w.std()) * rows.shape[1] ** 0.5 if w.numel() > 1 else 1.0
    if gain > LARGE:
        text = f"weights of {name} are {gain:.0f} times as large as keeps the size of signals"
        return [Check("weights", "warn", gain, LARGE, text, ["bad_initialisation"])]
    return []
