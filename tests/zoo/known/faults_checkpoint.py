"""Faults of saving and loading: what a resumed run would lose."""

from copy import deepcopy
from dataclasses import replace
from functools import partial

from tests.zoo.known.bases import load_all, packed, save_all, unpacked
from tests.zoo.known.catalogue import fault
from tests.zoo.known.complete_setup import TrainingSetup


@fault("digits_resnet", "two_classes", causes=["optimizer_not_saved"])
def optimizer_not_saved(setup: TrainingSetup) -> TrainingSetup:
    """The checkpoint holds the model alone; optimizer and schedule start anew."""
    return replace(
        setup,
        save=lambda s: packed(s.model.state_dict()),
        load=lambda s, data: s.model.load_state_dict(unpacked(data)),
    )


@fault("digits_resnet", "two_classes", causes=["scheduler_not_saved"], replaces="load")
def schedule_not_saved(setup: TrainingSetup, data: bytes) -> None:
    """Model and optimizer are saved; the schedule warms up again."""
    state = unpacked(data)
    setup.model.load_state_dict(state["model"])
    setup.optimizer.load_state_dict(state["optimizer"])


@fault("two_classes", "digits_resnet", causes=["weights_not_saved"])
def buffers_not_saved(setup: TrainingSetup) -> TrainingSetup:
    """Only parameters are saved: BatchNorm's running statistics are lost."""

    def save(setup: TrainingSetup) -> bytes:
        state = unpacked(save_all(setup))
        state["model"] = {name: p.detach() for name, p in setup.model.named_parameters()}
        return packed(state)

    return replace(setup, save=save, load=partial(load_all, strict=False))


@fault("shapes_vit", causes=["weights_not_saved"])
def prefix_not_removed(setup: TrainingSetup) -> TrainingSetup:
    """Names start with "module." and strict=False hides that none fits."""

    def save(setup: TrainingSetup) -> bytes:
        state = unpacked(save_all(setup))
        state["model"] = {f"module.{name}": value for name, value in state["model"].items()}
        return packed(state)

    return replace(setup, save=save, load=partial(load_all, strict=False))


@fault("pretrained", causes=["weights_not_saved"], replaces="load")
def head_not_loaded(setup: TrainingSetup, data: bytes) -> None:
    """Loading drops the head, as for a change of data set: a resumed run starts with a new one."""
    state = unpacked(data)
    body = {k: v for k, v in state["model"].items() if not k.startswith("fc.")}
    setup.model.load_state_dict(body, strict=False)
    setup.optimizer.load_state_dict(state["optimizer"])


@fault("shapes_vit", causes=["weights_not_saved"])
def loads_into_copy(setup: TrainingSetup) -> TrainingSetup:
    """The state is loaded into a copy of the net that nobody uses."""
    return replace(setup, load=lambda s, data: load_all(replace(s, model=deepcopy(s.model)), data))


@fault("mixup_ema", causes=["weights_not_saved"])
def average_not_saved(setup: TrainingSetup) -> TrainingSetup:
    """The averaged weights are not in the checkpoint: evaluation starts from scratch."""
    return replace(setup, save=save_all, load=load_all)


@fault("mixup_ema", causes=["weights_not_saved"])
def average_saved_for_weights(setup: TrainingSetup) -> TrainingSetup:
    """The averaged weights are saved in the place of the trained ones."""
    step = setup.train_step
    return replace(setup, save=lambda s: step.save(replace(s, model=step.average)))


@fault("two_classes", causes=["weights_not_saved"], replaces="save")
def saved_in_half(setup: TrainingSetup) -> bytes:
    """Weights are saved as float16: a resumed run has other weights."""
    state = unpacked(save_all(setup))
    state["model"] = {
        k: v.half() if v.is_floating_point() else v for k, v in state["model"].items()
    }
    return packed(state)


@fault("digits_resnet", causes=["weights_not_saved", "optimizer_not_saved"])
def start_saved(setup: TrainingSetup) -> TrainingSetup:
    """The state is taken once, before training: every checkpoint is the start."""
    start = save_all(setup)
    return replace(setup, save=lambda s: start)


@fault("pretrained", causes=["code_error", "weights_not_saved"], replaces="load")
def load_crashes(setup: TrainingSetup, data: bytes) -> None:
    """Saved under one key, looked for under another."""
    setup.model.load_state_dict(unpacked(data)["state_dict"])
