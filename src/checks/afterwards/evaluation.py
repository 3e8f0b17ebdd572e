"""Evaluation, recounted: with logits of our choice where they reach it, else by hand."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from src.checks.afterwards.recount import compare
from src.checks.context import Context, device_of, forward, labels_of
from src.checks.report import Check
from src.checks.setup import TrainingSetup
from src.checks.step.controlled import patched_forward
from src.checks.step.watching import CAREFUL

SIZES = (7, 7, 3)  # of the batches: unequal, so that a mean of batch means shows


class Batches:
    """A loader of given batches, with the attributes that evaluation code asks for."""

    def __init__(self, batches: list[tuple[Tensor, Tensor]]):
        self.batches = batches
        self.dataset = [(row, label) for x, y in batches for row, label in zip(x, y, strict=True)]
        self.batch_size = len(batches[0][1])
        self.read = 0  # batches that were asked for

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for batch in self.batches:
            self.read += 1
            yield batch

    def __len__(self) -> int:
        return len(self.batches)


def small_loader(ctx: Context, start: int = 0) -> Batches | None:
    """17 validation items in three batches, from the `start`-th on."""
    sample = ctx.val_sample or ctx.train_sample
    if sample is None or len(sample) < start + sum(SIZES):
        return None
    # A fixed mixture: labels often lie in order.
    order = torch.randperm(len(sample), generator=torch.Generator().manual_seed(4))[start:]
    batches = []
    for size in SIZES:
        rows, order = order[:size], order[size:]
        labels = sample.y[rows]
        target = labels
        if ctx.width == 1:
            target = ctx.target(labels, torch.zeros(1, 1))
        elif ctx.val_soft:
            target = ctx.encode(labels, soft=True)
        batches.append((sample.x[rows], target))
    return Batches(batches)


@contextmanager
def modes_seen(model: nn.Module) -> Iterator[set[str]]:
    """The kinds of layers that ran in training mode meanwhile, of whatever net: an average of the
    weights is a net of its own."""
    seen: set[str] = set()

    def note(module: nn.Module, _: Any) -> None:
        if module.training and isinstance(module, CAREFUL) and not _is_off(module):
            seen.add(type(module).__name__)

    handle = nn.modules.module.register_module_forward_pre_hook(note)
    try:
        yield seen
    finally:
        handle.remove()


def _is_off(module: nn.Module) -> bool:
    return isinstance(module, nn.modules.dropout._DropoutNd) and module.p == 0


def check_evaluation(ctx: Context) -> list[Check]:
    """On a fresh net, where an average of the weights equals the weights."""
    setup = ctx.fresh()
    loader = small_loader(ctx)
    if loader is None:
        return []
    before = {key: value.clone() for key, value in setup.model.state_dict().items()}
    with modes_seen(setup.model) as training:
        told = ctx.evaluate(setup, loader)
    found = _read(loader)
    weights = {name for name, _ in setup.model.named_parameters()}
    if training and not any(
        not torch.equal(value, before[key])
        for key, value in setup.model.state_dict().items()
        if key in weights
    ):
        text = f"evaluation runs {', '.join(sorted(training))} in training mode"
        found.append(Check("eval_mode", "fail", 1.0, 0.0, text, ["eval_in_train_mode"]))
    changed = [key for key, value in setup.model.state_dict().items()
               if not torch.equal(value, before[key])]  # fmt: skip
    if changed:
        text = f"evaluation changes {len(changed)} tensors of the net ({', '.join(changed[:3])})"
        causes = ["eval_changes_model", "eval_in_train_mode"]
        if found and training:
            causes.reverse()
        found.append(Check("eval_side_effects", "fail", float(len(changed)), 0.0, text, causes))
    again = ctx.evaluate(setup, loader)
    if not _equal(told, again):
        text = f"two evaluations of the same net give {_shown(told)} and {_shown(again)}"
        causes = ["eval_not_deterministic", "eval_changes_model", "eval_in_train_mode"]
        if training and found:
            causes.insert(0, causes.pop())
        found.append(Check("eval_determinism", "fail", None, None, text, causes))
    if not found:
        found += _recount(ctx, setup, loader, told)
    found += _mode_after(ctx, setup)
    return found


def _read(loader: Batches) -> list[Check]:
    """Whether evaluation read what it was given."""
    id, share = "eval_loader", loader.read / len(loader)
    if share == 0:
        text = "evaluation does not read the loader it is given"
        return [Check(id, "fail", share, 1.0, text, ["eval_ignores_loader"])]
    if share < 1:
        text = f"evaluation stops after {loader.read} of {len(loader)} batches"
        return [Check(id, "fail", share, 1.0, text, ["eval_incomplete"])]
    return []


def _equal(a: dict[str, float], b: dict[str, float]) -> bool:
    return all(math.isclose(a[key], b[key], rel_tol=1e-4, abs_tol=1e-6) for key in a if key in b)


def _shown(told: dict[str, float]) -> str:
    return ", ".join(f"{key} {value:.4f}" for key, value in told.items())


def _recount(
    ctx: Context, setup: TrainingSetup, loader: Batches, told: dict[str, float]
) -> list[Check]:
    """By hand on the fresh net, then with chosen logits in its place, if they arrive."""
    parts = [(forward(setup.model, x).cpu(), y) for x, y in loader]
    found = compare(ctx, setup, parts, told)
    if found[0].status != "pass":
        return found
    generator = torch.Generator().manual_seed(5)
    chosen = [torch.randn(len(y), ctx.width, generator=generator) for _, y in loader]
    for logits, (_, y) in zip(chosen, loader, strict=True):
        labels = labels_of(y)
        right = torch.rand(len(labels), generator=generator) < 0.6
        if ctx.width > 1:
            logits[torch.arange(len(labels))[right], labels[right]] += 4
            logits.copy_(logits.log_softmax(1) if ctx.log_probabilities else logits)
    calls = 0
    device = device_of(setup.model)

    def stub(x: Tensor, *_: Any, **__: Any) -> Tensor:
        nonlocal calls
        calls += 1
        return chosen[(calls - 1) % len(chosen)].to(device)[: len(x)]

    try:
        with patched_forward(setup.model, stub):
            told = ctx.evaluate(setup, loader)
    except Exception:
        return found
    if calls != len(chosen):  # an average of the weights, several views, or a net of its own
        return found
    return compare(ctx, setup, list(zip(chosen, [y for _, y in loader], strict=True)), told)


def _mode_after(ctx: Context, setup: TrainingSetup) -> list[Check]:
    """The step after an evaluation runs in training mode again."""
    layers = [layer for layer in setup.model.modules() if isinstance(layer, CAREFUL)]
    if not layers or not ctx.batches:
        return []
    modes: list[bool] = []
    handle = setup.model.register_forward_pre_hook(
        lambda module, _: modes.append(module.training) if torch.is_grad_enabled() else None
    )
    try:
        ctx.step(setup, ctx.batches[0])
    finally:
        handle.remove()
    if modes and not modes[-1]:
        text = "the step after an evaluation runs in evaluation mode"
        return [Check("mode_after_eval", "fail", 1.0, 0.0, text, ["model_in_eval_mode"])]
    return [Check("mode_after_eval", "pass", 0.0, 0.0, "training goes on in training mode")]
