"""Faults in checkpoints and in averaged weights."""

import copy

import torch

from tests.zoo.unseen import parts
from tests.zoo.unseen.bases import gratings_cnn, shapes_transformer
from tests.zoo.unseen.bases_transfer import transfer_frozen
from tests.zoo.unseen.more_bases import Average, many_mixup_ema, tiles_bce
from tests.zoo.unseen.registry import fault


@fault(gratings_cnn, "checkpoint without the state of optimizer and schedule")
def checkpoint_of_weights_only(setup):
    """save writes model.state_dict() alone; momentum and lr start over after a resume."""

    def save(setup):
        return parts.to_bytes(setup.model.state_dict())

    def load(setup, data):
        setup.model.load_state_dict(parts.from_bytes(data))

    setup.save, setup.load = save, load


@fault(tiles_bce, "checkpoint without the state of the schedule")
def checkpoint_without_schedule(setup):
    """Model and optimizer are saved; the forgotten schedule begins its warm-up again."""

    def save(setup):
        model, optimizer = setup.model.state_dict(), setup.optimizer.state_dict()
        return parts.to_bytes({"model": model, "optimizer": optimizer})

    def load(setup, data):
        state = parts.from_bytes(data)
        setup.model.load_state_dict(state["model"])
        setup.optimizer.load_state_dict(state["optimizer"])

    setup.save, setup.load = save, load


@fault(shapes_transformer, "loading restores nothing: key names differ and strict=False hides it")
def loaded_with_other_names(setup):
    """Keys carry the prefix 'module.' of a parallel wrapper; load ignores what it does not know."""

    def save(setup):
        state = {f"module.{name}": value for name, value in setup.model.state_dict().items()}
        rest = {"optimizer": setup.optimizer.state_dict(), "schedule": setup.scheduler.state_dict()}
        return parts.to_bytes({"model": state, **rest})

    def load(setup, data):
        state = parts.from_bytes(data)
        setup.model.load_state_dict(state["model"], strict=False)
        setup.optimizer.load_state_dict(state["optimizer"])
        setup.scheduler.load_state_dict(state["schedule"])

    setup.save, setup.load = save, load


@fault(tiles_bce, "checkpoint saves only parameters of the head")
def checkpoint_of_the_head(setup):
    """Only trainable layers of a transfer run are saved, in a run that trains all of them."""

    def save(setup):
        state = torch.nn.Module.state_dict(setup.model.head)
        rest = {"optimizer": setup.optimizer.state_dict(), "schedule": setup.scheduler.state_dict()}
        return parts.to_bytes({"head": state, **rest})

    def load(setup, data):
        state = parts.from_bytes(data)
        setup.model.head.load_state_dict(state["head"])
        setup.optimizer.load_state_dict(state["optimizer"])
        setup.scheduler.load_state_dict(state["schedule"])

    setup.save, setup.load = save, load


@fault(many_mixup_ema, "checkpoint without the averaged weights that evaluation uses")
def average_not_saved(setup):
    """The averaged net is missing in the checkpoint: after a resume it is the random start."""
    setup.save, setup.load = parts.save, parts.load


class ParametersOnly(Average):
    """Averages parameters and leaves buffers as they were."""

    @torch.no_grad()
    def update(self, model):
        for mine, new in zip(self.model.parameters(), model.parameters(), strict=True):
            mine.lerp_(new, 1 - self.decay)


class FarTooSlow(Average):
    """Averages over a hundred thousand steps."""

    def __init__(self, model):
        super().__init__(model, decay=1 - 1e-5)


@fault(many_mixup_ema, "averaged weights lack BatchNorm's running statistics")
def average_without_buffers(setup):
    """The average covers parameters(); running mean and variance stay at 0 and 1."""
    parts.become(setup, many_mixup_ema(keep=ParametersOnly))


@fault(many_mixup_ema, "averaged weights never leave the random start (decay far too slow)")
def average_far_too_slow(setup):
    """decay=0.99999 from a recipe of a million steps, in a run of 700."""
    parts.become(setup, many_mixup_ema(keep=FarTooSlow))


@fault(transfer_frozen, "loading a checkpoint brings an old copy of the weights")
def checkpoint_of_a_stale_copy(setup):
    """'Best' weights are copied once at the start, and this copy is what save writes."""
    best = copy.deepcopy(setup.model)

    def save(setup):
        rest = {"optimizer": setup.optimizer.state_dict(), "schedule": setup.scheduler.state_dict()}
        return parts.to_bytes({"model": best.state_dict(), **rest})

    def load(setup, data):
        state = parts.from_bytes(data)
        setup.model.load_state_dict(state["model"])
        setup.optimizer.load_state_dict(state["optimizer"])
        setup.scheduler.load_state_dict(state["schedule"])

    setup.save, setup.load = save, load
