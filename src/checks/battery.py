"""`run`: all checks in order, cheapest first, each guarded; one report."""

import re
import warnings
from collections.abc import Callable

import torch
from torch import Tensor, nn

from src.checks.afterwards import evaluation, resume
from src.checks.context import Context, OutOfTime, SetupError, running
from src.checks.data import labels, loaders, orientation, values
from src.checks.net import outputs, settings
from src.checks.overfit import check_overfit, check_rate
from src.checks.reading import are_shares, labels_of, split_batch
from src.checks.report import Check, Report, fail, finding, link_consequences
from src.checks.step import batch_to_gradient, real_steps
from src.checks.temporary import forward, random_state_kept
from src.checks.training_setup import Declared, TrainingSetup

# Of a plain processor core or two, for the estimate of how much fits into the budget (measured).
FLOPS = 2.5e10  # per second
CALL = 6e-5  # seconds for a layer, forward and backward and the optimizer's part
BATCHES = 8  # that are kept of an epoch
SIZE = re.compile(r"shape|size|dimension|expected input|mat1|channels|out of bounds|out of range")
TYPE = re.compile(r"dtype|expected scalar type|Float|Long|Byte|Double|not implemented for")
BATTERY: list[tuple[str, Callable[[Context], list[Check]], tuple[str, ...]]] = [
    # (id when it crashes, check, what it needs)
    ("optimizer_params", settings.check_optimizer, ()),
    ("layers", settings.check_layers, ()),
    ("input_values", values.check_values, ("train_data",)),
    ("input_statistics", values.check_statistics, ("train_data",)),
    ("labels", labels.check_labels, ("train_data",)),
    ("label_signal", labels.check_signal, ("train_data",)),
    ("turned", orientation.check_orientation, ("train_data",)),
    ("leakage", values.check_leakage, ("train_data",)),
    ("val_random", loaders.check_val_random, ("val_data",)),
    ("loader", loaders.check_loaders, ("batches",)),
    ("workers", loaders.check_workers, ("batches",)),
    ("registered", outputs.check_registered, ("train_data", "width")),
    ("sample_independence", outputs.check_independence, ("train_data", "width")),
    ("outputs", outputs.check_outputs, ("train_data",)),
    ("input_gradient", outputs.check_input_gradient, ("train_data", "width")),
    ("step_on_logits", batch_to_gradient.check_step_and_loss, ("batches", "width")),
    ("steps", real_steps.check_steps, ("batches", "width")),
    ("schedule", settings.check_schedule, ()),
    ("overfit_batch", check_overfit, ("train_data", "batches", "width")),
    ("evaluation", evaluation.check_evaluation, ("evaluate", "width")),
    ("eval_follows", evaluation.check_eval_follows, ("evaluate", "batches", "width")),
    ("resume", resume.check_resume, ("batches", "width")),
    ("lr_range", check_rate, ("train_data", "batches", "width")),
]


def run(
    factory: Callable[[], TrainingSetup],
    budget_seconds: float = 60,
    on_check: Callable[[str], object] = lambda name: None,
) -> Report:
    """Check the set-ups that `factory()` gives, a fresh one each time, in about `budget_seconds` on
    two processor cores. Estimated cost, not the clock, decides what is done: two runs give the same
    report. The random state is kept. `on_check` gets each name of `BATTERY` before its check."""
    ctx = Context(factory, budget_seconds)
    with random_state_kept(), warnings.catch_warnings(), torch.enable_grad():
        warnings.simplefilter("ignore")
        checks = _all_checks(ctx, on_check)
    return Report(link_consequences(checks), curves=ctx.curves)


def _all_checks(ctx: Context, on_check: Callable[[str], object]) -> list[Check]:
    found: list[Check] = []
    id = "factory"
    try:
        have = prepare(ctx, found)
        for id, check, needs in BATTERY:
            on_check(id)
            ctx.failed = any(known.status == "fail" for known in found)
            if not have.issuperset(needs) or (ctx.failed and id == "lr_range"):
                continue
            try:
                found += check(ctx)
            except SetupError as error:
                crash = explain(error)
                found += [] if any(old.id == crash.id for old in found) else [crash]
            except OutOfTime:
                raise
            except Exception as error:
                text = f"this check stopped with {type(error).__name__}: {_one_line(error)}"
                found.append(finding("inconclusive", id, None, None, text))
    except SetupError as error:  # no set-up at all
        found.append(explain(error))
    except OutOfTime:
        text = "the budget was used up four times over, the estimate of the cost is wrong here"
        found.append(finding("inconclusive", id, None, None, f"stopped: {text}"))
    return found


def explain(error: SetupError) -> Check:
    """The finding `runs_<part>`, with the causes that the error's own words suggest."""
    inner, line = error.error, _one_line(error.error)
    if isinstance(inner, MemoryError) or "memory" in line.lower():
        causes = ["out_of_memory"]
    elif "out of bounds" in line or "label" in line.lower():
        causes = ["labels_out_of_range", "num_classes"]
    elif "gives no batch" in line:
        causes = ["loader_incomplete"]
    elif "total steps" in line or "Tried to step" in line:  # OneCycleLR at its end
        causes = ["schedule_too_short"]
    elif TYPE.search(line) and not SIZE.search(line):
        causes = ["dtype_mismatch", "code_error"]
    elif SIZE.search(line):
        causes = ["shape_mismatch", "num_classes"]
    elif isinstance(inner, AttributeError | TypeError):
        causes = ["interface", "code_error"]
    else:
        causes = ["code_error"]
    text = f"{error.part} stopped with {type(inner).__name__}: {line}"
    return fail(f"runs_{error.part}", None, None, text, *causes)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


def prepare(ctx: Context, found: list[Check]) -> set[str]:
    """Learn what all checks need; what stops here is a finding. Returns what there is."""
    setup = ctx.fresh()
    if not isinstance(setup.model, nn.Module):
        raise SetupError("factory", TypeError("setup.model must be a torch.nn.Module"))
    ctx.declared = Declared.of(setup)
    have = {name for name in ("val_data", "evaluate") if getattr(setup, name) is not None}

    def try_out(name: str, part: Callable[[Context], object]) -> None:
        have.add(name)
        try:
            part(ctx)
        except SetupError as error:
            found.append(explain(error))
            have.discard(name)

    settings.find_peak(ctx)
    if setup.train_loader is not None and setup.train_step is not None:
        try_out("batches", _read_batches)
    if setup.train_data is not None:
        try_out("train_data", values.draw_samples)
    ctx.classes = ctx.declared.num_classes or _count_classes(ctx)
    if "train_data" in have:
        try_out("width", _measure)
    # A plain step and a plain evaluation, before anything is replaced.
    if {"width", "batches"} <= have:
        try_out("batches", lambda ctx: ctx.step(ctx.fresh(), ctx.batches[0]))
        loader = evaluation.small_loader(ctx)
        if "evaluate" in have and loader is not None:
            try_out("evaluate", lambda ctx: ctx.evaluate(ctx.fresh(), loader))
    return have


def _read_batches(ctx: Context) -> None:
    """The first batches of an epoch, kept; and the form of both loaders' targets."""
    setup = ctx.fresh()
    with running("train_loader"):
        for batch in setup.train_loader or ():
            split_batch(batch)
            ctx.batches.append(batch)
            if len(ctx.batches) == BATCHES:
                break
        if not ctx.batches:
            raise ValueError("it gives no batch")
        ctx.soft = are_shares(split_batch(ctx.batches[0])[1])
    if setup.val_loader is not None:
        with running("val_loader"):
            ctx.val_soft = are_shares(split_batch(next(iter(setup.val_loader)))[1])


def _count_classes(ctx: Context) -> int:
    seen = [sample.y for _, sample in ctx.samples()] + [labels_of(batch) for batch in ctx.batches]
    return max(2, 1 + max((int(y.max()) for y in seen), default=1))


def _measure(ctx: Context) -> None:
    """Width of the outputs, and the cost of a step by counting multiplications and layers."""
    setup, x = ctx.fresh(), ctx.sample.x[:2]
    work = calls = 0.0

    def count(module: nn.Module, inputs: tuple, output: object) -> None:
        nonlocal work, calls
        calls += 1
        weight = getattr(module, "weight", None)
        if isinstance(weight, Tensor) and isinstance(output, Tensor) and weight.ndim > 1:
            places = output.numel() / (output.shape[1] if output.ndim == 4 else output.shape[-1])
            work += weight.numel() * places

    with running("model"):
        leaves = [module for module in setup.model.modules() if not list(module.children())]
        handles = [leaf.register_forward_hook(count) for leaf in leaves]
        logits = forward(setup.model, x)
        for handle in handles:
            handle.remove()
    ctx.width = logits.shape[-1] if logits.ndim == 2 else 0
    parameters = sum(p.numel() for p in setup.model.parameters())
    ctx.step_seconds = 6 * (work / len(x)) * 16 / FLOPS + calls * CALL * 3 + parameters * 4e-9
    if not ctx.declared.num_classes and ctx.width > 1:
        ctx.classes = max(ctx.classes, ctx.width)
