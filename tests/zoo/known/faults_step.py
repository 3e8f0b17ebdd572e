"""Faults in the training step: the order of its parts, what is left out, what is mixed up."""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from tests.zoo.known.bases import vit_step
from tests.zoo.known.catalogue import fault
from tests.zoo.known.complete_setup import TrainingSetup

Batch = tuple[Tensor, Tensor]


@fault("digits_resnet", "pretrained")
def zero_grad_missing(setup: TrainingSetup) -> TrainingSetup:
    """Gradients are never cleared and add up from step to step."""

    def step(setup: TrainingSetup, batch: Batch) -> dict:
        setup.model.train()
        loss = setup.loss_fn(setup.model(batch[0]), batch[1])
        loss.backward()
        setup.optimizer.step()
        if setup.scheduler:
            setup.scheduler.step()
        return {"loss": loss.item()}

    return replace(setup, train_step=step)


@fault("shapes_vit")
def zero_grad_missing_with_clip(setup: TrainingSetup) -> TrainingSetup:
    """Gradients are never cleared; clipping hides how they grow."""

    def step(setup: TrainingSetup, batch: Batch) -> dict:
        setup.model.train()
        loss = setup.loss_fn(setup.model(batch[0]), batch[1])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(setup.model.parameters(), 1.0)
        setup.optimizer.step()
        return {"loss": loss.detach()}

    return replace(setup, train_step=step)


@fault("shapes_vit", "digits_resnet")
def zero_grad_after_backward(setup: TrainingSetup) -> TrainingSetup:
    """Gradients are cleared between backward and step."""

    def step(setup: TrainingSetup, batch: Batch) -> dict:
        setup.model.train()
        loss = setup.loss_fn(setup.model(batch[0]), batch[1])
        loss.backward()
        setup.optimizer.zero_grad(set_to_none=False)
        setup.optimizer.step()
        return {"loss": loss.item()}

    return replace(setup, train_step=step)


@fault("two_classes")
def zero_grad_each_micro_batch(setup: TrainingSetup) -> TrainingSetup:
    """Under accumulation gradients are cleared before each micro-batch: only the last counts."""
    inner = setup.train_step

    def step(setup: TrainingSetup, batch: Batch) -> dict:
        setup.optimizer.zero_grad()
        return inner(setup, batch)

    return replace(setup, train_step=step)


@fault("digits_resnet", "shapes_vit")
def step_missing(setup: TrainingSetup) -> TrainingSetup:
    """`optimizer.step()` is not called."""

    def step(setup: TrainingSetup, batch: Batch) -> dict:
        setup.model.train()
        setup.optimizer.zero_grad()
        loss = setup.loss_fn(setup.model(batch[0]), batch[1])
        loss.backward()
        if setup.scheduler:
            setup.scheduler.step()
        return {"loss": loss.item()}

    return replace(setup, train_step=step)


@fault("shapes_vit")
def backward_missing(setup: TrainingSetup) -> TrainingSetup:
    """`loss.backward()` is not called."""

    def step(setup: TrainingSetup, batch: Batch) -> dict:
        setup.model.train()
        setup.optimizer.zero_grad()
        loss = setup.loss_fn(setup.model(batch[0]), batch[1])
        setup.optimizer.step()
        return {"loss": loss.item()}

    return replace(setup, train_step=step)


@fault("digits_resnet")
def eval_mode_in_training(setup: TrainingSetup) -> TrainingSetup:
    """The net trains in evaluation mode: BatchNorm never learns its statistics."""

    def step(setup: TrainingSetup, batch: Batch) -> dict:
        setup.model.eval()
        setup.optimizer.zero_grad()
        loss = setup.loss_fn(setup.model(batch[0]), batch[1])
        loss.backward()
        setup.optimizer.step()
        setup.scheduler.step()
        return {"loss": loss.item()}

    return replace(setup, train_step=step)


@fault("digits_resnet")
def eval_mode_left_on(setup: TrainingSetup) -> TrainingSetup:
    """`model.train()` stands before the first epoch alone: after one evaluation the net stays in
    evaluation mode."""
    setup.model.train()

    def step(setup: TrainingSetup, batch: Batch) -> dict:
        setup.optimizer.zero_grad()
        loss = setup.loss_fn(setup.model(batch[0]), batch[1])
        loss.backward()
        setup.optimizer.step()
        setup.scheduler.step()
        return {"loss": loss.item()}

    return replace(setup, train_step=step)


@fault("shapes_vit")
def no_grad_in_training(setup: TrainingSetup) -> TrainingSetup:
    """The forward pass runs under no_grad, and requires_grad_ on the loss silences the error."""

    def step(setup: TrainingSetup, batch: Batch) -> dict:
        setup.model.train()
        with torch.no_grad():
            loss = setup.loss_fn(setup.model(batch[0]), batch[1])
        loss.requires_grad_()
        setup.optimizer.zero_grad()
        loss.backward()
        setup.optimizer.step()
        return {"loss": loss.item()}

    return replace(setup, train_step=step)


class Accumulate:
    """The step of two_classes with a choice of divisor and of when it is time."""

    def __init__(self, divisor: float, time: Callable[[int], bool], mode: bool = True):
        self.divisor, self.time, self.mode, self.calls = divisor, time, mode, 0

    def __call__(self, setup: TrainingSetup, batch: Batch) -> dict:
        setup.model.train(self.mode)
        loss = setup.loss_fn(setup.model(batch[0]), batch[1])
        (loss / self.divisor).backward()
        self.calls += 1
        if self.time(self.calls):
            setup.optimizer.step()
            setup.scheduler.step()
            setup.optimizer.zero_grad()
        return {"loss": loss.detach()}


@fault("two_classes")
def accumulate_not_divided(setup: TrainingSetup) -> TrainingSetup:
    """The loss of a micro-batch is not divided by their number."""
    return replace(setup, train_step=Accumulate(1, lambda calls: calls % 4 == 0))


@fault("two_classes")
def accumulate_divided_twice(setup: TrainingSetup) -> TrainingSetup:
    """The loss of a micro-batch is divided by the square of their number."""
    return replace(setup, train_step=Accumulate(16, lambda calls: calls % 4 == 0))


@fault("two_classes")
def accumulate_never_steps(setup: TrainingSetup) -> TrainingSetup:
    """The condition for a step is never true."""
    return replace(setup, train_step=Accumulate(4, lambda calls: calls % 4 == 4))


@fault("two_classes")
def accumulate_steps_each_time(setup: TrainingSetup) -> TrainingSetup:
    """A step after each micro-batch, with the loss divided as if for four."""
    return replace(setup, train_step=Accumulate(4, lambda calls: True))


@fault("two_classes")
def loss_scale_not_undone(setup: TrainingSetup) -> TrainingSetup:
    """The loss is scaled by 1024 as for float16 and the gradients are not scaled back."""
    return replace(setup, train_step=Accumulate(4 / 1024, lambda calls: calls % 4 == 0))


@fault("two_classes")
def accumulate_in_eval_mode(setup: TrainingSetup) -> TrainingSetup:
    """`model.train(False)` in the step: the net trains in evaluation mode."""
    step = Accumulate(4, lambda calls: calls % 4 == 0, mode=False)
    return replace(setup, train_step=step)


@fault("digits_resnet")
def first_batch_for_ever(setup: TrainingSetup) -> TrainingSetup:
    """A batch cached for debugging is trained on again and again."""
    inner, cached = setup.train_step, []

    def step(setup: TrainingSetup, batch: Batch) -> dict:
        cached.append(batch)
        return inner(setup, cached[0])

    return replace(setup, train_step=step)


@fault("shapes_vit")
def labels_of_last_batch(setup: TrainingSetup) -> TrainingSetup:
    """Prefetching mixes two variables: images meet the labels of the batch before."""
    last: list[Tensor] = []

    def step(setup: TrainingSetup, batch: Batch) -> dict:
        last.append(batch[1])
        labels = last[-2] if len(last) > 1 else batch[1]
        return vit_step(setup, (batch[0], labels[: len(batch[0])]))

    return replace(setup, train_step=step)


@fault("digits_resnet")
def images_permuted_in_step(setup: TrainingSetup) -> TrainingSetup:
    """The images of a batch are shuffled, its labels are not."""
    inner = setup.train_step
    return replace(setup, train_step=lambda s, b: inner(s, (b[0][torch.randperm(len(b[0]))], b[1])))
