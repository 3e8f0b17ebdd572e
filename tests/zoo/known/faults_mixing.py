"""Faults in mixing, in averaged weights, in what is kept from step to step, and in who steps the
schedule."""

from collections.abc import Callable
from dataclasses import replace
from functools import wraps
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.zoo.known.catalogue import fault
from tests.zoo.known.complete_setup import TrainingSetup

Mixed = tuple[Tensor, Tensor, float]  # images, the labels that are mixed in, share of the own


def mixing_step(mix: Callable[[Tensor, Tensor], Mixed]) -> Callable[..., dict]:
    """A step whose loss is that of both labels, weighted by their shares."""

    @wraps(mix)
    def step(setup: TrainingSetup, batch: tuple[Tensor, Tensor]) -> dict:
        setup.model.train()
        images, other, share = mix(*batch)
        logits = setup.model(images)
        loss = share * setup.loss_fn(logits, batch[1]) + (1 - share) * setup.loss_fn(logits, other)
        setup.optimizer.zero_grad()
        loss.backward()
        setup.optimizer.step()
        if setup.scheduler:
            setup.scheduler.step()
        return {"loss": loss.item()}

    return step


def pasted(x: Tensor, order: Tensor) -> tuple[Tensor, float]:
    """A box of each image's partner, and the share of the image that is left."""
    side = int(torch.randint(x.shape[2] // 4, x.shape[2], ()))
    top, left = torch.randint(0, x.shape[2] - side + 1, (2,)).tolist()
    box = (..., slice(top, top + side), slice(left, left + side))
    mixed = x.clone()
    mixed[box] = x[order][box]
    return mixed, 1 - side**2 / x[0, 0].numel()


@fault("digits_resnet", "shapes_vit", causes=["mixed_labels_differ"], replaces="train_step")
@mixing_step
def mixup_shares_exchanged(x: Tensor, y: Tensor) -> Mixed:
    """Mixup: the image's share goes to the label of its partner."""
    order, share = torch.randperm(len(x)), float(torch.rand(()))
    return share * x + (1 - share) * x[order], y[order], 1 - share


@fault("shapes_vit", causes=["mixed_labels_differ"], replaces="train_step")
@mixing_step
def mixup_labels_of_others(x: Tensor, y: Tensor) -> Mixed:
    """Mixup draws one order for the images and another for the labels."""
    order, share = torch.randperm(len(x)), float(torch.rand(()))
    return share * x + (1 - share) * x[order], y[torch.randperm(len(x))], share


@fault("shapes_vit", causes=["mixed_labels_differ"], replaces="train_step")
@mixing_step
def cutmix_shares_exchanged(x: Tensor, y: Tensor) -> Mixed:
    """Cutmix: the label of the box gets the share of what is left of the image."""
    order = torch.randperm(len(x))
    images, share = pasted(x, order)
    return images, y[order], 1 - share


@fault("digits_resnet", causes=["mixed_labels_differ"], replaces="train_step")
@mixing_step
def labels_mixed_alone(x: Tensor, y: Tensor) -> Mixed:
    """The mixed images are made, and the net is given the others."""
    return x, y[torch.randperm(len(x))], float(torch.rand(()))


def averaged(setup: TrainingSetup, share: float, with_buffers: bool) -> TrainingSetup:
    """The set-up with another average: `share` of the new weights enters in each step."""
    step = setup.train_step

    @torch.no_grad()
    def update(net: nn.Module) -> None:
        for mean, now in zip(step.average.parameters(), net.parameters(), strict=True):
            mean.lerp_(now, share)
        if with_buffers:
            for own, new in zip(step.average.buffers(), net.buffers(), strict=True):
                own.copy_(new)

    step._update = update
    return setup


@fault("mixup_ema", causes=["average_without_buffers"])
def average_lacks_buffers(setup: TrainingSetup) -> TrainingSetup:
    """The average covers parameters; BatchNorm's statistics in it stay 0 and 1."""
    return averaged(setup, 0.1, with_buffers=False)


@fault("mixup_ema", causes=["average_too_slow"])
def average_too_slow(setup: TrainingSetup) -> TrainingSetup:
    """A decay of 0.99999 from a recipe of a million steps."""
    return averaged(setup, 1e-5, with_buffers=True)


@fault("digits_resnet", causes=["graph_kept"])
def losses_summed_as_tensors(setup: TrainingSetup) -> TrainingSetup:
    """The epoch's loss is a sum of tensors: the graphs of all steps stay in memory."""
    total: Any = 0.0

    def step(setup: TrainingSetup, batch: tuple[Tensor, Tensor]) -> dict:
        nonlocal total
        setup.model.train()
        loss = setup.loss_fn(setup.model(batch[0]), batch[1])
        setup.optimizer.zero_grad()
        loss.backward()
        setup.optimizer.step()
        setup.scheduler.step()
        total = total + loss
        return {"loss": loss.item()}

    return replace(setup, train_step=step)


@fault("shapes_vit", causes=["graph_kept"])
def logits_kept_with_graph(setup: TrainingSetup) -> TrainingSetup:
    """The outputs of all steps are kept for a metric, with their graphs."""
    kept: list[Tensor] = []

    def keep(module: nn.Module, inputs: Any, output: Tensor) -> None:
        if module.training:
            kept.append(functional.softmax(output, dim=1))

    setup.model.register_forward_hook(keep)
    return setup


@fault("digits_resnet", "shapes_vit", causes=["schedule_never_stepped"])
def warm_up_from_0_not_stepped(setup: TrainingSetup) -> TrainingSetup:
    """The warm-up starts at 0, and the step that would end it is missing."""
    setup.scheduler = torch.optim.lr_scheduler.LambdaLR(
        setup.optimizer, lambda step: min(1.0, step / 20)
    )

    def step(setup: TrainingSetup, batch: tuple[Tensor, Tensor]) -> dict:
        setup.model.train()
        loss = setup.loss_fn(setup.model(batch[0]), batch[1])
        setup.optimizer.zero_grad()
        loss.backward()
        setup.optimizer.step()
        return {"loss": loss.item()}

    return replace(setup, train_step=step)
