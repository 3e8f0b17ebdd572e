"""What the net gives: logits of the right width, one row per picture, of that picture alone."""

import torch
from torch import Tensor, nn

from src.checks.context import (
    Context,
    buffers_kept,
    device_of,
    forward,
    logits_of,
    seed_all,
    split_batch,
)
from src.checks.report import Check
from src.checks.setup import TrainingSetup
from src.checks.step.watching import unregistered

MIXED = 1e-2  # relative; healthy nets differ by 4e-6 between batch sizes (measured)
BIAS = 5.0  # added to a bias of the head
ABOUT = 0.1  # from what probabilities of a fresh net add up to, or of sigmoids are on average


def check_outputs(ctx: Context) -> list[Check]:
    """Width and range of the outputs; what changes in the head must come through as it is."""
    setup = ctx.fresh()
    assert ctx.train_sample is not None
    x = ctx.train_sample.x[:16]
    logits = forward(setup.model, x)
    id, classes = "outputs", ctx.classes
    if logits.ndim != 2 or len(logits) != len(x):
        text = f"the net gives {tuple(logits.shape)} for {len(x)} pictures, not pictures x classes"
        return [Check(id, "fail", None, None, text, ["shape_mismatch", "samples_mixed"])]
    width = logits.shape[1]
    if width != classes and not (width == 1 and classes == 2):
        text = f"the net has {width} outputs for {classes} classes"
        return [Check("output_width", "fail", float(width), float(classes), text, ["num_classes"])]
    if width == 1 and ctx.batches and not _one_logit_will_do(ctx, setup):
        text = "the net has one output, and the loss of it is 0 whatever it is"
        return [Check("output_width", "fail", 1.0, 2.0, text, ["num_classes"])]
    found = [Check("output_width", "pass", float(width), float(classes), f"{width} outputs")]
    if not bool(logits.isfinite().all()):
        text = "the net gives NaN or infinity"
        return [*found, Check(id, "fail", None, None, text,
                              ["bad_initialisation", "input_not_finite"])]  # fmt: skip
    found.append(_are_logits(id, ctx, setup, x, logits))
    return found


def _one_logit_will_do(ctx: Context, setup: TrainingSetup) -> bool:
    """Cross-entropy over a single output is 0 for ever."""
    targets = split_batch(ctx.batches[0])[1].to(device_of(setup.model))
    for value in (-1.0, 1.0):
        z = torch.full((len(targets), 1), value, device=targets.device)
        try:
            if float(torch.as_tensor(setup.loss_fn(z, targets)).mean()) != 0:
                return True
        except (RuntimeError, ValueError, IndexError):  # it wants another shape of logits
            return True
    return False


def _are_logits(id: str, ctx: Context, setup: TrainingSetup, x: Tensor, logits: Tensor) -> Check:
    sums = logits.sum(1)
    causes = ["activation_before_loss"]
    width = logits.shape[1]
    if width > 1 and float((sums - 1).abs().max()) < 1e-4 and float(logits.min()) >= 0:
        return Check(id, "fail", 1.0, None, "rows add up to 1: probabilities, not logits", causes)
    log_p = width > 1 and float((logits.exp().sum(1) - 1).abs().max()) < 1e-4
    if log_p:
        ctx.log_probabilities = True
        text = "log-probabilities: whether the loss takes them is tried with the loss"
        return Check(id, "pass", None, None, text)
    low, high = float(logits.min()), float(logits.max())
    text = f"outputs lie in {low:.3g}..{high:.3g}"
    moves = _bias_comes_through(setup, x, logits)
    if moves is None:
        if low >= 0 and float((logits == 0).float().mean()) > 0.05:
            return Check(id, "fail", low, None, text + ", many 0: a ReLU at the end", causes)
        if low >= 0 and float(logits.std()) > 0 and _held(setup, x, logits):
            text += ": probabilities?" if high <= 1 else ", never below: a ReLU at the end?"
            return Check(id, "warn", high, 1.0, text, causes)
        return Check(id, "pass", None, BIAS, text)
    up, down, twice, training = moves
    factor = min(up, down) / BIAS
    text += f"; a bias of {BIAS:g} on the head moves them by {min(up, down):.3g}"
    linear = abs(twice - 2 * up) < 0.02 * twice and abs(up - down) < 0.02 * up
    if not linear and factor < 0.2:
        return Check(id, "fail", factor, 0.2, text, causes)
    if linear and not 0.2 <= factor <= 5:
        status = "warn" if 1 / 12 < factor < 12 else "fail"
        return Check(id, status, factor, 5.0, text, ["temperature"])
    if training < 0.02 * BIAS:
        text += ", in training mode not at all: a norm behind the head?"
        return Check(id, "fail", training, BIAS, text, ["samples_mixed", "activation_before_loss"])
    return Check(id, "pass", factor, BIAS, text)


def head_of(model: nn.Module, width: int) -> nn.Module | None:
    """The last layer with an output per class, with or without bias."""
    heads = [
        layer
        for layer in model.modules()
        if (isinstance(layer, nn.Linear) and layer.out_features == width)
        or (isinstance(layer, nn.Conv2d) and layer.out_channels == width)
    ]
    return heads[-1] if heads else None


@torch.no_grad()
def _held(setup: TrainingSetup, x: Tensor, logits: Tensor) -> bool:
    """Whether something holds outputs above 0: a head without bias, turned to its negative, gives
    none below 0 either. Of a net without a head: whether outputs look like probabilities."""
    head = head_of(setup.model, logits.shape[1])
    if head is not None:
        head.weight.neg_()  # type: ignore[operator]
        turned = forward(setup.model, x)
        head.weight.neg_()  # type: ignore[operator]
        if not torch.equal(turned, logits):
            return float(turned.min()) >= 0
    added, middle = float(logits.sum(1).mean()), float(logits.mean())
    return float(logits.max()) <= 1 and min(abs(added - 1), abs(middle - 0.5)) < ABOUT


@torch.no_grad()
def _bias_comes_through(
    setup: TrainingSetup, x: Tensor, before: Tensor
) -> tuple[float, float, float, float] | None:
    """How far the first output moves when its bias in the head goes up, down, up twice as far, and
    up in training mode; None where the head has no bias or is not the end of the net."""
    head = head_of(setup.model, before.shape[1])
    if head is None or head.bias is None:
        return None
    moves = []
    for change, train in ((BIAS, False), (-BIAS, False), (2 * BIAS, False), (BIAS, True)):
        seed_all(0)  # dropout draws the same before and after
        start = forward(setup.model, x, train)
        shift = torch.zeros_like(head.bias)  # type: ignore[arg-type]
        shift[0] = change
        head.bias.add_(shift)  # type: ignore[operator]
        seed_all(0)
        moved = forward(setup.model, x, train) - start
        head.bias.sub_(shift)  # type: ignore[operator]
        moves.append(float(moved[:, 0].abs().median()))
        others = float(moved[:, 1:].abs().max()) if moved.shape[1] > 1 else 0.0
        if others > 0.5 * abs(change) and moves[-1] > 0.2 * abs(change):
            return None  # not the last layer
    return moves[0], moves[1], moves[2], moves[3]


def check_independence(ctx: Context) -> list[Check]:
    """In evaluation mode a picture's output is the same in a batch, alone, and in another order."""
    setup = ctx.fresh()
    assert ctx.train_sample is not None
    x = ctx.train_sample.x[:6]
    whole = forward(setup.model, x)
    size = float(whole.abs().mean().clamp_min(1e-9))
    try:
        alone = torch.cat([forward(setup.model, row[None]) for row in x])
    except ValueError as error:  # BatchNorm has no variance of one picture
        text = f"in evaluation mode a picture alone stops with: {error}"
        return [Check("sample_independence", "fail", None, MIXED, text,
                      ["samples_mixed", "train_eval_differ"])]  # fmt: skip
    order = torch.tensor([3, 5, 0, 4, 1, 2][: len(x)] if len(x) == 6 else range(len(x)))
    turned = forward(setup.model, x[order])
    again = float((whole - forward(setup.model, x)).abs().max()) / size
    id = "sample_independence"
    if again > MIXED:
        text = f"in evaluation mode two passes of the same pictures differ by {again:.2g}"
        return [Check(id, "fail", again, MIXED, text, ["train_eval_differ", "samples_mixed"])]
    off = max(float((alone - whole).abs().max()), float((turned - whole[order]).abs().max())) / size
    text = f"outputs change by {off:.2g} when the other pictures of the batch do"
    if off > MIXED:
        return [Check(id, "fail", off, MIXED, text, ["samples_mixed", "train_eval_differ"])]
    return [Check(id, "pass", off, MIXED, text)]


def check_registered(ctx: Context) -> list[Check]:
    """Leaves of the graph of the outputs that learn and are hidden from the net."""
    setup = ctx.fresh()
    assert ctx.train_sample is not None
    hidden, lost = unregistered(setup, ctx.train_sample.x[:4].to(device_of(setup.model)))
    if not hidden:
        return [Check("registered", "pass", 0.0, 0.0, "all that learns is registered")]
    text = f"{hidden} tensors learn that are no parameters of the net, {lost} of them not in the " \
           "optimizer"  # fmt: skip
    causes = ["parameter_not_registered", "parameter_not_in_optimizer"]
    return [Check("registered", "fail", float(hidden), 0.0, text, causes)]


def check_inputs(ctx: Context) -> list[Check]:
    """Where the gradient of the outputs arrives in the picture: in each channel, in most places."""
    setup = ctx.fresh()
    assert ctx.train_sample is not None
    device = device_of(setup.model)
    x = ctx.train_sample.x[:8].to(device).requires_grad_()
    if x.ndim != 4:
        return []
    noise = torch.randn(len(x), ctx.width, generator=torch.Generator().manual_seed(3)).to(device)
    with buffers_kept(setup.model):
        setup.model.train()
        logits = logits_of(setup.model(x + 1e-3 * torch.randn_like(x)))
        if not logits.requires_grad:
            return [Check("input_gradient", "fail", 0.0, None, "outputs have no gradient",
                          ["gradient_blocked"])]  # fmt: skip
        (gradient,) = torch.autograd.grad((logits * noise).sum(), x, allow_unused=True)
    id = "input_gradient"
    if gradient is None or not bool(gradient.abs().max() > 0):
        # A head of zeros, as some nets start with, lets nothing through before its first step.
        head = head_of(setup.model, ctx.width)
        if head is not None and not bool(head.weight.any()):  # type: ignore[operator]
            return [Check(id, "pass", None, None, "the head starts at zero: nothing to see yet")]
        text = "no gradient of the outputs reaches the picture"
        return [Check(id, "fail", 0.0, None, text, ["gradient_blocked", "input_ignored"])]
    size = gradient.abs().amax((0, 2, 3))
    if bool((size == 0).any()):
        dead = int((size == 0).sum())
        text = f"{dead} of {len(size)} channels have no influence on the outputs"
        return [Check(id, "fail", float(dead), 0.0, text, ["channel_ignored"])]
    seen = float((gradient.abs().amax((0, 1)) > 0).float().mean())
    text = f"{seen:.0%} of the places of the picture have an influence on the outputs"
    if seen < 0.2:
        return [Check(id, "warn", seen, 0.2, text, ["channel_ignored", "input_ignored"])]
    return [Check(id, "pass", seen, 0.2, text)]
