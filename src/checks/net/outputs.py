"""What the net gives: logits of the right width, one row per sample, of that sample alone."""

import torch
from torch import Tensor, nn

from src.checks.context import Context
from src.checks.reading import counted, device_of, graph_of, held_by, logits_of, split_batch
from src.checks.report import Check, fail, finding, ok, warn
from src.checks.temporary import buffers_kept, forward, seed_all
from src.checks.training_setup import TrainingSetup

MIXED = 1e-2  # relative; healthy nets differ by 4e-6 between batch sizes (measured)
BIAS = 5.0  # added to a bias of the head
ABOUT = 0.1  # from what probabilities of a fresh net add up to, or of sigmoids are on average


def check_outputs(ctx: Context) -> list[Check]:
    """Width and range of the outputs; what changes in the head must come through as it is."""
    setup, x, classes = ctx.fresh(), ctx.sample.x[:16], ctx.classes
    logits = forward(setup.model, x)
    if logits.ndim != 2 or len(logits) != len(x):
        text = f"the net gives {tuple(logits.shape)} for {len(x)} images, not images x classes"
        return [fail("outputs", None, None, text, "shape_mismatch", "samples_mixed")]
    width = logits.shape[1]
    if width != classes and not (width == 1 and classes == 2):
        text = f"the net has {width} outputs for {classes} classes"
        return [fail("output_width", float(width), float(classes), text, "num_classes")]
    if width == 1 and ctx.batches and not _one_logit_will_do(ctx, setup):
        text = "the net has one output, and the loss of it is 0 whatever it is"
        return [fail("output_width", 1.0, 2.0, text, "num_classes")]
    found = [ok("output_width", float(width), float(classes), f"{width} outputs")]
    if not bool(logits.isfinite().all()):
        causes, text = ["bad_initialisation", "input_not_finite"], "the net gives NaN or infinity"
        return [*found, fail("outputs", None, None, text, *causes)]
    return [*found, _are_logits(ctx, setup, x, logits)]


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


def _are_logits(ctx: Context, setup: TrainingSetup, x: Tensor, logits: Tensor) -> Check:
    id, cause, width = "outputs", "activation_before_loss", logits.shape[1]
    low, high = float(logits.min()), float(logits.max())
    if width > 1 and float((logits.sum(1) - 1).abs().max()) < 1e-4 and low >= 0:
        return fail(id, 1.0, None, "rows add up to 1: probabilities, not logits", cause)
    if width > 1 and float((logits.exp().sum(1) - 1).abs().max()) < 1e-4:
        ctx.log_probabilities = True
        text = "log-probabilities: whether the loss takes them is tried with the loss"
        return ok(id, None, None, text)
    text = f"outputs lie in {low:.3g}..{high:.3g}"
    moves = _moves_with_bias(setup, x, logits)
    if moves is None:
        if low >= 0 and float((logits == 0).float().mean()) > 0.05:
            return fail(id, low, None, f"{text}, many 0: a ReLU at the end", cause)
        if low >= 0 and float(logits.std()) > 0 and _stay_above_0(setup, x, logits):
            text += ": probabilities?" if high <= 1 else ", never below: a ReLU at the end?"
            return warn(id, high, 1.0, text, cause)
        return ok(id, None, BIAS, text)
    up, down, twice, training = moves
    factor = min(up, down) / BIAS
    text += f"; a bias of {BIAS:g} on the head moves them by {min(up, down):.3g}"
    linear = abs(twice - 2 * up) < 0.02 * twice and abs(up - down) < 0.02 * up
    if not linear and factor < 0.2:
        return fail(id, factor, 0.2, text, cause)
    if linear and not 0.2 <= factor <= 5:
        status = "warn" if 1 / 12 < factor < 12 else "fail"
        return finding(status, id, factor, 5.0, text, "temperature")
    if training < 0.02 * BIAS:
        text += ", in training mode not at all: a norm behind the head?"
        return fail(id, training, BIAS, text, "samples_mixed", cause)
    return ok(id, factor, BIAS, text)


def head_of(model: nn.Module, width: int) -> nn.Module | None:
    """The last layer with an output per class, with or without bias."""
    head = None
    for layer in model.modules():
        linear = isinstance(layer, nn.Linear) and layer.out_features == width
        if linear or (isinstance(layer, nn.Conv2d) and layer.out_channels == width):
            head = layer
    return head


@torch.no_grad()
def _stay_above_0(setup: TrainingSetup, x: Tensor, logits: Tensor) -> bool:
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
def _moves_with_bias(setup: TrainingSetup, x: Tensor, before: Tensor) -> list[float] | None:
    """How far the first output moves when its bias in the head goes up, down, up twice as far, and
    up in training mode; None where the head has no bias or is not the end of the net."""
    head = head_of(setup.model, before.shape[1])
    if head is None or head.bias is None:
        return None
    moves = []
    for change, train in ((BIAS, False), (-BIAS, False), (2 * BIAS, False), (BIAS, True)):
        seed_all(0)  # dropout draws the same before and after
        start = forward(setup.model, x, train)
        head.bias[0].add_(change)  # type: ignore[index]
        seed_all(0)
        moved = forward(setup.model, x, train) - start
        head.bias[0].sub_(change)  # type: ignore[index]
        moves.append(float(moved[:, 0].abs().median()))
        others = float(moved[:, 1:].abs().max()) if moved.shape[1] > 1 else 0.0
        if others > 0.5 * abs(change) and moves[-1] > 0.2 * abs(change):
            return None  # not the last layer
    return moves


def check_independence(ctx: Context) -> list[Check]:
    """In evaluation mode a sample's output is the same in a batch, alone, and in another order."""
    id, causes = "sample_independence", ["samples_mixed", "train_eval_differ"]
    setup, x = ctx.fresh(), ctx.sample.x[:6]
    whole = forward(setup.model, x)
    size = float(whole.abs().mean().clamp_min(1e-9))
    try:
        alone = torch.cat([forward(setup.model, row[None]) for row in x])
    except ValueError as error:  # BatchNorm has no variance of one sample
        text = f"in evaluation mode an image alone stops with: {error}"
        return [fail(id, None, MIXED, text, *causes)]
    order = torch.tensor([3, 5, 0, 4, 1, 2] if len(x) == 6 else range(len(x)))
    reordered = forward(setup.model, x[order])
    again = float((whole - forward(setup.model, x)).abs().max()) / size
    if again > MIXED:
        text = f"in evaluation mode two passes of the same images differ by {again:.2g}"
        return [fail(id, again, MIXED, text, *causes[::-1])]
    changes = (alone - whole, reordered - whole[order])
    off = max(float(change.abs().max()) for change in changes) / size
    text = f"outputs change by {off:.2g} when the other images of the batch do"
    return [fail(id, off, MIXED, text, *causes) if off > MIXED else ok(id, off, MIXED, text)]


def check_registered(ctx: Context) -> list[Check]:
    """Tensors that learn but are not registered in the net, such as layers in a plain list."""
    setup = ctx.fresh()
    outputs = logits_of(setup.model(ctx.sample.x[:4].to(device_of(setup.model))))
    nodes = [node for node in graph_of([outputs.grad_fn]) if hasattr(node, "variable")]
    learn = {node.variable for node in nodes if node.variable.requires_grad}
    hidden = learn - set(setup.model.parameters())
    if not hidden:
        return [ok("registered", 0.0, 0.0, "all that learns is registered")]
    lost = len(hidden - held_by(setup.optimizer))
    text = f"beside the net's parameters learn {counted(len(hidden), 'tensor')}, {lost} of them "
    causes = ["parameter_not_registered", "parameter_not_in_optimizer"]
    text += "not in the optimizer"
    return [fail("registered", float(len(hidden)), 0.0, text, *causes)]


def check_input_gradient(ctx: Context) -> list[Check]:
    """Where the gradient of the outputs arrives in the image: in each channel, in most places."""
    id, setup = "input_gradient", ctx.fresh()
    device = device_of(setup.model)
    x = ctx.sample.x[:8].to(device).requires_grad_()
    if x.ndim != 4:
        return []
    weights = torch.randn(len(x), ctx.width, generator=torch.Generator().manual_seed(3)).to(device)
    with buffers_kept(setup.model):
        setup.model.train()
        logits = logits_of(setup.model(x + 1e-3 * torch.randn_like(x)))
        if not logits.requires_grad:
            return [fail(id, 0.0, None, "outputs have no gradient", "gradient_blocked")]
        (gradient,) = torch.autograd.grad((logits * weights).sum(), x, allow_unused=True)
    if gradient is None or not bool(gradient.abs().max() > 0):
        # A head of zeros, as some nets start with, lets nothing through before its first step.
        head = head_of(setup.model, ctx.width)
        if head is not None and not bool(head.weight.any()):  # type: ignore[operator]
            return [ok(id, None, None, "the head starts at zero: nothing to see yet")]
        text = "no gradient of the outputs reaches the image"
        return [fail(id, 0.0, None, text, "gradient_blocked", "input_ignored")]
    size = gradient.abs().amax((0, 2, 3))
    dead = int((size == 0).sum())
    if dead:
        text = f"{dead} of {len(size)} channels have no influence on the outputs"
        return [fail(id, float(dead), 0.0, text, "channel_ignored")]
    seen = float((gradient.abs().amax((0, 1)) > 0).float().mean())
    text = f"{seen:.0%} of the places of the image have an influence on the outputs"
    status = "warn" if seen < 0.2 else "pass"
    return [finding(status, id, seen, 0.2, text, "channel_ignored", "input_ignored")]
