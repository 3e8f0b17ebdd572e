"""Faults in the training step: the order of its parts, what is left out, what is mixed up."""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from tests.zoo.known.bases import vit_step
from tests.zoo.known.catalogue import fault
from tests.zoo.known.complete_setup import TrainingSetup

Batch = tuple[Tensor, Tensor]


@fault("digits_resnet", "pretrained", causes=["zero_grad_missing"], replaces="train_step")
def zero_grad_missing(setup: TrainingSetup, batch: Batch) -> dict:
    """Gradients are never cleared and add up from step to step."""
    setup.model.train()
    loss = setup.loss_fn(setup.model(batch[0]), batch[1])
    loss.backward()
    setup.optimizer.step()
    if setup.scheduler:
        setup.scheduler.step()
    return {"loss": loss.item()}


@fault("shapes_vit", causes=["zero_grad_missing"], replaces="train_step")
def zero_grad_missing_with_clip(setup: TrainingSetup, batch: Batch) -> dict:
    """Gradients are never cleared; clipping hides how they grow."""
    setup.model.train()
    loss = setup.loss_fn(setup.model(batch[0]), batch[1])
    loss.backward()
    torch.nn.utils.clip_grad_norm_(setup.model.parameters(), 1.0)
    setup.optimizer.step()
    return {"loss": loss.detach()}


@fault("shapes_vit", "digits_resnet", causes=["zero_grad_before_step"], replaces="train_step")
def zero_grad_after_backward(setup: TrainingSetup, batch: Batch) -> dict:
    """Gradients are cleared between backward and step."""
    setup.model.train()
    loss = setup.loss_fn(setup.model(batch[0]), batch[1])
    loss.backward()
    setup.optimizer.zero_grad(set_to_none=False)
    setup.optimizer.step()
    return {"loss": loss.item()}


@fault("two_classes", causes=["zero_grad_every_micro_batch"])
def zero_grad_each_micro_batch(setup: TrainingSetup) -> TrainingSetup:
    """Under accumulation gradients are cleared before each micro-batch: only the last counts."""
    inner = setup.train_step

    def step(setup: TrainingSetup, batch: Batch) -> dict:
        setup.optimizer.zero_grad()
        return inner(setup, batch)

    return replace(setup, train_step=step)


@fault("digits_resnet", "shapes_vit", causes=["optimizer_never_steps"], replaces="train_step")
def step_missing(setup: TrainingSetup, batch: Batch) -> dict:
    """`optimizer.step()` is not called."""
    setup.model.train()
    setup.optimizer.zero_grad()
    loss = setup.loss_fn(setup.model(batch[0]), batch[1])
    loss.backward()
    if setup.scheduler:
        setup.scheduler.step()
    return {"loss": loss.item()}


@fault("shapes_vit", causes=["backward_missing"], replaces="train_step")
def backward_missing(setup: TrainingSetup, batch: Batch) -> dict:
    """`loss.backward()` is not called."""
    setup.model.train()
    setup.optimizer.zero_grad()
    loss = setup.loss_fn(setup.model(batch[0]), batch[1])
    setup.optimizer.step()
    return {"loss": loss.item()}


@fault("digits_resnet", causes=["model_in_eval_mode"], replaces="train_step")
def eval_mode_in_training(setup: TrainingSetup, batch: Batch) -> dict:
    """The net trains in evaluation mode: BatchNorm never learns its statistics."""
    setup.model.eval()
    setup.optimizer.zero_grad()
    loss = setup.loss_fn(setup.model(batch[0]), batch[1])
    loss.backward()
    setup.optimizer.step()
    setup.scheduler.step()
    return {"loss": loss.item()}


@fault("digits_resnet", causes=["model_in_eval_mode"])
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


@fault("shapes_vit", causes=["backward_missing", "gradient_blocked"], replaces="train_step")
def no_grad_in_training(setup: TrainingSetup, batch: Batch) -> dict:
    """The forward pass runs under no_grad, and requires_grad_ on the loss silences the error."""
    setup.model.train()
    with torch.no_grad():
        loss = setup.loss_fn(setup.model(batch[0]), batch[1])
    loss.requires_grad_()
    setup.optimizer.zero_grad()
    loss.backward()
    setup.optimizer.step()
    return {"loss": loss.item()}


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


@fault("two_classes", causes=["gradient_not_divided_by_accumulate"])
def accumulate_not_divided(setup: TrainingSetup) -> TrainingSetup:
    """The loss of a micro-batch is not divided by their number."""
    return replace(setup, train_step=Accumulate(1, lambda calls: calls % 4 == 0))


@fault("two_classes", causes=["loss_scale", "gradient_not_divided_by_accumulate"])
def accumulate_divided_twice(setup: TrainingSetup) -> TrainingSetup:
    """The loss of a micro-batch is divided by the square of their number."""
    return replace(setup, train_step=Accumulate(16, lambda calls: calls % 4 == 0))


@fault("two_classes", causes=["optimizer_never_steps"])
def accumulate_never_steps(setup: TrainingSetup) -> TrainingSetup:
    """The condition for a step is never true."""
    return replace(setup, train_step=Accumulate(4, lambda calls: calls % 4 == 4))


@fault("two_classes", causes=["accumulate_differs"])
def accumulate_steps_each_time(setup: TrainingSetup) -> TrainingSetup:
    """A step after each micro-batch, with the loss divided as if for four."""
    return replace(setup, train_step=Accumulate(4, lambda calls: True))


@fault("two_classes", causes=["loss_scale"])
def loss_scale_not_undone(setup: TrainingSetup) -> TrainingSetup:
    """The loss is scaled by 1024 as for float16 and the gradients are not scaled back."""
    return replace(setup, train_step=Accumulate(4 / 1024, lambda calls: calls % 4 == 0))


@fault("two_classes", causes=["model_in_eval_mode"])
def accumulate_in_eval_mode(setup: TrainingSetup) -> TrainingSetup:
    """`model.train(False)` in the step: the net trains in evaluation mode."""
    step = Accumulate(4, lambda calls: calls % 4 == 0, mode=False)
    return replace(setup, train_step=step)


@fault(
    "digits_resnet",
    causes=["inputs_changed_in_step", "targets_changed_in_step", "step_ignores_part_of_batch"],
)
def first_batch_for_ever(setup: TrainingSetup) -> TrainingSetup:
    """A batch cached for debugging is trained on again and again."""
    inner, cached = setup.train_step, []

    def step(setup: TrainingSetup, batch: Batch) -> dict:
        cached.append(batch)
        return inner(setup, cached[0])

    return replace(setup, train_step=step)


@fault("shapes_vit", causes=["targets_changed_in_step", "inputs_changed_in_step"])
def labels_of_last_batch(setup: TrainingSetup) -> TrainingSetup:
    """Prefetching mixes two variables: images meet the labels of the batch before."""
    last: list[Tensor] = []

    def step(setup: TrainingSetup, batch: Batch) -> dict:
        last.append(batch[1])
        labels = last[-2] if len(last) > 1 else batch[1]
        return vit_step(setup, (batch[0], labels[: len(batch[0])]))

    return replace(setup, train_step=step)


@fault("digits_resnet", causes=["inputs_changed_in_step"])
def images_permuted_in_step(setup: TrainingSetup) -> TrainingSetup:
    """The images of a batch are shuffled, its labels are not."""
    inner = setup.train_step
    return replace(setup, train_step=lambda s, b: inner(s, (b[0][torch.randperm(len(b[0]))], b[1])))
