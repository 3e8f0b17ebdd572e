"""Faults of saving and loading: what a resumed run would lose."""

import io
from copy import deepcopy
from dataclasses import replace
from typing import Any

import torch

from tests.zoo.known.bases import load_all, save_all
from tests.zoo.known.catalogue import fault
from tests.zoo.known.complete_setup import TrainingSetup


def packed(state: dict[str, Any]) -> bytes:
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


def unpacked(data: bytes) -> dict[str, Any]:
    return torch.load(io.BytesIO(data), weights_only=True)


@fault("digits_resnet", "two_classes")
def optimizer_not_saved(setup: TrainingSetup) -> TrainingSetup:
    """The checkpoint holds the model alone; optimizer and schedule start anew."""
    return replace(
        setup,
        save=lambda s: packed(s.model.state_dict()),
        load=lambda s, data: s.model.load_state_dict(unpacked(data)),
    )


@fault("digits_resnet", "two_classes")
def schedule_not_saved(setup: TrainingSetup) -> TrainingSetup:
    """Model and optimizer are saved; the schedule warms up again."""

    def load(setup: TrainingSetup, data: bytes) -> None:
        state = unpacked(data)
        setup.model.load_state_dict(state["model"])
        setup.optimizer.load_state_dict(state["optimizer"])

    return replace(setup, load=load)


@fault("two_classes", "digits_resnet")
def buffers_not_saved(setup: TrainingSetup) -> TrainingSetup:
    """Only parameters are saved: BatchNorm's running statistics are lost."""

    def save(setup: TrainingSetup) -> bytes:
        state = unpacked(save_all(setup))
        state["model"] = {name: p.detach() for name, p in setup.model.named_parameters()}
        return packed(state)

    def load(setup: TrainingSetup, data: bytes) -> None:
        state = unpacked(data)
        setup.model.load_state_dict(state["model"], strict=False)
        setup.optimizer.load_state_dict(state["optimizer"])
        setup.scheduler.load_state_dict(state["scheduler"])

    return replace(setup, save=save, load=load)


@fault("shapes_vit")
def prefix_not_removed(setup: TrainingSetup) -> TrainingSetup:
    """Names start with "module." and strict=False hides that none fits."""

    def save(setup: TrainingSetup) -> bytes:
        state = unpacked(save_all(setup))
        state["model"] = {f"module.{name}": value for name, value in state["model"].items()}
        return packed(state)

    def load(setup: TrainingSetup, data: bytes) -> None:
        state = unpacked(data)
        setup.model.load_state_dict(state["model"], strict=False)
        setup.optimizer.load_state_dict(state["optimizer"])

    return replace(setup, save=save, load=load)


@fault("pretrained")
def head_not_loaded(setup: TrainingSetup) -> TrainingSetup:
    """Loading drops the head, as for a change of data set: a resumed run starts with a new one."""

    def load(setup: TrainingSetup, data: bytes) -> None:
        state = unpacked(data)
        body = {k: v for k, v in state["model"].items() if not k.startswith("fc.")}
        setup.model.load_state_dict(body, strict=False)
        setup.optimizer.load_state_dict(state["optimizer"])

    return replace(setup, load=load)


@fault("shapes_vit")
def loads_into_copy(setup: TrainingSetup) -> TrainingSetup:
    """The state is loaded into a copy of the net that nobody uses."""
    return replace(setup, load=lambda s, data: load_all(replace(s, model=deepcopy(s.model)), data))


@fault("mixup_ema")
def average_not_saved(setup: TrainingSetup) -> TrainingSetup:
    """The averaged weights are not in the checkpoint: evaluation starts from scratch."""
    return replace(setup, save=save_all, load=load_all)


@fault("mixup_ema")
def average_saved_for_weights(setup: TrainingSetup) -> TrainingSetup:
    """The averaged weights are saved in the place of the trained ones."""
    step = setup.train_step

    def save(setup: TrainingSetup) -> bytes:
        return step.save(replace(setup, model=step.average))

    return replace(setup, save=save)


@fault("two_classes")
def saved_in_half(setup: TrainingSetup) -> TrainingSetup:
    """Weights are saved as float16: a resumed run has other weights."""

    def save(setup: TrainingSetup) -> bytes:
        state = unpacked(save_all(setup))
        state["model"] = {
            k: v.half() if v.is_floating_point() else v for k, v in state["model"].items()
        }
        return packed(state)

    return replace(setup, save=save)


@fault("digits_resnet")
def start_saved(setup: TrainingSetup) -> TrainingSetup:
    """The state is taken once, before training: every checkpoint is the start."""
    start = save_all(setup)
    return replace(setup, save=lambda s: start)


@fault("pretrained")
def load_crashes(setup: TrainingSetup) -> TrainingSetup:
    """Saved under one key, looked for under another."""

    def load(setup: TrainingSetup, data: bytes) -> None:
        setup.model.load_state_dict(unpacked(data)["state_dict"])

    return replace(setup, load=load)
