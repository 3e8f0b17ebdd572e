"""`run`: all checks in order, cheapest first, each guarded; one report."""

import warnings
from collections.abc import Callable

import torch
from torch import nn

from src.checks.afterwards import average, evaluation, resume
from src.checks.context import (
    Context,
    OutOfTime,
    SetupError,
    forward,
    labels_of,
    random_state_kept,
    split_batch,
)
from src.checks.crash import explain, one_line
from src.checks.data import labels, leakage, loaders, normalisation, turned, values
from src.checks.learning import rungs, schedule, sweep
from src.checks.net import outputs, settings
from src.checks.report import Check, Report, link_consequences
from src.checks.setup import Declared, TrainingSetup
from src.checks.step import controlled, real_steps

# Of a plain processor core or two, for the estimate of how much fits into the budget (measured).
FLOPS = 2.5e10  # per second
CALL = 6e-5  # seconds for a layer, forward and backward and the optimizer's part
BATTERY: list[tuple[str, Callable[[Context], list[Check]], tuple[str, ...]]] = [
    # (id when it crashes, check, what it needs)
    ("optimizer_params", settings.check_optimizer, ()),
    ("layers", settings.check_layers, ()),
    ("input_values", values.check_values, ("train_data",)),
    ("input_statistics", normalisation.check_statistics, ("train_data",)),
    ("labels", labels.check_labels, ("train_data",)),
    ("label_signal", labels.check_signal, ("train_data",)),
    ("turned", turned.check_turned, ("train_data",)),
    ("leakage", leakage.check_leakage, ("train_data",)),
    ("val_random", loaders.check_val_random, ("val_data",)),
    ("loader", loaders.check_loaders, ("batches",)),
    ("workers", loaders.check_workers, ("batches",)),
    ("registered", outputs.check_registered, ("train_data", "width")),
    ("sample_independence", outputs.check_independence, ("train_data", "width")),
    ("outputs", outputs.check_outputs, ("train_data",)),
    ("input_gradient", outputs.check_inputs, ("train_data", "width")),
    ("stub", controlled.check_stub, ("batches", "width")),
    ("steps", real_steps.check_steps, ("batches", "width")),
    ("schedule", schedule.check_schedule, ()),
    ("overfit_batch", rungs.check_rungs, ("train_data", "batches", "width")),
    ("evaluation", evaluation.check_evaluation, ("evaluate", "width")),
    ("eval_follows", average.check_eval_follows, ("evaluate", "batches", "width")),
    ("resume", resume.check_resume, ("batches", "width")),
    ("lr_range", sweep.check_rate, ("train_data", "batches", "width")),
]


def run(
    factory: Callable[[], TrainingSetup],
    budget_seconds: float = 60,
    on_check: Callable[[str], object] = lambda name: None,
) -> Report:
    """Check the set-ups that `factory()` gives, a fresh one each time, in about `budget_seconds` on
    two processor cores. What is done follows from an estimate of the cost, never from the clock:
    two runs give the same report. The random state is left as it was. `on_check` is given the name
    of each check of `BATTERY` before it begins or is left out."""
    ctx = Context(factory, budget_seconds)
    grad = torch.is_grad_enabled()
    with random_state_kept(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.set_grad_enabled(True)
        try:
            checks = _all_checks(ctx, on_check)
        finally:
            torch.set_grad_enabled(grad)
    return Report(link_consequences(checks), curves=ctx.curves)


def _all_checks(ctx: Context, on_check: Callable[[str], object]) -> list[Check]:
    found: list[Check] = []
    try:
        have = _prepare(ctx, found)
    except SetupError as error:
        return [*found, explain(error)]
    except OutOfTime:
        return [*found, _late("factory")]
    for id, check, needs in BATTERY:
        on_check(id)
        ctx.failed = any(known.status == "fail" for known in found)
        if any(need not in have for need in needs) or (ctx.failed and id == "lr_range"):
            continue
        try:
            found += check(ctx)
        except SetupError as error:
            told = explain(error)
            if not any(old.id == told.id for old in found):
                found.append(told)
        except OutOfTime:
            found.append(_late(id))
            break
        except Exception as error:
            text = f"this check stopped with {type(error).__name__}: {one_line(error)}"
            found.append(Check(id, "inconclusive", None, None, text))
    return found


def _late(id: str) -> Check:
    text = "stopped: the budget was used up four times over, the estimate of the cost is wrong here"
    return Check(id, "inconclusive", None, None, text)


def _prepare(ctx: Context, found: list[Check]) -> set[str]:
    """Learn what all checks need; what stops here is a finding. Returns what there is."""
    setup = ctx.fresh()
    if not isinstance(setup.model, nn.Module):
        raise SetupError("factory", TypeError("setup.model must be a torch.nn.Module"))
    ctx.declared = Declared.of(setup)
    have = {name for name in ("val_data", "evaluate") if getattr(setup, name) is not None}
    schedule.find_peak(ctx)
    if setup.train_loader is not None and setup.train_step is not None:
        try:
            _read_batches(ctx)
            have.add("batches")
        except SetupError as error:
            found.append(explain(error))
    if setup.train_data is not None:
        try:
            values.look(ctx)
            have.add("train_data")
        except SetupError as error:
            found.append(explain(error))
    elif ctx.batches:
        have.discard("evaluate")
    _count_classes(ctx)
    if "train_data" in have:
        try:
            _measure(ctx)
            have.add("width")
        except SetupError as error:
            found.append(explain(error))
        except Exception as error:
            found.append(explain(SetupError("model", error)))
    if "width" in have and "batches" in have:
        _first_step(ctx, have, found)
    return have


def _first_step(ctx: Context, have: set[str], found: list[Check]) -> None:
    """A plain step and a plain evaluation, before anything is patched."""
    try:
        ctx.step(ctx.fresh(), ctx.batches[0])
    except SetupError as error:
        found.append(explain(error))
        have.discard("batches")
    loader = evaluation.small_loader(ctx)
    if "evaluate" in have and loader is not None:
        try:
            ctx.evaluate(ctx.fresh(), loader)
        except SetupError as error:
            found.append(explain(error))
            have.discard("evaluate")


def _read_batches(ctx: Context) -> None:
    """The first batches of an epoch, kept; and the form of both loaders' targets."""
    setup = ctx.fresh()
    try:
        for batch in setup.train_loader or ():
            split_batch(batch)
            ctx.batches.append(batch)
            if len(ctx.batches) == 8:
                break
        if not ctx.batches:
            raise ValueError("it gives no batch")
        targets = split_batch(ctx.batches[0])[1]
        ctx.soft = getattr(targets, "ndim", 1) == 2 and targets.shape[1] > 1
    except Exception as error:
        raise SetupError("train_loader", error) from error
    if setup.val_loader is not None:
        try:
            first = split_batch(next(iter(setup.val_loader)))[1]
            ctx.val_soft = getattr(first, "ndim", 1) == 2 and first.shape[1] > 1
        except Exception as error:
            raise SetupError("val_loader", error) from error


def _count_classes(ctx: Context) -> None:
    if ctx.declared.num_classes:
        ctx.classes = ctx.declared.num_classes
        return
    seen = [sample.y for sample in (ctx.train_sample, ctx.val_sample) if sample is not None]
    seen += [labels_of(split_batch(batch)[1]) for batch in ctx.batches]
    ctx.classes = max(2, 1 + max((int(y.max()) for y in seen), default=1))


def _measure(ctx: Context) -> None:
    """Width of the outputs, and the cost of a step by counting multiplications and layers."""
    setup = ctx.fresh()
    assert ctx.train_sample is not None
    x = ctx.train_sample.x[:2]
    work = calls = 0.0

    def count(module: nn.Module, inputs: tuple, output: object) -> None:
        nonlocal work, calls
        calls += 1
        weight = getattr(module, "weight", None)
        if (
            isinstance(weight, torch.Tensor)
            and weight.ndim > 1
            and isinstance(output, torch.Tensor)
        ):
            places = output.numel() / (output.shape[1] if output.ndim == 4 else output.shape[-1])
            work += weight.numel() * places

    handles = [m.register_forward_hook(count) for m in setup.model.modules()
               if not any(True for _ in m.children())]  # fmt: skip
    logits = forward(setup.model, x)
    for handle in handles:
        handle.remove()
    ctx.width = logits.shape[-1] if logits.ndim == 2 else 0
    parameters = sum(p.numel() for p in setup.model.parameters())
    ctx.step_seconds = 6 * (work / len(x)) * 16 / FLOPS + calls * CALL * 3 + parameters * 4e-9
    if ctx.width == 0:
        return
    if not ctx.declared.num_classes and ctx.width > 1:
        ctx.classes = max(ctx.classes, ctx.width)
    ctx.inputs_change = bool(ctx.declared.mixup)
