"""The optimizer spy: what backward made of gradients, against what the optimizer saw.

Hooks on the parameters add up what each backward pass brings; the optimizer's `step` and
`zero_grad` are watched. Nothing is inferred from the course of the loss.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from src.checks.context import Context, logits_of
from src.checks.setup import TrainingSetup

# Layers that do something else in evaluation.
CAREFUL = (nn.modules.batchnorm._BatchNorm, nn.modules.dropout._DropoutNd)


@dataclass
class OptimizerStep:
    """One step of the optimizer: `backwards` passes before it; cosine of the seen gradient to what
    was made since the last step (`cosine`), in the last pass (`to_last`), and to that plus what was
    left from before (`to_stale`); `ratio` of the norms; whether each entry was only made smaller
    (`shrunk`); whether anything was `made`; how far weights moved (`update`, relative)."""

    backwards: int
    made: float
    seen: float
    cosine: float
    to_last: float
    to_stale: float
    shrunk: bool
    update: float

    @property
    def ratio(self) -> float:
        return self.seen / self.made if self.made else 0.0


@dataclass
class Watch:
    """What was seen over all steps."""

    steps: list[OptimizerStep] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    largest: dict[str, float] = field(default_factory=dict)  # gradient of each parameter
    not_finite: set[str] = field(default_factory=set)
    training: list[bool] = field(default_factory=list)  # the mode in each forward pass
    resting: set[str] = field(default_factory=set)  # norm or dropout layers in evaluation mode
    scheduler_calls: int = 0
    backwards: int = 0
    overflows: int = 0  # steps that a loss scaler left out
    restored: int = 0  # steps that began where the step before had begun


class Spy:
    """Watches a set-up while `attached`. `lrs`: the rates that the groups get in each step,
    whatever the schedule says; None leaves them alone."""

    def __init__(self, ctx: Context, setup: TrainingSetup, lrs: list[float] | None = None):
        self.ctx, self.setup, self.lrs = ctx, setup, lrs
        self.watch = Watch()
        self.parameters = {n: p for n, p in setup.model.named_parameters() if p.requires_grad}
        self._made: dict[str, Tensor] = {}
        self._last: dict[str, Tensor] = {}
        self._left: dict[str, Tensor] = {}  # what the optimizer saw last, if it was not cleared
        self._start: dict[str, Tensor] = {}  # the weights before the step before
        self._pass = 0
        self._in_pass: set[str] = set()

    @contextmanager
    def attached(self) -> Iterator[Watch]:
        setup, optimizer = self.setup, self.setup.optimizer
        handles = [p.register_hook(self._hook(name)) for name, p in self.parameters.items()]
        handles.append(setup.model.register_forward_pre_hook(self._before_forward))
        step = optimizer.step
        optimizer.step = lambda *a, **k: self._step(step, *a, **k)
        scheduler_step = getattr(setup.scheduler, "step", None)
        update = getattr(setup.scheduler, "step_update", None)
        if scheduler_step is not None:
            setup.scheduler.step = lambda *a, **k: self._scheduled(scheduler_step, *a, **k)
        if update is not None:
            setup.scheduler.step_update = lambda *a, **k: self._scheduled(update, *a, **k)
        try:
            yield self.watch
        finally:
            optimizer.step = step
            if scheduler_step is not None:
                setup.scheduler.step = scheduler_step
            if update is not None:
                setup.scheduler.step_update = update
            for handle in handles:
                handle.remove()

    def _scheduled(self, call: Any, *arguments: Any, **more: Any) -> Any:
        self.watch.scheduler_calls += 1
        return call(*arguments, **more)

    def _before_forward(self, module: nn.Module, _: Any) -> None:
        if not torch.is_grad_enabled():
            return
        self._in_pass = set()
        self.watch.training.append(module.training)
        for name, layer in module.named_modules():
            matters = isinstance(
                layer, nn.modules.batchnorm._BatchNorm | nn.modules.dropout._DropoutNd
            )
            if matters and not layer.training:
                self.watch.resting.add(name)

    def _hook(self, name: str) -> Any:
        def hook(gradient: Tensor) -> None:
            g = gradient.detach()
            if name in self._in_pass or not self._in_pass:  # a new backward pass
                self._in_pass = set()
                self._last = {}
                self._pass += 1
                self.watch.backwards += 1
            self._in_pass.add(name)
            self._last[name] = g
            self._made[name] = self._made[name] + g if name in self._made else g.clone()
            top = float(g.abs().max())
            if top != top or top == float("inf"):
                self.watch.not_finite.add(name)
            else:
                self.watch.largest[name] = max(self.watch.largest.get(name, 0.0), top)

        return hook

    def _step(self, step: Any, *arguments: Any, **more: Any) -> Any:
        groups = self.setup.optimizer.param_groups
        held = {id(p) for group in groups for p in group["params"]}
        mine = {n: p for n, p in self.parameters.items() if id(p) in held}
        seen = {n: p.grad.detach().clone() for n, p in mine.items() if p.grad is not None}
        made = {n: g for n, g in self._made.items() if n in mine}
        before = {n: p.detach().clone() for n, p in self.parameters.items()}
        entry = self._compare(made, seen, mine)
        closure = arguments[0] if arguments else more.pop("closure", None)
        if callable(closure):  # backward runs within the step

            def watched() -> Any:
                nonlocal entry
                loss = closure()
                seen = {n: p.grad.detach().clone() for n, p in mine.items() if p.grad is not None}
                made = {n: g for n, g in self._made.items() if n in mine}
                entry = self._compare(made, seen, mine)
                return loss

            arguments = (watched, *arguments[1:])
        if self._start:
            back = all(torch.equal(before[name], self._start[name]) for name in before)
            self.watch.restored += back and bool(self.watch.steps[-1].update)
        self._start = before
        kept = [group["lr"] for group in groups]
        if self.lrs is not None:
            for group, lr in zip(groups, self.lrs, strict=False):
                group["lr"] = lr
        try:
            result = step(*arguments, **more)
        finally:
            for group, lr in zip(groups, kept, strict=True):
                group["lr"] = lr
        self._left = seen
        self._clear()
        entry.update = self._movement(before)
        if self._overflown() and entry.update == 0:  # a fused optimizer leaves it out by itself
            self._forgive()
        else:
            self.watch.steps.append(entry)
        return result

    def step_is_due(self) -> None:
        """To call where the optimizer should have stepped. A loss scaler leaves out a step whose
        gradients overflow and scales less from then on: as a rule the first ones."""
        if self._made and self._overflown():
            self._forgive()

    def _overflown(self) -> bool:
        return self.ctx.declared.precision == "fp16" and bool(self.watch.not_finite)

    def _forgive(self) -> None:
        self.watch.overflows += 1
        self.watch.not_finite = set()
        self._left, self._start = {}, {}
        self._clear()

    def _clear(self) -> None:
        self._made, self._last, self._pass, self._in_pass = {}, {}, 0, set()

    def _compare(
        self, made: dict[str, Tensor], seen: dict[str, Tensor], mine: Mapping[str, Tensor]
    ) -> OptimizerStep:
        sums = dict.fromkeys(("mm", "ss", "ms", "ll", "ls", "tt", "ts"), 0.0)
        shrunk = True
        for name, parameter in mine.items():
            zero = torch.zeros_like(parameter)
            m, s = made.get(name, zero), seen.get(name, zero)
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

        return OptimizerStep(
            backwards=self._pass, made=sums["mm"] ** 0.5, seen=sums["ss"] ** 0.5,
            cosine=cosine("ms", "mm"), to_last=cosine("ls", "ll"), to_stale=cosine("ts", "tt"),
            shrunk=shrunk, update=0.0,
        )  # fmt: skip

    def _movement(self, before: dict[str, Tensor]) -> float:
        """How far all matrices moved, relative to their size."""
        moved = size = 0.0
        for name, p in self.parameters.items():
            if p.ndim > 1:
                moved += _squared(p.detach() - before[name])
                size += _squared(before[name])
        return (moved / size) ** 0.5 if size else 0.0


def _squared(tensor: Tensor) -> float:
    return float(torch.linalg.vector_norm(tensor, dtype=torch.float64)) ** 2


def unregistered(setup: TrainingSetup, x: Tensor) -> tuple[int, int]:
    """Leaves of the graph of the net's outputs that learn: (those that are no parameters of the
    net, those that the optimizer does not hold). A plain list hides layers from both."""
    logits = logits_of(setup.model(x))
    known = {id(p) for p in setup.model.parameters()}
    held = {id(p) for group in setup.optimizer.param_groups for p in group["params"]}
    todo, visited, leaves = [logits.grad_fn], set(), {}
    while todo:
        node = todo.pop()
        if node is None or node in visited:
            continue
        visited.add(node)
        variable = getattr(node, "variable", None)
        if variable is not None and variable.requires_grad:
            leaves[id(variable)] = variable
        todo.extend(following for following, _ in node.next_functions)
    strange = [key for key in leaves if key not in known]
    return len(strange), len([key for key in strange if key not in held])
