"""Evaluation, recounted: with chosen logits where they reach it, else by hand."""

import math
from collections.abc import Callable, Iterator
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd
from torch.nn.modules.module import register_module_forward_pre_hook

from src.checks.context import Context
from src.checks.reading import MODE_DEPENDENT, as_labels, device_of, predict
from src.checks.report import Check, fail, ok, warn
from src.checks.temporary import forward
from src.checks.training_setup import TrainingSetup

SIZES = (7, 7, 3)  # of the batches: unequal, so that a mean of batch means shows
ACCURACY_OFF = 1e-4
LOSS_OFF = 1e-3  # relative
Metrics = dict[str, float]
Outputs = list[tuple[Tensor, Tensor]]  # (logits, targets) of each batch


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


def small_loader(ctx: Context) -> Batches | None:
    """17 validation items in three batches."""
    sample = ctx.val_sample or ctx.train_sample
    if sample is None or len(sample) < sum(SIZES):
        return None
    # A fixed mixture: labels often lie in order.
    order = torch.randperm(len(sample), generator=torch.Generator().manual_seed(4))
    batches = []
    for rows in order[: sum(SIZES)].split(SIZES):
        labels = target = sample.y[rows]
        if ctx.width == 1:
            target = ctx.target(labels, torch.zeros(1, 1))
        elif ctx.val_soft:
            target = ctx.encode(labels, soft=True)
        batches.append((sample.x[rows], target))
    return Batches(batches)


def check_evaluation(ctx: Context) -> list[Check]:
    """On a fresh net, where an average of the weights equals the weights."""
    setup, loader = ctx.fresh(), small_loader(ctx)
    if loader is None:
        return []
    before = {key: value.clone() for key, value in setup.model.state_dict().items()}
    training: set[str] = set()

    # Of whatever net: an average of the weights is a net of its own.
    def note_mode(layer: nn.Module, _: Any) -> None:
        off = isinstance(layer, _DropoutNd) and layer.p == 0
        if layer.training and isinstance(layer, MODE_DEPENDENT) and not off:
            training.add(type(layer).__name__)

    with register_module_forward_pre_hook(note_mode):
        metrics = ctx.evaluate(setup, loader)
    found = _read(loader)
    state = setup.model.state_dict().items()
    changed = [key for key, value in state if not torch.equal(value, before[key])]
    weights = {name for name, _ in setup.model.named_parameters()}
    if training and not weights & set(changed):
        text = f"evaluation runs {', '.join(sorted(training))} in training mode"
        found.append(fail("eval_mode", 1.0, 0.0, text, "eval_in_train_mode"))
    if changed:
        text = f"evaluation changes {len(changed)} tensors of the net ({', '.join(changed[:3])})"
        causes = ["eval_changes_model", "eval_in_train_mode"]
        if found and training:
            causes.reverse()
        found.append(fail("eval_side_effects", float(len(changed)), 0.0, text, *causes))
    again = ctx.evaluate(setup, loader)
    if not all(_close(metrics[key], again[key], 1e-4) for key in metrics if key in again):
        text = f"two evaluations of the same net give {_shown(metrics)} and {_shown(again)}"
        causes = ["eval_not_deterministic", "eval_changes_model", "eval_in_train_mode"]
        if training and found:
            causes.insert(0, causes.pop())
        found.append(fail("eval_determinism", None, None, text, *causes))
    found = found or _recount(ctx, setup, loader, metrics)
    return [*found, *_mode_after(ctx, setup)]


def _read(loader: Batches) -> list[Check]:
    """Whether evaluation read what it was given."""
    id, share = "eval_loader", loader.read / len(loader)
    if share == 0:
        text = "evaluation does not read the loader it is given"
        return [fail(id, share, 1.0, text, "eval_ignores_loader")]
    if share < 1:
        text = f"evaluation stops after {loader.read} of {len(loader)} batches"
        return [fail(id, share, 1.0, text, "eval_incomplete")]
    return []


def _close(a: float, b: float, relative: float = LOSS_OFF, absolute: float = 1e-6) -> bool:
    return math.isclose(a, b, rel_tol=relative, abs_tol=absolute)


def _shown(metrics: Metrics) -> str:
    return ", ".join(f"{key} {value:.4f}" for key, value in metrics.items())


def _recount(ctx: Context, setup: TrainingSetup, loader: Batches, metrics: Metrics) -> list[Check]:
    """By hand on the fresh net, then with chosen logits in its place, if they arrive."""
    outputs = [(forward(setup.model, x).cpu(), y) for x, y in loader]
    found = _compare(ctx, setup, outputs, metrics)
    if found[0].status != "pass":
        return found
    generator = torch.Generator().manual_seed(5)
    chosen = [torch.randn(len(y), ctx.width, generator=generator) for _, y in loader]
    for logits, (_, y) in zip(chosen, loader, strict=True):
        labels = as_labels(y)
        right = torch.rand(len(labels), generator=generator) < 0.6
        if ctx.width > 1:
            logits[torch.arange(len(labels))[right], labels[right]] += 4
            logits.copy_(logits.log_softmax(1) if ctx.log_probabilities else logits)
    calls = 0
    device = device_of(setup.model)

    def give_chosen(x: Tensor, *_: Any, **__: Any) -> Tensor:
        nonlocal calls
        calls += 1
        return chosen[(calls - 1) % len(chosen)].to(device)[: len(x)]

    try:
        with patch.object(setup.model, "forward", give_chosen):
            metrics = ctx.evaluate(setup, loader)
    except Exception:
        return found
    if calls != len(chosen):  # an average of the weights, several views, or a net of its own
        return found
    outputs = [(logits, y) for logits, (_, y) in zip(chosen, loader, strict=True)]
    return _compare(ctx, setup, outputs, metrics)


def _compare(ctx: Context, setup: TrainingSetup, outputs: Outputs, metrics: Metrics) -> list[Check]:
    """The reported accuracy and loss against those of the outputs."""
    id, got = "eval_metric", metrics.get("accuracy")
    if got is None:
        return [fail(id, None, None, "evaluate gives no accuracy", "interface")]
    sizes = [len(as_labels(y)) for _, y in outputs]
    hits = [float((predict(logits) == as_labels(y)).sum()) for logits, y in outputs]
    accuracy = sum(hits) / sum(sizes)
    found = []
    if accuracy > 0 and got > 1.5 and math.isclose(got, 100 * accuracy, rel_tol=1e-3):
        text = f"evaluate says accuracy {got:.4g}, a share of {accuracy:.4f} in percent"
        found.append(warn(id, got, accuracy, text, "eval_metric_wrong"))
        got /= 100
    text = f"evaluate says accuracy {got:.4f}, recounted {accuracy:.4f}"
    if abs(got - accuracy) > ACCURACY_OFF:
        of_means = sum(h / n for h, n in zip(hits, sizes, strict=True)) / len(sizes)
        shares = [sum(hits[:n]) / sum(of) for n in (1, 2) for of in (sizes[:n], sizes)]
        causes = ["eval_metric_wrong", "eval_of_other_weights", "eval_ignores_loader"]
        if abs(got - of_means) < ACCURACY_OFF:
            causes = ["eval_mean_of_batch_means", "eval_metric_wrong"]
        elif any(abs(got - share) < ACCURACY_OFF for share in shares):
            causes = ["eval_incomplete", "eval_metric_wrong"]
        found.append(fail(id, got, accuracy, text, *causes))
    elif "loss" in metrics:
        found += _compare_loss(ctx, setup, outputs, metrics["loss"])
    return found or [ok(id, got, accuracy, text)]


def _compare_loss(
    ctx: Context, setup: TrainingSetup, outputs: Outputs, reported: float
) -> list[Check]:
    """The reported loss against what may be called the loss of all: of the set-up's loss or plain
    cross-entropy, weighted by batch size or taken at once. Means over batches and losses of single
    batches are not, and tell what was counted."""
    device, sizes = device_of(setup.model), [len(as_labels(y)) for _, y in outputs]
    losses: list[Callable[[Tensor, Tensor], Tensor]] = [setup.loss_fn]
    if ctx.width > 1:
        losses.append(lambda z, y: nn.functional.cross_entropy(z, as_labels(y).to(device)))
    everything = [torch.cat(part) for part in zip(*outputs, strict=True)]
    exact, means, single = [], [], []
    for loss_fn in losses:
        try:
            *values, whole = (
                float(torch.as_tensor(loss_fn(z.to(device), y.to(device))).mean())
                for z, y in [*outputs, everything]
            )
        except Exception:  # the loss takes other targets in training: shares
            continue
        exact += [sum(v * n for v, n in zip(values, sizes, strict=True)) / sum(sizes), whole]
        exact.append(sum(values) / sum(sizes))  # of a sum
        means.append(sum(values) / len(values))
        single += values
    exact = exact or [math.nan]
    if any(_close(reported, value) for value in exact):
        return []
    near = min(exact, key=lambda value: abs(value - reported))
    text = f"evaluate says loss {reported:.4f}, recounted {near:.4f}"
    causes = ["eval_metric_wrong", "eval_mean_of_batch_means"]
    if any(_close(reported, value, absolute=0) for value in means):
        causes.reverse()
    elif any(_close(reported, value, absolute=0) for value in single):
        causes = ["eval_incomplete", "eval_metric_wrong"]
    return [warn("eval_loss", reported, near, text, *causes)]


def _mode_after(ctx: Context, setup: TrainingSetup) -> list[Check]:
    """The step after an evaluation runs in training mode again."""
    layers = any(isinstance(layer, MODE_DEPENDENT) for layer in setup.model.modules())
    if not layers or not ctx.batches:
        return []
    modes: list[bool] = []

    def note(module: nn.Module, _: Any) -> None:
        if torch.is_grad_enabled():
            modes.append(module.training)

    with setup.model.register_forward_pre_hook(note):
        ctx.step(setup, ctx.batches[0])
    if modes and not modes[-1]:
        text = "the step after an evaluation runs in evaluation mode"
        return [fail("mode_after_eval", 1.0, 0.0, text, "model_in_eval_mode")]
    return [ok("mode_after_eval", 0.0, 0.0, "training goes on in training mode")]
