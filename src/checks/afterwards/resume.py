"""A training that was saved and loaded goes on like one that was not."""

from contextlib import suppress
from typing import Any

import torch
from torch import Tensor

from src.checks.afterwards.evaluation import small_loader
from src.checks.context import Context, running
from src.checks.reading import counted, named
from src.checks.report import Check, fail, finding
from src.checks.temporary import seed_all
from src.checks.training_setup import TrainingSetup

STEPS = 3  # of the optimizer, before and after
OFF = 1e-4  # relative; on a CPU the difference is 0 to the bit (measured)
OFF_GPU = 1e-2


def check_resume(ctx: Context) -> list[Check]:
    """Three steps, save, load into a fresh set-up; then the same three steps in both."""
    setup = ctx.fresh()
    if setup.save is None or setup.load is None:
        return []
    _train(ctx, setup, 0)
    if not all(bool(p.isfinite().all()) for p in setup.model.parameters()):
        return []
    with running("save"):
        saved = setup.save(setup)
    loaded = ctx.fresh(seed=77)
    # Other weights than those of every fresh set-up: what load leaves out shows.
    for tensor in loaded.model.state_dict().values():
        if tensor.is_floating_point():
            tensor.detach().mul_(1.1).add_(0.01)
    with running("load"):
        returned = loaded.load(loaded, saved) if loaded.load else None
    loaded = returned if isinstance(returned, TrainingSetup) else loaded
    lost, loader = _state_lost(setup, loaded), small_loader(ctx)
    if lost:
        return lost
    if loader is not None and setup.evaluate is not None:
        a, b = ctx.evaluate(setup, loader), ctx.evaluate(loaded, loader)
        if any(abs(a[key] - b.get(key, 1e9)) > 1e-4 * max(1, abs(a[key])) for key in a):
            text = "evaluation after loading is not that before saving: an average of the weights?"
            return [fail("resume", None, None, text, "weights_not_saved")]
    for each in (setup, loaded):
        _train(ctx, each, STEPS * ctx.declared.accumulate)
    off = _distance(setup, loaded)
    text = f"three steps after loading the net differs by {off:.2g} from one that went on"
    limit = OFF if next(setup.model.parameters()).device.type == "cpu" else OFF_GPU
    causes = ["optimizer_not_saved", "scheduler_not_saved", "weights_not_saved"]
    return [finding("pass" if off <= limit else "fail", "resume", off, limit, text, *causes)]


def _train(ctx: Context, setup: TrainingSetup, start: int) -> None:
    for number in range(start, start + STEPS * ctx.declared.accumulate):
        seed_all(1000 + number)  # dropout draws the same in both
        ctx.step(setup, ctx.batch(number))


def _state_lost(setup: TrainingSetup, loaded: TrainingSetup) -> list[Check]:
    """What the loaded set-up does not hold as it was saved."""
    saved, state = setup.model.state_dict(), loaded.model.state_dict()
    lost = [key for key, value in saved.items() if not torch.equal(value.cpu(), state[key].cpu())]
    if lost:
        text = f"not what was saved: {counted(len(lost), 'tensor')} of the net ({named(lost)})"
        return [fail("resume", float(len(lost)), 0.0, text, "weights_not_saved")]
    found, text = [], "state after loading is not what was saved"
    if not _alike(_state(setup.optimizer), _state(loaded.optimizer)):
        found.append(fail("resume", 1.0, 0.0, f"the optimizer's {text}", "optimizer_not_saved"))
    scheduled = setup.scheduler is not None
    if scheduled and not _alike(_state(setup.scheduler), _state(loaded.scheduler)):
        text, cause = f"the schedule's {text}", "scheduler_not_saved"
        found.append(fail("resume_schedule", 1.0, 0.0, text, cause))
    return found


def _state(part: Any) -> Any:
    with suppress(Exception):
        return part.state_dict()
    return None


def _alike(a: Any, b: Any) -> bool:
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_alike(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        return len(a) == len(b) and all(map(_alike, a, b))
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return a.shape == b.shape and torch.allclose(a.cpu().double(), b.cpu().double(), rtol=1e-5)
    if isinstance(a, int | float) and isinstance(b, int | float):
        return a == b or abs(a - b) <= 1e-6 * max(abs(a), abs(b))
    return True  # functions, names: not compared


def _distance(a: TrainingSetup, b: TrainingSetup) -> float:
    """Of the nets' tensors, relative to their size."""
    off, size, others = 0.0, 0.0, b.model.state_dict()
    for key, value in a.model.state_dict().items():
        if value.is_floating_point():
            other = others[key].double().to(value.device)
            off += float((value.double() - other).square().sum())
            size += float(value.double().square().sum())
    return (off / size) ** 0.5 if size else 0.0
