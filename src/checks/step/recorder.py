"""Records real steps: what backward made of gradients, against what the optimizer saw.

Hooks add up what each backward pass brings; steps of optimizer and schedule are recorded. Nothing
is inferred from the course of the loss.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn

from src.checks.context import Context
from src.checks.reading import MODE_DEPENDENT, held_by
from src.checks.training_setup import TrainingSetup

Tensors = dict[str, Tensor]


@dataclass
class OptimizerStep:
    """One step of the optimizer: `backwards` passes before it; cosine of the seen gradient to what
    was made since the last step (`cosine`), in the last pass (`to_last`), and to that plus what was
    left from before (`to_stale`); the norms of what was `made` and `seen`; whether each entry was
    only made smaller (`shrunk`); how far weights moved (`update`, relative)."""

    backwards: int
    made: float
    seen: float
    cosine: float
    to_last: float
    to_stale: float
    shrunk: bool
    update: float = 0.0


class StepRecorder:
    """Records the steps of a set-up while `attached`."""

    def __init__(self, ctx: Context, setup: TrainingSetup):
        self.ctx, self.setup = ctx, setup
        self.parameters = {n: p for n, p in setup.model.named_parameters() if p.requires_grad}
        self.steps: list[OptimizerStep] = []
        self.losses: list[float] = []
        self.largest: dict[str, float] = {}  # gradient of each parameter
        self.not_finite: set[str] = set()  # parameters that got NaN or infinity
        self.training: list[bool] = []  # the mode in each forward pass
        self.in_evaluation: dict[str, nn.Module] = {}  # norm or dropout layers, in training steps
        self.scheduler_calls = self.backwards = 0
        self.overflows = 0  # steps that a loss scaler left out
        self.restored = 0  # steps that began where the step before had begun
        self._left: Tensors = {}  # what the optimizer saw last, if it was not cleared
        self._start: Tensors = {}  # the weights before the step before
        self._clear()

    def _clear(self) -> None:
        self._made: Tensors = {}
        self._last: Tensors = {}
        self._pass = 0
        self._in_pass: set[str] = set()

    @contextmanager
    def attached(self) -> Iterator[None]:
        optimizer, scheduler = self.setup.optimizer, self.setup.scheduler
        watched: list[tuple[Any, str, Callable]] = [(optimizer, "step", self._step)]
        for name in ("step", "step_update"):
            if hasattr(scheduler, name):
                watched.append((scheduler, name, self._scheduled))
        with ExitStack() as stack:
            for name, p in self.parameters.items():
                stack.enter_context(p.register_hook(partial(self._gradient, name)))
            stack.enter_context(self.setup.model.register_forward_pre_hook(self._before_forward))
            for owner, name, record in watched:
                recording = partial(record, getattr(owner, name))
                stack.enter_context(patch.object(owner, name, recording))
            yield

    def _scheduled(self, call: Any, *arguments: Any, **more: Any) -> Any:
        self.scheduler_calls += 1
        return call(*arguments, **more)

    def _before_forward(self, model: nn.Module, _: Any) -> None:
        if torch.is_grad_enabled():
            self._in_pass = set()
            self.training.append(model.training)
            for name, layer in model.named_modules():
                if isinstance(layer, MODE_DEPENDENT) and not layer.training:
                    self.in_evaluation[name] = layer

    def _gradient(self, name: str, gradient: Tensor) -> None:
        g = gradient.detach()
        if name in self._in_pass or not self._in_pass:  # a new backward pass
            self._in_pass, self._last = set(), {}
            self._pass += 1
            self.backwards += 1
        self._in_pass.add(name)
        self._last[name] = g
        self._made[name] = self._made[name] + g if name in self._made else g.clone()
        top = float(g.abs().max())
        if math.isfinite(top):
            self.largest[name] = max(self.largest.get(name, 0.0), top)
        else:
            self.not_finite.add(name)

    def _step(self, step: Any, *arguments: Any, **more: Any) -> Any:
        held = held_by(self.setup.optimizer)
        mine = {n: p for n, p in self.parameters.items() if p in held}
        before = {n: p.detach().clone() for n, p in self.parameters.items()}
        seen = _gradients(mine)
        entry = self._compare(seen, mine)
        compute = arguments[0] if arguments else more.pop("closure", None)
        if callable(compute):  # backward runs within the step

            def compute_loss() -> Any:
                nonlocal entry
                loss = compute()
                entry = self._compare(_gradients(mine), mine)
                return loss

            arguments = (compute_loss, *arguments[1:])
        if self._start:
            back = all(torch.equal(before[name], self._start[name]) for name in before)
            self.restored += back and bool(self.steps[-1].update)
        self._start = before
        result = step(*arguments, **more)
        self._left = seen
        self._clear()
        entry.update = self._movement(before)
        if self._overflown() and entry.update == 0:  # a fused optimizer leaves it out by itself
            self.forgive()
        else:
            self.steps.append(entry)
        return result

    def step_is_due(self) -> None:
        """To call where the optimizer should have stepped. A loss scaler leaves out a step whose
        gradients overflow and scales less from then on: as a rule the first ones."""
        if self._made and self._overflown():
            self.forgive()

    def _overflown(self) -> bool:
        return self.ctx.declared.precision == "fp16" and bool(self.not_finite)

    def forgive(self) -> None:
        """Count no step where a loss scaler left it out."""
        self.overflows += 1
        self.not_finite, self._left, self._start = set(), {}, {}
        self._clear()

    def _compare(self, seen: Tensors, mine: Mapping[str, Tensor]) -> OptimizerStep:
        sums = dict.fromkeys(("mm", "ss", "ms", "ll", "ls", "tt", "ts"), 0.0)
        shrunk = True
        for name, parameter in mine.items():
            zero = torch.zeros_like(parameter)
            m, s = self._made.get(name, zero), seen.get(name, zero)
            last, stale = self._last.get(name, zero), m + self._left.get(name, zero)
            long = {"m": m, "s": s, "l": last, "t": stale}
            long = {key: gradient.flatten().double() for key, gradient in long.items()}
            for key in sums:
                sums[key] += float(torch.dot(long[key[0]], long[key[1]]))
            slack = 1e-6 * float(m.abs().max()) + 1e-12
            shrunk &= bool(((s.abs() <= m.abs() + slack) & (s * m >= -slack * slack)).all())

        def cosine(dot: str, norm: str) -> float:
            size = (sums["ss"] * sums[norm]) ** 0.5
            return sums[dot] / size if size else 0.0

        norms = sums["mm"] ** 0.5, sums["ss"] ** 0.5
        cosines = cosine("ms", "mm"), cosine("ls", "ll"), cosine("ts", "tt")
        return OptimizerStep(self._pass, *norms, *cosines, shrunk)

    def _movement(self, before: Tensors) -> float:
        """How far all matrices moved, relative to their size."""
        moved = size = 0.0
        for name, p in self.parameters.items():
            if p.ndim > 1:
                moved += _squared(p.detach() - before[name])
                size += _squared(before[name])
        return (moved / size) ** 0.5 if size else 0.0


def _gradients(parameters: Mapping[str, Tensor]) -> Tensors:
    return {n: p.grad.detach().clone() for n, p in parameters.items() if p.grad is not None}


def _squared(tensor: Tensor) -> float:
    return float(torch.linalg.vector_norm(tensor, dtype=torch.float64)) ** 2
