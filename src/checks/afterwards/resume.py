"""A training that was saved and loaded goes on like one that was not."""

from typing import Any

import torch
from torch import Tensor

from src.checks.afterwards.evaluation import small_loader
from src.checks.context import Context, SetupError, seed_all
from src.checks.report import Check
from src.checks.setup import TrainingSetup

OFF = 1e-4  # relative; on a CPU the difference is 0 to the bit (measured)
OFF_GPU = 1e-2


def _steps(ctx: Context, setup: TrainingSetup, start: int, count: int) -> None:
    for number in range(start, start + count * ctx.declared.accumulate):
        seed_all(1000 + number)  # dropout draws the same in both
        ctx.step(setup, ctx.batches[number % len(ctx.batches)])


def check_resume(ctx: Context) -> list[Check]:
    """Three steps, save, load into a fresh set-up; then the same three steps in both."""
    setup = ctx.fresh()
    if setup.save is None or setup.load is None:
        return []
    count = 3
    _steps(ctx, setup, 0, count)
    if not all(bool(p.isfinite().all()) for p in setup.model.parameters()):
        return []
    try:
        saved = setup.save(setup)
    except Exception as error:
        raise SetupError("save", error) from error
    other = ctx.fresh(seed=77)
    _disturb(other)
    try:
        returned = other.load(other, saved) if other.load else None
    except Exception as error:
        raise SetupError("load", error) from error
    other = returned if isinstance(returned, TrainingSetup) else other
    id = "resume"
    where = [key for key, value in setup.model.state_dict().items()
             if not torch.equal(value.cpu(), other.model.state_dict()[key].cpu())]  # fmt: skip
    if where:
        shown = ", ".join(where[:3])
        text = f"{len(where)} tensors of the net are not what was saved ({shown})"
        return [Check(id, "fail", float(len(where)), 0.0, text, ["weights_not_saved"])]
    found = []
    if not _alike(_state(setup.optimizer), _state(other.optimizer)):
        text = "the optimizer's state after loading is not what was saved"
        found.append(Check(id, "fail", 1.0, 0.0, text, ["optimizer_not_saved"]))
    if setup.scheduler is not None and not _alike(_state(setup.scheduler), _state(other.scheduler)):
        text = "the schedule's state after loading is not what was saved"
        found.append(Check("resume_schedule", "fail", 1.0, 0.0, text, ["scheduler_not_saved"]))
    if found:
        return found
    loader = small_loader(ctx)
    if loader is not None and setup.evaluate is not None:
        a, b = ctx.evaluate(setup, loader), ctx.evaluate(other, loader)
        if any(abs(a[key] - b.get(key, 1e9)) > 1e-4 * max(1, abs(a[key])) for key in a):
            text = "evaluation after loading is not that before saving: an average of the weights?"
            return [Check(id, "fail", None, None, text, ["weights_not_saved"])]
    _steps(ctx, setup, count * ctx.declared.accumulate, count)
    _steps(ctx, other, count * ctx.declared.accumulate, count)
    off = _distance(setup, other)
    text = f"three steps after loading the net differs by {off:.2g} from one that went on"
    limit = OFF if next(setup.model.parameters()).device.type == "cpu" else OFF_GPU
    if not off <= limit:
        causes = ["optimizer_not_saved", "scheduler_not_saved", "weights_not_saved"]
        return [Check(id, "fail", off, limit, text, causes)]
    return [Check(id, "pass", off, limit, text)]


@torch.no_grad()
def _disturb(setup: TrainingSetup) -> None:
    """Other weights than those of every fresh set-up: what load leaves out shows."""
    for tensor in setup.model.state_dict().values():
        if tensor.is_floating_point():
            tensor.mul_(1.1).add_(0.01)


def _state(part: Any) -> Any:
    try:
        return part.state_dict()
    except Exception:
        return None


def _alike(a: Any, b: Any) -> bool:
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_alike(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        return len(a) == len(b) and all(_alike(x, y) for x, y in zip(a, b, strict=True))
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return a.shape == b.shape and torch.allclose(a.cpu().double(), b.cpu().double(), rtol=1e-5)
    if isinstance(a, int | float) and isinstance(b, int | float):
        return a == b or abs(a - b) <= 1e-6 * max(abs(a), abs(b))
    return True  # functions, names: not compared


def _distance(a: TrainingSetup, b: TrainingSetup) -> float:
    top = size = 0.0
    for key, value in a.model.state_dict().items():
        if value.is_floating_point():
            other = b.model.state_dict()[key]
            top += float((value.double() - other.double().to(value.device)).square().sum())
            size += float(value.double().square().sum())
    return (top / size) ** 0.5 if size else 0.0
