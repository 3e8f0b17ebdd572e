"""Recounts the evaluation, from chosen logits or by hand; checks that it follows the training."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd
from torch.nn.modules.module import register_module_forward_pre_hook

from src.checks.context import Context
from src.checks.reading import MODE_DEPENDENT, as_labels, counted, device_of, named, predict
from src.checks.report import Check, above, fail, finding, ok, warn
from src.checks.temporary import at_rates, forward
from src.checks.training_setup import TrainingSetup

SIZES = (7, 7, 3)  # of the batches: unequal, so that a mean of batch means shows
ACCURACY_OFF = 1e-4
LOSS_OFF = 1e-3  # relative
STEPS, LATER = 4, 24  # of the optimizer
ENTRIES = 4096  # of each parameter that are compared
LEFT_WARN, LEFT_FAIL = 0.8, 0.95  # of the random start in the average when the training ends
Metrics = dict[str, float]
State = dict[str, Tensor]  # of a net
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
    """17 validation items in three batches; of fewer, some come again."""
    sample, batches = ctx.val_sample or ctx.train_sample, []
    if sample is None:
        return None
    # A fixed mixture: labels often lie in order.
    order = torch.randperm(len(sample), generator=torch.Generator().manual_seed(4))
    order = order.repeat(-(-sum(SIZES) // len(sample)))
    for rows in order[: sum(SIZES)].split(SIZES):
        labels = sample.y[rows]
        if ctx.width == 1:
            target = ctx.target(labels, torch.zeros(1, 1))
        else:
            target = ctx.encode(labels, ctx.val_soft)
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
    found = []
    if loader.read < len(loader):
        text = f"evaluation stops after {loader.read} of {len(loader)} batches"
        cause = "eval_incomplete"
        if not loader.read:
            text = "evaluation does not read the loader it is given"
            cause = "eval_ignores_loader"
        found = [fail("eval_loader", loader.read / len(loader), 1.0, text, cause)]
    state = setup.model.state_dict().items()
    changed = [key for key, value in state if not torch.equal(value, before[key])]
    if training and not dict(setup.model.named_parameters()).keys() & changed:
        text = f"evaluation runs {', '.join(sorted(training))} in training mode"
        found.append(fail("eval_mode", 1.0, 0.0, text, "eval_in_train_mode"))
    if changed:
        text = f"evaluation changes {counted(len(changed), 'tensor')} of the net ({named(changed)})"
        causes = ["eval_changes_model", "eval_in_train_mode"]
        if found and training:
            causes.reverse()
        found.append(fail("eval_side_effects", float(len(changed)), 0.0, text, *causes))
    again = ctx.evaluate(setup, loader)
    both = metrics.keys() & again.keys()
    if not all(math.isclose(metrics[k], again[k], rel_tol=1e-4, abs_tol=1e-6) for k in both):
        shown = [", ".join(f"{k} {v:.4f}" for k, v in given.items()) for given in (metrics, again)]
        text = f"two evaluations of the same net give {' and '.join(shown)}"
        causes = ["eval_not_deterministic", "eval_changes_model", "eval_in_train_mode"]
        if training and found:
            causes.insert(0, causes.pop())
        found.append(fail("eval_determinism", None, None, text, *causes))
    found = found or _recount(ctx, setup, loader, metrics)
    return [*found, *_mode_after(ctx, setup)]


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
    calls, device = 0, device_of(setup.model)

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


def _compare_loss(ctx: Context, setup: TrainingSetup, outputs: Outputs, got: float) -> list[Check]:
    """The reported loss `got` against the loss of all samples: the set-up's or cross-entropy,
    weighted by batch size or at once. Other means only show what was counted instead."""
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
    if any(math.isclose(got, value, rel_tol=LOSS_OFF, abs_tol=1e-6) for value in exact):
        return []
    near = min(exact, key=lambda value: abs(value - got))
    text = f"evaluate says loss {got:.4f}, recounted {near:.4f}"
    causes = ["eval_metric_wrong", "eval_mean_of_batch_means"]
    if any(math.isclose(got, value, rel_tol=LOSS_OFF) for value in means):
        causes.reverse()
    elif any(math.isclose(got, value, rel_tol=LOSS_OFF) for value in single):
        causes = ["eval_incomplete", "eval_metric_wrong"]
    return [warn("eval_loss", got, near, text, *causes)]


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


@torch.no_grad()
def _snapshot(model: nn.Module) -> State:
    """Parameters (of large ones the first entries) and buffers that are no counters, as float64."""
    found = {name: p.flatten()[:ENTRIES] for name, p in model.named_parameters()}
    found |= {name: b.flatten() for name, b in model.named_buffers() if b.is_floating_point()}
    return {name: value.detach().cpu().double().clone() for name, value in found.items()}


@contextmanager
def _weights_used(model: nn.Module) -> Iterator[State]:
    """State of the last net in evaluation mode whose parameters have `model`'s names, read at its
    call: copies, averages and weights exchanged for the evaluation are all seen."""
    shapes = {name: p.shape for name, p in model.named_parameters()}
    used: State = {}

    def note(module: nn.Module, _: Any) -> None:
        same = {name: p.shape for name, p in module.named_parameters()} == shapes
        if same and not module.training:
            used.clear()
            used.update(_snapshot(module))

    with register_module_forward_pre_hook(note):
        yield used


def check_eval_follows(ctx: Context) -> list[Check]:
    """What evaluation says, and what it uses, moves with training."""
    setup, loader = ctx.fresh(), small_loader(ctx)
    if loader is None:
        return []
    start = [p.detach().clone() for p in setup.model.parameters()]
    first = _snapshot(setup.model)
    names, accumulate = list(dict(setup.model.named_parameters())), ctx.declared.accumulate

    def evaluate() -> tuple[dict[str, float], State]:
        with _weights_used(setup.model) as used:
            return ctx.evaluate(setup, loader), used

    def train(begin: int, end: int) -> None:
        with at_rates(setup.optimizer, ctx.peak_lrs):
            for number in range(begin * accumulate, end * accumulate):
                ctx.step(setup, ctx.batch(number))

    before, _ = evaluate()
    train(0, STEPS - 1)
    _, used = evaluate()
    train(STEPS - 1, STEPS)
    trained = _snapshot(setup.model)
    after, now = evaluate()
    moved = any(not torch.equal(a, b) for a, b in zip(start, setup.model.parameters(), strict=True))
    if moved and (before == after or (now and _equal(names, first, now))):
        train(STEPS, LATER)  # an average may take in only every so many steps
        after, last = evaluate()
        if before == after or (last and _equal(names, first, last)):
            text = f"what is evaluated does not move in {LATER} steps of the optimizer"
            causes = ["eval_of_other_weights", "average_too_slow"]
            return [fail("eval_follows", after.get("loss"), None, text, *causes)]
    found = [ok("eval_follows", None, None, "evaluation follows the training")]
    if moved and now.keys() == first.keys():
        found += _statistics(names, first, trained, now)
        found += _speed(ctx, names, used, trained, now)
    return found


def _equal(names: list[str], a: State, b: State) -> bool:
    return all(torch.equal(a[name], b[name]) for name in names)


def _statistics(weights: list[str], first: State, trained: State, now: State) -> list[Check]:
    """Buffers that the training moves and that stand still in what is evaluated."""
    buffers = [name for name in first if name not in weights]
    moving = [name for name in buffers if not torch.equal(first[name], trained[name])]
    still = [name for name in moving if torch.equal(first[name], now[name])]
    if not moving or len(still) < len(moving) or _equal(weights, first, now):
        return []
    text = f"evaluation uses {counted(len(still), 'running statistic')} from before the training "
    text += f"({named(still, 2)}), with trained weights"
    causes = ["average_without_buffers", "eval_of_other_weights"]
    return [fail("eval_statistics", float(len(still)), 0.0, text, *causes)]


def _speed(ctx: Context, names: list[str], used: State, trained: State, now: State) -> list[Check]:
    """How much of the random start an average of weights still holds, by its last step's share."""
    total = ctx.declared.total_steps
    if not total or used.keys() != now.keys():
        return []
    way = torch.cat([trained[name] - used[name] for name in names])
    went = torch.cat([now[name] - used[name] for name in names])
    size = torch.cat([trained[name] for name in names]).norm()
    # Too short a way says nothing; nor does an average that takes in only every so many steps.
    if float(way.norm()) < 1e-4 * float(size) or not bool(went.any()):
        return []
    share = float(way @ went / (way @ way))
    if not 0 < share < 1 or torch.equal(way, went):
        return []
    left = (1 - share) ** total
    text = f"a step takes the average of the weights {share:.2g} of the way to them: after "
    text += f"{total} steps {left:.0%} of it are the start"
    id, causes = "average_speed", ["average_too_slow", "eval_of_other_weights"]
    return [finding(above(left, LEFT_WARN, LEFT_FAIL), id, left, LEFT_WARN, text, *causes)]
