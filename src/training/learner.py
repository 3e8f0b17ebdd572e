"""The learner: a net with its loss, optimizer and schedule, put together in one place."""

import os
import shutil
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from timm.scheduler.scheduler import Scheduler
from torch import nn
from torch.optim import Optimizer

from src.base.kinds import kind_of, kind_part
from src.base.words import counted
from src.data.batches import Batch
from src.data.packed import PackedSplit
from src.model.create import classifier_parameters, create_model
from src.model.nets.pretrained import normalisation
from src.plumbing.errors import InputError
from src.plumbing.params import own_params
from src.training.average import Average
from src.training.batchnorm import Counters
from src.training.loss import Loss, create_loss
from src.training.optimizer import Plateau, create_optimizer, create_scheduler

Sums = tuple[torch.Tensor, torch.Tensor, torch.Tensor]  # loss, correct, norm of the gradient
HALF = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass
class Learner:
    """A net with all that trains it, on one device. `kind`: of its samples; `mean`, `std`: per
    channel, as they enter. `micro_batch`: samples per forward and backward pass; `clip_grad`:
    largest norm of all gradients; `ema`: the average of the weights, validated and kept."""

    model: nn.Module
    criterion: Loss
    optimizer: Optimizer
    scheduler: Scheduler | Plateau
    device: torch.device
    kind: str
    mean: list[float]
    std: list[float]
    seed: int
    micro_batch: int
    clip_grad: float | None = None
    ema: Average | None = None
    precision: str = "fp32"
    channels_last: bool = False
    compile: str = "none"
    graph: Callable[[Batch], Sums] | None = None  # in place of step.gradients, see graph.py
    scaler: torch.amp.GradScaler = field(init=False)
    forward: Callable[[torch.Tensor], torch.Tensor] = field(init=False)
    _enter: Callable[..., torch.Tensor] = field(init=False)
    _fixed: set[nn.Parameter] = field(init=False)  # by the net itself, for the whole training
    _frozen: set[nn.Parameter] = field(init=False, default_factory=set)
    _counters: Counters | None = field(init=False, default=None)
    _learning: tuple[Any, Any, list[nn.Parameter]] = field(init=False, default=(None, None, []))

    def __post_init__(self) -> None:
        self._enter = kind_part(self.kind, "input").enter
        self._fixed = {p for p in self.model.parameters() if not p.requires_grad}
        # Gradients of 16-bit floats (5 bits of exponent) vanish unless the loss is scaled up.
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.precision == "fp16")
        self.forward = self.model
        if self.compile != "none":
            self.forward = torch.compile(self.model, mode=self.compile)

    @property
    def kept_model(self) -> nn.Module:
        """The net that is validated and saved."""
        return self.ema.module if self.ema is not None else self.model

    def enter(self, rows: torch.Tensor) -> torch.Tensor:
        """Packed samples as the net takes them."""
        inputs: torch.Tensor = self._enter(rows, self.mean, self.std)
        if self.channels_last and inputs.ndim == 4:
            return inputs.contiguous(memory_format=torch.channels_last)
        return inputs

    def autocast(self) -> AbstractContextManager[Any]:
        if self.precision not in HALF:
            return nullcontext()
        return torch.autocast(self.device.type, dtype=HALF[self.precision])

    def counted(self) -> AbstractContextManager[None]:
        """A forward pass in which BatchNorm layers count their batches together. What torch.compile
        made does so of itself."""
        if self.compile != "none":
            return nullcontext()
        if self._counters is None or self._counters.model is not self.model:
            self._counters = Counters(self.model)
        return self._counters.together()

    def freeze_backbone(self, frozen: bool) -> None:
        """Let all but the classifier rest: no gradients, BatchNorm statistics as they are. What the
        net itself keeps from learning never learns."""
        head = set(classifier_parameters(self.model)) - self._fixed if frozen else set()
        if frozen and not head:
            raise InputError(
                "params.yaml: freeze_epochs must be 0: the net keeps its classifier from learning"
            )
        self._frozen = set(self.model.parameters()) - head if frozen else set()
        rest = self._fixed | self._frozen
        for parameter in self.model.parameters():
            parameter.requires_grad_(parameter not in rest)
        self.model.eval()  # the next step goes back to training, as far as it may

    @property
    def is_frozen(self) -> bool:
        """Whether all but the classifier rests."""
        return bool(self._frozen)

    def learning(self) -> list[nn.Parameter]:
        """The parameters that the optimizer takes, in the order of the model; found once, since to
        walk through a model takes as long as some of its layers."""
        if self._learning[:2] != (self.model, self.optimizer):
            taken = {p for group in self.optimizer.param_groups for p in group["params"]}
            found = [p for p in self.model.parameters() if p in taken]
            self._learning = (self.model, self.optimizer, found)
        return self._learning[2]

    def train_mode(self) -> None:
        """Training mode; while the backbone rests, for the classifier and the dropout beside it.
        Nothing else: BatchNorm without weights has statistics too, and blocks drop paths."""
        self.model.train(not self._frozen)
        if not self._frozen:
            return
        self.model.training = True  # timm's nets call the classifier's dropout by it
        for parent in self.model.modules():
            for child in parent.children():
                if any(p not in self._frozen for p in child.parameters(recurse=False)):
                    parent.training = child.training = True
                    for beside in parent.children():
                        if isinstance(beside, nn.Dropout):
                            beside.train()


def build_learner(
    params: Mapping[str, Any], data: PackedSplit, device: torch.device, steps: int
) -> Learner:
    """A learner for the training samples `data`; `steps` per epoch. InputError names a bad key."""
    meta = data.meta
    kind = kind_of(meta)
    _require_what_it_needs(params, device)
    model = create_model(
        params["model"],
        classes=len(meta["classes"]),
        input_size=kind_part(kind, "model").input_size(meta),
        weights=params["weights"],
        seed=params["seed"],
        drop_rate=params["drop_rate"],
        drop_path=params["drop_path"],
        kind=kind,
        own_params=own_params(params),
    ).to(device)
    if params["channels_last"]:
        model = model.to(memory_format=torch.channels_last)
    mean, std = normalisation(params["weights"], params["model"], meta)
    optimizer = create_optimizer(model, params, params["lr"])
    ema = None
    if params["ema"] != "none":
        # The average of few steps would be mostly initial weights: the decay rises to `ema`.
        ema = Average(model, decay=params["ema"], use_warmup=True)
    return Learner(
        model=model,
        criterion=create_loss(params, data.labels, meta["classes"]).to(device),
        optimizer=optimizer,
        scheduler=create_scheduler(optimizer, params, params["lr"], steps),
        device=device,
        kind=kind,
        mean=mean,
        std=std,
        seed=params["seed"],
        micro_batch=params["batch_size"],
        clip_grad=None if params["clip_grad"] == "none" else params["clip_grad"],
        ema=ema,
        precision=params["precision"],
        channels_last=params["channels_last"],
        compile=params["compile"],
    )


def _require_what_it_needs(params: Mapping[str, Any], device: torch.device) -> None:
    if params["precision"] == "bf16" and device.type == "cpu":
        # Seen: the gradients of one and the same step are NaN in some runs and not in others.
        raise InputError(
            "params.yaml: precision bf16 needs a GPU: on a CPU torch's bf16 convolutions read "
            "memory that nobody wrote"
        )
    graphs = device.type == "cuda" and params["compile"] == "reduce-overhead"
    if graphs and params["accumulate"] > 1:
        # torch issues 96693 and 169545: the graph's next part overwrites the gradients of the last.
        raise InputError(
            "params.yaml: compile reduce-overhead sums no gradients on a GPU: set accumulate to 1, "
            "or compile to default"
        )
    compilers = (os.environ.get("CXX", "c++"), "g++", "clang++")
    if params["compile"] != "none" and not any(shutil.which(name) for name in compilers):
        raise InputError(
            f"params.yaml: compile {params['compile']} needs a C++ compiler, and there is no "
            f"{' or '.join(dict.fromkeys(compilers))}: install one, or set compile to none"
        )


def last_decay(ema: float, steps: int) -> float:
    """The decay in the last of `steps`: timm's warm-up lets step n have 1 - n^(-2/3) at most."""
    return min(ema, 1 - steps ** (-2 / 3))


def average_remark(ema: float | None, steps: int) -> str:
    """A line that names the decay which a training of `steps` comes to; empty if that is `ema`."""
    if ema is None or (reached := f"{last_decay(ema, steps):.4g}") == f"{ema:.4g}":
        return ""
    return (
        f"train: ema {ema:g} acts like {reached}: timm's warm-up of the average is not over after "
        f"{counted(steps, 'step')}"
    )
