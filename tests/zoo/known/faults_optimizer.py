"""Faults of optimizer and schedule: what they work on, and with which numbers."""

from collections.abc import Iterable
from copy import deepcopy
from dataclasses import replace
from typing import Any

import torch
from torch import nn
from torch.optim import lr_scheduler

from tests.zoo.known.bases import SmallNet, warmup_cosine
from tests.zoo.known.catalogue import fault
from tests.zoo.known.complete_setup import TrainingSetup


def adamw(setup: TrainingSetup, parameters: Iterable[nn.Parameter], **options: Any) -> None:
    """A new AdamW for digits_resnet or shapes_vit, with the schedule of the first."""
    setup.optimizer = torch.optim.AdamW(
        parameters, **({"lr": 1e-3, "weight_decay": 0.01} | options)
    )
    if setup.scheduler is not None:
        factor = warmup_cosine(setup.declared["total_steps"])
        setup.scheduler = lr_scheduler.LambdaLR(setup.optimizer, factor)


def sgd(setup: TrainingSetup, **options: Any) -> None:
    """Other numbers for two_classes: the optimizer's groups and the schedule's peak."""
    group = setup.optimizer.param_groups[0]
    if "lr" in options:
        ratio = options["lr"] / group["initial_lr"]
        for scheduler in [*setup.scheduler._schedulers, setup.scheduler]:
            scheduler.base_lrs = [lr * ratio for lr in getattr(scheduler, "base_lrs", [])]
        group["lr"] *= ratio
        group["initial_lr"] *= ratio
    group.update({key: value for key, value in options.items() if key != "lr"})


@fault("two_classes", causes=["optimizer_of_other_model", "parameter_not_in_optimizer"])
def optimizer_of_other_model(setup: TrainingSetup) -> None:
    """The optimizer was made for a first net, and then the net was made again."""
    setup.model = SmallNet(2)


@fault("digits_resnet", causes=["optimizer_of_other_model", "parameter_not_in_optimizer"])
def model_copied_after_optimizer(setup: TrainingSetup) -> TrainingSetup:
    """The net is copied after the optimizer was made: the optimizer trains the original."""
    return replace(setup, model=deepcopy(setup.model))


@fault("digits_resnet", causes=["parameter_not_in_optimizer", "optimizer_of_other_model"])
def head_replaced_after_optimizer(setup: TrainingSetup) -> None:
    """The head is replaced after the optimizer was made; the new one is in no group."""
    setup.model.reset_classifier(10)


@fault("digits_resnet", "shapes_vit", causes=["parameter_not_in_optimizer"])
def head_only_in_optimizer(setup: TrainingSetup) -> None:
    """Only the head's parameters were given to the optimizer, nothing is frozen."""
    adamw(setup, setup.model.get_classifier().parameters())


@fault("shapes_vit", causes=["parameter_not_in_optimizer"])
def block_missing_in_optimizer(setup: TrainingSetup) -> None:
    """Groups made by name forget one block."""
    named = setup.model.named_parameters()
    adamw(setup, [p for name, p in named if not name.startswith("blocks.1.")])


@fault("pretrained", causes=["parameter_not_in_optimizer"])
def head_group_forgotten(setup: TrainingSetup) -> None:
    """The group of the new head was dropped from the optimizer."""
    del setup.optimizer.param_groups[1]


@fault("shapes_vit", causes=["optimizer_never_steps"], replaces="train_step")
def optimizer_in_step(setup: TrainingSetup, batch: tuple) -> dict:
    """A new optimizer in each step: its state is always empty, and the set-up's own is idle."""
    setup.model.train()
    optimizer = torch.optim.AdamW(setup.model.parameters(), lr=1e-3)
    loss = setup.loss_fn(setup.model(batch[0]), batch[1])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return {"loss": loss.item()}


@fault("digits_resnet", causes=["optimizer_never_steps", "gradient_changed", "model_not_used"])
def weights_restored_each_step(setup: TrainingSetup) -> TrainingSetup:
    """The weights of the start are loaded again before each step."""
    inner, start = setup.train_step, deepcopy(setup.model.state_dict())

    def step(setup: TrainingSetup, batch: tuple) -> dict:
        if hasattr(setup.model, "conv1"):
            setup.model.load_state_dict(start)
        return inner(setup, batch)

    return replace(setup, train_step=step)


@fault("shapes_vit", "pretrained", causes=["lr_too_low"])
def lr_zero(setup: TrainingSetup) -> None:
    """The learning rate is 0."""
    for group in setup.optimizer.param_groups:
        group["lr"] = 0.0


@fault("digits_resnet", "shapes_vit", causes=["lr_too_high"])
def lr_times_1000(setup: TrainingSetup) -> None:
    """AdamW with a learning rate of 1."""
    adamw(setup, setup.model.parameters(), lr=1.0)


@fault("two_classes", causes=["lr_too_high"])
def sgd_lr_times_1000(setup: TrainingSetup) -> None:
    """SGD with a learning rate of 50: 0.05 typed as a percentage, and more."""
    sgd(setup, lr=50.0)


@fault("two_classes", causes=["lr_too_low"])
def sgd_lr_tiny(setup: TrainingSetup) -> None:
    """SGD with a learning rate of 5e-6."""
    sgd(setup, lr=5e-6)


@fault("shapes_vit", "digits_resnet", causes=["lr_too_low"])
def lr_tiny(setup: TrainingSetup) -> None:
    """AdamW with a learning rate of 1e-7."""
    adamw(setup, setup.model.parameters(), lr=1e-7)


@fault("shapes_vit", causes=["gradient_sign_flipped"])
def gradient_ascent(setup: TrainingSetup) -> None:
    """`maximize=True`: the loss goes up."""
    adamw(setup, setup.model.parameters(), maximize=True)


@fault("digits_resnet", causes=["weight_decay_too_high"])
def decay_of_ten(setup: TrainingSetup) -> None:
    """AdamW with weight decay 10."""
    adamw(setup, setup.model.parameters(), weight_decay=10.0)


@fault("two_classes", causes=["weight_decay_too_high"])
def sgd_decay_of_five(setup: TrainingSetup) -> None:
    """SGD with weight decay 5 instead of 5e-4."""
    sgd(setup, weight_decay=5.0)


@fault("two_classes", causes=["momentum_too_high"])
def momentum_0999(setup: TrainingSetup) -> None:
    """SGD with momentum 0.999: a thousand steps of memory in a run of two hundred."""
    sgd(setup, momentum=0.999)


@fault("shapes_vit", causes=["optimizer_eps"])
def adam_eps_one(setup: TrainingSetup) -> None:
    """Adam with eps=1: steps shrink to the size of the gradient."""
    adamw(setup, setup.model.parameters(), eps=1.0)


@fault("two_classes", causes=["gradient_clipped_away"])
def clip_1e_6(setup: TrainingSetup) -> TrainingSetup:
    """Gradients are clipped to a norm of 1e-6."""
    calls = 0

    def step(setup: TrainingSetup, batch: tuple) -> dict:
        nonlocal calls
        setup.model.train()
        loss = setup.loss_fn(setup.model(batch[0]), batch[1])
        (loss / 4).backward()
        calls += 1
        if calls % 4 == 0:
            torch.nn.utils.clip_grad_norm_(setup.model.parameters(), 1e-6)
            setup.optimizer.step()
            setup.scheduler.step()
            setup.optimizer.zero_grad()
        return {"loss": loss.item()}

    return replace(setup, train_step=step)


@fault("two_classes", causes=["gradient_clipped_away", "gradient_changed"])
def clip_value_tiny(setup: TrainingSetup) -> None:
    """Each value of the gradient is clipped to 1e-7."""
    for parameter in setup.model.parameters():
        parameter.register_hook(lambda gradient: gradient.clamp(-1e-7, 1e-7))


@fault("digits_resnet", causes=["schedule_unstable"])
def cosine_over_epochs(setup: TrainingSetup) -> None:
    """A cosine over 10 epochs is stepped in each batch: the rate swings up and down."""
    setup.scheduler = lr_scheduler.CosineAnnealingLR(setup.optimizer, T_max=10)


@fault("digits_resnet", causes=["schedule_too_short"])
def step_decay_per_batch(setup: TrainingSetup) -> None:
    """StepLR meant for epochs is stepped per batch: the rate is halved 40 times before the end."""
    setup.scheduler = lr_scheduler.StepLR(setup.optimizer, step_size=10, gamma=0.5)


@fault("two_classes", causes=["schedule_too_short"])
def exponential_per_batch(setup: TrainingSetup) -> None:
    """A decay of 0.9 per epoch is applied per step."""
    setup.scheduler = lr_scheduler.ExponentialLR(setup.optimizer, gamma=0.9)


@fault("digits_resnet", causes=["schedule_too_short"])
def milestones_in_epochs(setup: TrainingSetup) -> None:
    """Milestones given in epochs and stepped per batch: the rate is down by 1e-4 after 8 steps."""
    setup.scheduler = lr_scheduler.MultiStepLR(setup.optimizer, [2, 4, 6, 8], gamma=0.1)


@fault("digits_resnet", causes=["warmup_too_long"])
def warmup_longer_than_run(setup: TrainingSetup) -> None:
    """A warm-up of 100,000 steps in a run of 430: the rate never gets near its peak."""
    setup.scheduler = lr_scheduler.LambdaLR(setup.optimizer, lambda step: min(1.0, step / 100_000))


@fault("digits_resnet", causes=["optimizer_of_other_model"])
def schedule_of_other_optimizer(setup: TrainingSetup) -> None:
    """The schedule drives an optimizer that is not used any more."""
    schedule = setup.scheduler
    adamw(setup, setup.model.parameters(), lr=setup.optimizer.defaults["lr"])
    setup.scheduler = schedule


@fault("mixup_ema", causes=["schedule_too_short"])
def one_cycle_over_epochs(setup: TrainingSetup) -> None:
    """A one-cycle schedule laid out for 15 steps, the number of epochs; it cannot go further."""
    setup.scheduler = lr_scheduler.OneCycleLR(setup.optimizer, max_lr=2e-3, total_steps=15)
