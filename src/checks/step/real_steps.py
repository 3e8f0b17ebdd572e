"""Real training steps under the optimizer spy, and what they say of step, gradients and rate."""

import math
import statistics

import torch

from src.checks.context import Context, forward, split_batch, to_tensor
from src.checks.report import Check
from src.checks.step.memory import check_graphs, graphs_counted
from src.checks.step.watching import Spy, Watch

SAME = 0.99  # cosine: rounding leaves 0.9999; a forgotten zero_grad gives 0.7 in the second step
CLIPPED_FAIL, CLIPPED_WARN = 1e-5, 1e-3  # healthy nets start with norms up to 1,400 (measured)
UPDATE_LOW, UPDATE_LOW_WARN = 1e-6, 1e-5  # healthy: 3.5e-5 to 2.2e-2 per step (measured)
UPDATE_HIGH, UPDATE_HIGH_WARN = 1.0, 0.3
UNREACHED_SHARE = 0.002  # of all entries, beyond which it is a fault, not a spare tensor


def check_steps(ctx: Context) -> list[Check]:
    """Some optimizer steps on real batches at the schedule's highest rate."""
    setup = ctx.fresh()
    accumulate = ctx.declared.accumulate
    wanted = ctx.steps(0.12, len(to_tensor(split_batch(ctx.batches[0])[1])) * accumulate, 3, 12)
    spy = Spy(ctx, setup, ctx.peak_lrs)
    start = {name: p.detach().clone() for name, p in spy.parameters.items()}
    graphs: list[int] = []
    with spy.attached() as watch, graphs_counted() as count:
        for number in range(wanted * accumulate):
            batch = ctx.batches[number % len(ctx.batches)]
            watch.losses.append(ctx.step(setup, batch))
            if (number + 1) % accumulate == 0:
                graphs.append(count())
                spy.step_is_due()
    ctx.scheduler_calls = watch.scheduler_calls / max(1, len(watch.steps))
    found = _bookkeeping(watch, accumulate, wanted - watch.overflows)
    if watch.overflows == wanted:
        return [_finite(ctx, watch)]
    if watch.not_finite or not all(math.isfinite(loss) for loss in watch.losses):
        return [_finite(ctx, watch), *found]
    still = all(torch.equal(start[name], p) for name, p in spy.parameters.items())
    still &= any(step.update for step in watch.steps)
    if still or watch.restored > len(watch.steps) // 2:
        text = f"after {len(watch.steps)} steps of the optimizer the net is where it was"
        causes = ["optimizer_never_steps", "model_not_used", "gradient_changed"]
        found = [Check("update_ratio", "fail", 0.0, UPDATE_LOW, text, causes)]
    if not any(check.status == "fail" for check in found):
        found += [_clipping(ctx, watch), _flow(ctx, spy, watch), _update(watch)]
    found.append(_mode(ctx, watch))
    found += _graph(ctx) or check_graphs(ctx, graphs)
    if ctx.train_sample is not None:
        found += _dependence(ctx, setup)
    return found


def _finite(ctx: Context, watch: Watch) -> Check:
    bad = next((i for i, loss in enumerate(watch.losses) if not math.isfinite(loss)), None)
    where = f"the loss of step {bad + 1}" if bad is not None else "a gradient"
    causes = ["loss_not_finite", "lr_too_high", "bad_initialisation"]
    if bad is None or bad > 0:
        causes = ["lr_too_high", "precision", "loss_not_finite"]
    if ctx.declared.precision in ("bf16", "fp16"):
        causes.insert(0, "precision")
    return Check("finite", "fail", None, None, f"{where} is NaN or infinite", causes[:3])


def _bookkeeping(watch: Watch, accumulate: int, wanted: int) -> list[Check]:
    """Who called what in which order, from the gradients alone."""
    id, steps = "grad_bookkeeping", watch.steps
    if not watch.backwards:
        text = "no parameter got a gradient"
        causes = ["backward_missing", "model_not_used", "gradient_blocked"]
        return [Check(id, "fail", 0.0, 1.0, text, causes)]
    if not steps:
        text = f"{wanted * accumulate} calls of train_step and no step of the optimizer"
        return [Check(id, "fail", 0.0, float(wanted), text,
                      ["optimizer_never_steps", "accumulate_differs"])]  # fmt: skip
    if steps[0].backwards and not any(step.made for step in steps):
        text = "all gradients are exactly 0"
        causes = ["gradient_blocked", "activation_before_loss", "wrong_loss"]
        return [Check(id, "fail", 0.0, None, text, causes)]
    if not steps[0].backwards:
        text = "the optimizer stepped before there was a gradient"
        return [Check(id, "fail", 0.0, None, text, ["step_before_backward"])]
    later = steps[1:] or steps
    cosine = min(step.cosine for step in steps)
    if all(step.seen <= 1e-12 * step.made for step in later):
        text = "the optimizer saw zeros where backward had made gradients"
        causes = ["zero_grad_before_step", "optimizer_of_other_model"]
        return [Check(id, "fail", 0.0, SAME, text, causes)]
    text = f"the optimizer saw what backward made (lowest cosine {cosine:.3f})"
    found = []
    if cosine < SAME and not all(step.shrunk for step in steps):
        stale = statistics.median(step.to_stale for step in later)
        last = statistics.median(step.to_last for step in steps)
        flipped = statistics.median(step.cosine for step in steps)
        text = f"the optimizer saw something else than backward made (cosine {cosine:.3f})"
        if flipped < -SAME:
            causes = ["gradient_sign_flipped"]
        elif stale > SAME and len(steps) > 1:
            text += ": old gradients are still in it"
            causes = ["zero_grad_missing"]
        elif accumulate > 1 and last > SAME:
            text += ": only the last micro-batch counts"
            causes = ["zero_grad_every_micro_batch"]
        else:
            causes = ["gradient_changed", "zero_grad_missing"]
        status = "warn" if causes[0] == "gradient_changed" and cosine > 0 else "fail"
        found.append(Check(id, status, cosine, SAME, text, causes))
    backwards = statistics.median(step.backwards for step in steps)
    if accumulate > 1 and steps[0].backwards == 1 and all(s.backwards == 1 for s in steps):
        text = f"the optimizer steps after every micro-batch, declared is every {accumulate}th"
        found.append(Check("accumulate", "fail", 1.0, float(accumulate), text,
                           ["accumulate_differs", "zero_grad_every_micro_batch"]))  # fmt: skip
    elif backwards != accumulate and backwards % accumulate:
        text = f"the optimizer steps after {backwards:g} backward passes, declared {accumulate}"
        found.append(Check("accumulate", "warn", backwards, float(accumulate), text,
                           ["accumulate_differs"]))  # fmt: skip
    elif len(steps) < wanted:
        text = f"{len(steps)} optimizer steps in {wanted * accumulate} micro-batches, not {wanted}"
        found.append(Check("accumulate", "warn", float(len(steps)), float(wanted), text,
                           ["accumulate_differs", "optimizer_never_steps"]))  # fmt: skip
    if not found:
        found.append(Check(id, "pass", cosine, SAME, text))
    return found


def _clipping(ctx: Context, watch: Watch) -> Check:
    ratios = [step.ratio for step in watch.steps if step.made]
    ratio = ctx.clipped = statistics.median(ratios)
    text = f"clipping keeps {ratio:.3g} of the gradient's length"
    if ctx.declared.precision == "fp16":
        return Check("grad_clip", "pass", ratio, CLIPPED_FAIL, "gradients are scaled for fp16")
    if ratio < CLIPPED_FAIL:
        return Check("grad_clip", "fail", ratio, CLIPPED_FAIL, text, ["gradient_clipped_away"])
    if ratio < CLIPPED_WARN:
        causes = ["gradient_clipped_away", "bad_initialisation", "loss_scale"]
        return Check("grad_clip", "warn", ratio, CLIPPED_WARN, text, causes)
    if ratio > 1.05:
        text = f"the gradient is {ratio:.3g} times what backward made"
        causes = ["gradient_changed", "loss_scale"]
        return Check("grad_clip", "fail" if ratio > 10 else "warn", ratio, 1.05, text, causes)
    return Check("grad_clip", "pass", ratio, CLIPPED_FAIL, text)


def _flow(ctx: Context, spy: Spy, watch: Watch) -> Check:
    """Every parameter that learns got a gradient at least once; some timm nets start with zero
    weights behind which nothing arrives in the first steps."""
    sizes = {name: p.numel() for name, p in spy.parameters.items()}
    dead = [name for name in sizes if not watch.largest.get(name)]
    share = sum(sizes[name] for name in dead) / max(1, sum(sizes.values()))
    text = f"{len(dead)} of {len(sizes)} parameters never got a gradient"
    if not dead:
        return Check("gradient_flow", "pass", 0.0, UNREACHED_SHARE, text)
    text += f" ({', '.join(dead[:3])}{' ...' if len(dead) > 3 else ''}; {share:.1%} of the entries)"
    matrices = [name for name in dead if spy.parameters[name].ndim > 1]
    causes = ["gradient_blocked", "parameter_frozen", "bad_initialisation"]
    if matrices and share > UNREACHED_SHARE:
        return Check("gradient_flow", "fail", share, UNREACHED_SHARE, text, causes)
    if len(dead) > 0.2 * len(sizes):
        return Check("gradient_flow", "warn", share, UNREACHED_SHARE, text, causes)
    return Check("gradient_flow", "pass", share, UNREACHED_SHARE, text)


def _update(watch: Watch) -> Check:
    update = statistics.median(step.update for step in watch.steps)
    text = f"a step moves the weights by {update:.2g} of their size"
    low, high = ["lr_too_low", "gradient_clipped_away"], ["lr_too_high", "weight_decay_too_high"]
    if update == 0:
        causes = ["lr_too_low", "parameter_not_in_optimizer", "optimizer_never_steps"]
        return Check("update_ratio", "fail", update, UPDATE_LOW, "steps move no weight", causes)
    if update < UPDATE_LOW:
        return Check("update_ratio", "fail", update, UPDATE_LOW, text, low)
    if update > UPDATE_HIGH:
        return Check("update_ratio", "fail", update, UPDATE_HIGH, text, high)
    if update < UPDATE_LOW_WARN:
        return Check("update_ratio", "warn", update, UPDATE_LOW_WARN, text, low)
    if update > UPDATE_HIGH_WARN:
        return Check("update_ratio", "warn", update, UPDATE_HIGH_WARN, text, high)
    return Check("update_ratio", "pass", update, UPDATE_LOW, text)


def _mode(ctx: Context, watch: Watch) -> Check:
    id = "train_mode"
    if not watch.training:
        return Check(id, "pass", None, None, "the net's forward was not called as a module")
    eval_share = 1 - sum(watch.training) / len(watch.training)
    if eval_share and watch.resting:
        text = f"{eval_share:.0%} of the steps ran in evaluation mode"
        return Check(id, "fail", eval_share, 0.0, text, ["model_in_eval_mode"])
    resting = [name for name in watch.resting if not ctx.declared.is_frozen(name)]
    if resting and not any(True for _ in ctx.declared.frozen or ()):
        text = f"{len(resting)} layers train in evaluation mode ({', '.join(resting[:3])})"
        return Check(id, "warn", float(len(resting)), 0.0, text, ["model_in_eval_mode"])
    return Check(id, "pass", eval_share, 0.0, "steps run in training mode")


def _graph(ctx: Context) -> list[Check]:
    """A returned loss that holds its graph."""
    setup = ctx.fresh()
    found = []
    assert setup.train_step is not None
    out = setup.train_step(setup, ctx.batches[0])
    loss = out.get("loss") if hasattr(out, "get") else out
    if getattr(loss, "requires_grad", False):
        text = "the returned loss still holds the graph: summing it up fills the memory"
        found.append(Check("loss_detached", "warn", 1.0, 0.0, text, ["graph_kept"]))
    return found


def _dependence(ctx: Context, setup: object) -> list[Check]:
    """Do different pictures give different outputs, in training or in evaluation mode?"""
    assert ctx.train_sample is not None
    x = ctx.train_sample.x[:16]
    spread = 0.0
    for train in (False, True):
        logits = forward(setup.model, x, train)  # type: ignore[attr-defined]
        blank = forward(setup.model, x * 0, train)  # type: ignore[attr-defined]
        size = logits.abs().mean().clamp_min(1e-12)
        change = max(logits.std(0).mean(), (logits - blank).abs().mean())
        spread = max(spread, float(change / size))
    text = f"outputs differ by {spread:.2g} of their size between pictures and from blank ones"
    if spread < 1e-4:
        causes = ["input_ignored", "gradient_blocked", "lr_too_high"]
        return [Check("input_dependence", "fail", spread, 1e-4, text, causes)]
    return [Check("input_dependence", "pass", spread, 1e-4, text)]
