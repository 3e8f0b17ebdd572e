"""Real training steps, recorded, and what they say of step, gradients and rate."""

import gc
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import pairwise
from statistics import median

import torch
from torch import Tensor

from src.checks.context import Context
from src.checks.reading import counted, graph_of, named, split_batch, to_tensor
from src.checks.report import Check, fail, finding, ok, warn
from src.checks.step.recorder import StepRecorder
from src.checks.temporary import at_rates, forward
from src.checks.training_setup import TrainingSetup

SAME = 0.99  # cosine: rounding leaves 0.9999; a forgotten zero_grad gives 0.7 in the second step
CLIPPED_FAIL, CLIPPED_WARN = 1e-5, 1e-3  # healthy nets start with norms up to 1,400 (measured)
UPDATE_LOW, UPDATE_LOW_WARN = 1e-6, 1e-5  # healthy: 3.5e-5 to 2.2e-2 per step (measured)
UPDATE_HIGH, UPDATE_HIGH_WARN = 1.0, 0.3
UNREACHED_SHARE = 0.002  # of all entries, beyond which it is a fault, not a spare tensor
AGAIN = 24  # steps of the optimizer in the second count: a short window of losses has an end


def check_steps(ctx: Context) -> list[Check]:
    """Some optimizer steps on real batches at the schedule's highest rate."""
    setup, accumulate = ctx.fresh(), ctx.declared.accumulate
    items = len(to_tensor(split_batch(ctx.batches[0])[1])) * accumulate
    wanted = ctx.steps(0.12, items, 3, 12)
    record = StepRecorder(ctx, setup)
    start = {name: p.detach().clone() for name, p in record.parameters.items()}
    graphs: list[int] = []
    with at_rates(setup.optimizer, ctx.peak_lrs), record.attached(), _graphs_counted() as count:
        for number in range(wanted * accumulate):
            record.losses.append(ctx.step(setup, ctx.batch(number)))
            if (number + 1) % accumulate == 0:
                graphs.append(count())
                record.step_is_due()
    ctx.scheduler_calls = record.scheduler_calls / max(1, len(record.steps))
    found = _bookkeeping(record, accumulate, wanted - record.overflows)
    if record.overflows == wanted:
        return [_finite(ctx, record)]
    if record.not_finite or not all(map(math.isfinite, record.losses)):
        return [_finite(ctx, record), *found]
    still = all(torch.equal(start[name], p) for name, p in record.parameters.items())
    still &= any(step.update for step in record.steps)
    if still or record.restored > len(record.steps) // 2:
        some = counted(len(record.steps), "step")
        text = f"after {some} of the optimizer the net is where it was"
        causes = ["optimizer_never_steps", "model_not_used", "gradient_changed"]
        found = [fail("update_ratio", 0.0, UPDATE_LOW, text, *causes)]
    if not any(check.status == "fail" for check in found):
        found += [_clipping(ctx, record), _flow(record), _update(record)]
    found += [_mode(ctx, record), _graph_of_loss(ctx) or _check_graphs(ctx, graphs)]
    return [*found, *(_dependence(ctx, setup) if ctx.train_sample is not None else [])]


def _finite(ctx: Context, record: StepRecorder) -> Check:
    bad = next((i for i, loss in enumerate(record.losses) if not math.isfinite(loss)), None)
    where = f"the loss of step {bad + 1}" if bad is not None else "a gradient"
    causes = ["loss_not_finite", "lr_too_high", "bad_initialisation"]
    if bad is None or bad > 0:
        causes = ["lr_too_high", "precision", "loss_not_finite"]
    if ctx.declared.precision in ("bf16", "fp16"):
        causes.insert(0, "precision")
    return fail("finite", None, None, f"{where} is NaN or infinite", *causes[:3])


def _bookkeeping(record: StepRecorder, accumulate: int, wanted: int) -> list[Check]:
    """Who called what in which order, from the gradients alone."""
    id, steps = "grad_bookkeeping", record.steps
    if not record.backwards:
        causes = ["backward_missing", "model_not_used", "gradient_blocked"]
        return [fail(id, 0.0, 1.0, "no parameter got a gradient", *causes)]
    if not steps:
        text = f"{wanted * accumulate} calls of train_step and no step of the optimizer"
        return [fail(id, 0.0, float(wanted), text, "optimizer_never_steps", "accumulate_differs")]
    if steps[0].backwards and not any(step.made for step in steps):
        causes = ["gradient_blocked", "activation_before_loss", "wrong_loss"]
        return [fail(id, 0.0, None, "all gradients are exactly 0", *causes)]
    if not steps[0].backwards:
        text = "the optimizer stepped before there was a gradient"
        return [fail(id, 0.0, None, text, "step_before_backward")]
    if all(step.seen <= 1e-12 * step.made for step in steps[1:] or steps):
        text = "the optimizer saw zeros where backward had made gradients"
        return [fail(id, 0.0, SAME, text, "zero_grad_before_step", "optimizer_of_other_model")]
    cosine = min(step.cosine for step in steps)
    found = [_changed(record, accumulate, cosine), _interval(record, accumulate, wanted)]
    text = f"the optimizer saw what backward made (lowest cosine {cosine:.3f})"
    return [check for check in found if check] or [ok(id, cosine, SAME, text)]


def _changed(record: StepRecorder, accumulate: int, cosine: float) -> Check | None:
    """Gradients that the optimizer saw otherwise than backward made them, but for clipping."""
    steps = record.steps
    if not cosine < SAME or all(step.shrunk for step in steps):
        return None
    text = f"the optimizer saw something else than backward made (cosine {cosine:.3f})"
    causes = ["gradient_changed", "zero_grad_missing"]
    if median(step.cosine for step in steps) < -SAME:
        causes = ["gradient_sign_flipped"]
    elif len(steps) > 1 and median(step.to_stale for step in steps[1:]) > SAME:
        text += ": old gradients are still in it"
        causes = ["zero_grad_missing"]
    elif accumulate > 1 and median(step.to_last for step in steps) > SAME:
        text += ": only the last micro-batch counts"
        causes = ["zero_grad_every_micro_batch"]
    status = "warn" if causes[0] == "gradient_changed" and cosine > 0 else "fail"
    return finding(status, "grad_bookkeeping", cosine, SAME, text, *causes)


def _interval(record: StepRecorder, accumulate: int, wanted: int) -> Check | None:
    """An optimizer that steps more often, or more rarely, than is declared."""
    id, cause, steps = "accumulate", "accumulate_differs", record.steps
    backwards = median(step.backwards for step in steps)
    if accumulate > 1 and all(step.backwards == 1 for step in steps):
        text = f"the optimizer steps after every micro-batch, declared is every {accumulate}th"
        return fail(id, 1.0, float(accumulate), text, cause, "zero_grad_every_micro_batch")
    if backwards != accumulate and backwards % accumulate:
        text = f"the optimizer steps after {backwards:g} backward passes, declared {accumulate}"
        return warn(id, backwards, float(accumulate), text, cause)
    if len(steps) < wanted:
        text = f"{len(steps)} optimizer steps in {wanted * accumulate} micro-batches, not {wanted}"
        return warn(id, float(len(steps)), float(wanted), text, cause, "optimizer_never_steps")
    return None


def _clipping(ctx: Context, record: StepRecorder) -> Check:
    id, ratio = "grad_clip", median(step.seen / step.made for step in record.steps if step.made)
    ctx.clipped = ratio
    text = f"clipping keeps {ratio:.3g} of the gradient's length"
    if ctx.declared.precision == "fp16":
        return ok(id, ratio, CLIPPED_FAIL, "gradients are scaled for fp16")
    if ratio < CLIPPED_FAIL:
        return fail(id, ratio, CLIPPED_FAIL, text, "gradient_clipped_away")
    if ratio < CLIPPED_WARN:
        causes = ["gradient_clipped_away", "bad_initialisation", "loss_scale"]
        return warn(id, ratio, CLIPPED_WARN, text, *causes)
    if ratio > 1.05:
        status, text = "fail" if ratio > 10 else "warn", f"the gradient is {ratio:.3g} times what "
        causes = ["gradient_changed", "loss_scale"]
        return finding(status, id, ratio, 1.05, f"{text}backward made", *causes)
    return ok(id, ratio, CLIPPED_FAIL, text)


def _flow(record: StepRecorder) -> Check:
    """Every parameter that learns got a gradient; zero weights of some timm nets delay it."""
    sizes = {name: p.numel() for name, p in record.parameters.items()}
    dead = [name for name in sizes if not record.largest.get(name)]
    share = sum(sizes[name] for name in dead) / max(1, sum(sizes.values()))
    id, text = "gradient_flow", f"{len(dead)} of {len(sizes)} parameters never got a gradient"
    if not dead:
        return ok(id, 0.0, UNREACHED_SHARE, text)
    text += f" ({named(dead)}; {share:.1%} of the entries)"
    matrices = any(record.parameters[name].ndim > 1 for name in dead)
    status = "warn" if len(dead) > 0.2 * len(sizes) else "pass"
    status = "fail" if matrices and share > UNREACHED_SHARE else status
    causes = ["gradient_blocked", "parameter_frozen", "bad_initialisation"]
    return finding(status, id, share, UNREACHED_SHARE, text, *causes)


def _update(record: StepRecorder) -> Check:
    id, update = "update_ratio", median(step.update for step in record.steps)
    if update == 0:
        causes = ["lr_too_low", "parameter_not_in_optimizer", "optimizer_never_steps"]
        return fail(id, update, UPDATE_LOW, "steps move no weight", *causes)
    text = f"a step moves the weights by {update:.2g} of their size"
    for status, low, high in (
        ("fail", UPDATE_LOW, UPDATE_HIGH),
        ("warn", UPDATE_LOW_WARN, UPDATE_HIGH_WARN),
    ):
        if update < low:
            return finding(status, id, update, low, text, "lr_too_low", "gradient_clipped_away")
        if update > high:
            return finding(status, id, update, high, text, "lr_too_high", "weight_decay_too_high")
    return ok(id, update, UPDATE_LOW, text)


def _mode(ctx: Context, record: StepRecorder) -> Check:
    id, cause = "train_mode", "model_in_eval_mode"
    if not record.training:
        return ok(id, None, None, "the net's forward was not called as a module")
    share = 1 - sum(record.training) / len(record.training)
    if share and record.in_evaluation:
        return fail(id, share, 0.0, f"{share:.0%} of the steps ran in evaluation mode", cause)
    layers = [name for name in record.in_evaluation if not ctx.declared.is_frozen(name)]
    if layers and not ctx.declared.frozen:
        text = f"in training steps {counted(len(layers), 'layer')} in evaluation mode"
        text += f" ({named(layers)})"
        return warn(id, float(len(layers)), 0.0, text, cause)
    return ok(id, share, 0.0, "steps run in training mode")


def _graph_of_loss(ctx: Context) -> Check | None:
    """A returned loss that holds its graph."""
    setup = ctx.fresh()
    assert setup.train_step is not None
    out = setup.train_step(setup, ctx.batches[0])
    loss = out.get("loss") if hasattr(out, "get") else out
    if not getattr(loss, "requires_grad", False):
        return None
    text = "the returned loss still holds the graph: summing it up fills the memory"
    return warn("loss_detached", 1.0, 0.0, text, "graph_kept")


def _dependence(ctx: Context, setup: TrainingSetup) -> list[Check]:
    """Do different samples give different outputs, in training or in evaluation mode?"""
    x = ctx.sample.x[:16]
    spread = 0.0
    for train in (False, True):
        logits, blank = forward(setup.model, x, train), forward(setup.model, x * 0, train)
        size = logits.abs().mean().clamp_min(1e-12)
        change = max(logits.std(0).mean(), (logits - blank).abs().mean())
        spread = max(spread, float(change / size))
    text = f"outputs differ by {spread:.2g} of their size between images and from blank ones"
    status, causes = "fail" if spread < 1e-4 else "pass", ["input_ignored", "gradient_blocked"]
    return [finding(status, "input_dependence", spread, 1e-4, text, *causes, "lr_too_high")]


@contextmanager
def _graphs_counted() -> Iterator[Callable[[], int]]:
    """A counter of graph nodes that new tensors keep alive. Without old ones it takes a few ms."""
    gc.freeze()
    try:
        yield _nodes
    finally:
        gc.unfreeze()


def _nodes() -> int:
    roots = []
    for thing in gc.get_objects():
        if issubclass(type(thing), Tensor):
            with suppress(RuntimeError):  # a view whose base was changed has none any more
                roots.append(thing.grad_fn)
    return len(graph_of(roots))


def _grows(counts: list[int]) -> bool:
    """Whether each step left more than the step before."""
    return len(counts) > 2 and all(b > a for a, b in pairwise(counts))


def _check_graphs(ctx: Context, counts: list[int]) -> Check:
    """`counts` after each optimizer step. What grows is counted again after garbage collection."""
    id, accumulate = "graphs", ctx.declared.accumulate
    if not _grows(counts):
        return ok(id, 0.0, 0.0, "no graph of an earlier step stays in memory")
    setup, counts = ctx.fresh(), []
    with _graphs_counted() as count:
        for number in range(AGAIN * accumulate):
            ctx.step(setup, ctx.batch(number))
            if (number + 1) % accumulate == 0:
                gc.collect()
                counts.append(count())
    if not _grows(counts):
        return ok(id, 0.0, 0.0, "graphs of earlier steps are let go after some time")
    value = (counts[-1] - counts[0]) / (len(counts) - 1)
    text = f"each step leaves {value:.0f} nodes of its graph in memory"
    return warn(id, value, 0.0, text, "graph_kept")
