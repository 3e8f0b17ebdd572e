"""Facts that are counted, not judged: mixed labels, graphs in memory, averaged weights, a schedule
that nobody steps. Each with variants that are fine and variants that are not."""

import copy
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn, update_bn

from src.checks import TrainingSetup, battery
from src.checks.afterwards import average
from src.checks.context import Context
from src.checks.learning import schedule
from src.checks.report import Check
from src.checks.step import controlled, real_steps
from tests.checks import base
from tests.checks.base import CLASSES

Part = Callable[[Context], list[Check]]


def loud(plant: base.Plant, *parts: Part) -> dict[str, tuple[str, str]]:
    """id -> (status, first cause) of what these parts of the battery find."""
    torch.set_num_threads(1)
    np.random.seed(3)

    def factory() -> TrainingSetup:
        setup = base.healthy()
        return plant(setup) or setup

    ctx = Context(factory, 5)
    battery._prepare(ctx, [])
    found = [check for part in parts for check in part(ctx)]
    return {c.id: (c.status, c.likely_causes[0]) for c in found if c.status in ("fail", "warn")}


# --- mixing: (pictures, labels, partner labels, share of the own label, share of the own picture)


def box(x: Tensor, other: Tensor, share: float) -> tuple[Tensor, float]:
    """Cutmix: a box of x[other] in x, and the share of x that is left."""
    side = max(1, round(x.shape[2] * (1 - share) ** 0.5))
    top = int(torch.randint(0, x.shape[2] - side + 1, ()))
    mixed = x.clone()
    mixed[..., top : top + side, top : top + side] = x[other][
        ..., top : top + side, top : top + side
    ]
    return mixed, 1 - (side / x.shape[2]) ** 2


def mixing(setup: TrainingSetup, rule: str, form: str) -> None:
    """A step that mixes by `rule` and gives the loss shares ("soft") or calls it twice."""

    def step(setup: TrainingSetup, batch: Any) -> dict[str, float]:
        x, y = batch
        other, share = torch.randperm(len(x)), float(np.random.beta(0.6, 0.6))
        labels = y[other]
        if "box" in rule:
            entered, share = box(x, other, share)
        elif "row" in rule:
            shares = torch.rand(len(x), 1, 1, 1)
            entered = shares * x + (1 - shares) * x[other]
        else:
            entered = share * x + (1 - share) * x[other]
        own: Any = shares.flatten() if "row" in rule else torch.full((len(x),), share)
        own = 1 - own if "exchanged" in rule else own
        labels = y[torch.randperm(len(x))] if "others" in rule else labels
        entered = x if "labels alone" in rule else entered
        own = torch.ones(len(x)) if "pictures alone" in rule else own
        logits = setup.model(entered)
        if form == "soft":
            target = own[:, None] * functional.one_hot(y, CLASSES)
            target = target + (1 - own[:, None]) * functional.one_hot(labels, CLASSES)
            target = 0.9 * target + 0.1 / CLASSES if "smooth" in rule else target
            loss = setup.loss_fn(logits, target)
        else:
            loss = own[0] * setup.loss_fn(logits, y) + (1 - own[0]) * setup.loss_fn(logits, labels)
        setup.optimizer.zero_grad()
        loss.backward()
        setup.optimizer.step()
        return {"loss": loss.item()}

    setup.train_step = step
    smoothing = 0.1 if "smooth" in rule else 0.0
    setup.declared = {**setup.declared, "mixup": 0.6, "label_smoothing": smoothing}


@pytest.mark.parametrize(
    ("rule", "form"),
    [
        ("sum", "soft"), ("box", "soft"), ("sum smooth", "soft"), ("box smooth", "soft"),
        ("row", "soft"), ("row smooth", "soft"), ("sum", "twice"), ("box", "twice"),
    ],
)  # fmt: skip
def test_labels_that_are_mixed_like_their_pictures_are_fine(rule: str, form: str) -> None:
    assert loud(lambda setup: mixing(setup, rule, form), controlled.check_stub) == {}


@pytest.mark.parametrize("form", ["soft", "twice"])
@pytest.mark.parametrize(
    ("rule", "cause"),
    [
        ("sum exchanged", "mixed_labels_differ"),
        ("box exchanged", "mixed_labels_differ"),
        ("sum others", "mixed_labels_differ"),
        ("box others", "mixed_labels_differ"),
        ("sum pictures alone", "inputs_changed_in_step"),
        ("labels alone", "mixed_labels_differ"),
    ],
)
def test_labels_that_are_mixed_otherwise_are_found(rule: str, cause: str, form: str) -> None:
    found = loud(lambda setup: mixing(setup, rule, form), controlled.check_stub)
    assert found.get("step_inputs", ("", ""))[1] == cause, found


def test_mixing_inside_the_net_is_not_judged() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            layers = list(base.net().children())
            self.first, self.rest = nn.Sequential(*layers[:4]), nn.Sequential(*layers[4:])

        def forward(self, x: Tensor, mix: Any = None) -> Tensor:
            hidden = self.first(x)
            if mix is not None:
                share, other = mix
                hidden = share * hidden + (1 - share) * hidden[other]
            return self.rest(hidden)

    def step(setup: TrainingSetup, batch: Any) -> dict[str, float]:
        setup.model.train()
        x, y = batch
        other, share = torch.randperm(len(x)), float(np.random.beta(0.6, 0.6))
        logits = setup.model(x, mix=(share, other))
        loss = share * setup.loss_fn(logits, y) + (1 - share) * setup.loss_fn(logits, y[other])
        setup.optimizer.zero_grad()
        loss.backward()
        setup.optimizer.step()
        return {"loss": loss.item()}

    def plant(setup: TrainingSetup) -> None:
        setup.model, setup.train_step = Net(), step
        setup.optimizer = torch.optim.AdamW(setup.model.parameters(), 3e-3)

    assert loud(plant, controlled.check_stub) == {}


# --- graphs


def keeping(setup: TrainingSetup, keep: Any, accumulate: int = 1) -> None:
    """A step that gives its loss to `keep`."""
    calls = 0

    def step(setup: TrainingSetup, batch: Any) -> dict[str, float]:
        nonlocal calls
        setup.model.train()
        loss = setup.loss_fn(setup.model(batch[0]), batch[1]) / accumulate
        loss.backward()
        calls += 1
        if calls % accumulate == 0:
            setup.optimizer.step()
            setup.optimizer.zero_grad()
        keep(loss)
        return {"loss": loss.item()}

    setup.train_step = step
    setup.declared = {**setup.declared, "accumulate": accumulate}


class Total:
    """A sum of losses that stays a tensor with its graph."""

    def __init__(self) -> None:
        self.sum: Any = 0.0

    def add(self, loss: Tensor) -> None:
        self.sum = self.sum + loss


@pytest.mark.parametrize("accumulate", [1, 3])
@pytest.mark.parametrize("keep", [lambda: [].append, lambda: Total().add, lambda: {}.setdefault])
def test_losses_kept_with_their_graphs_are_found(keep: Any, accumulate: int) -> None:
    def plant(setup: TrainingSetup) -> None:
        kept = keep()
        if kept.__name__ == "setdefault":
            numbered = kept
            kept = lambda loss: numbered(id(loss), loss)  # noqa: E731
        keeping(setup, kept, accumulate)

    assert loud(plant, real_steps.check_steps).get("graphs") == ("warn", "graph_kept")


@pytest.mark.parametrize("window", [1, 10])
def test_a_short_window_of_losses_and_plain_numbers_are_fine(window: int) -> None:
    def plant(setup: TrainingSetup) -> None:
        few: deque[Tensor] = deque(maxlen=window)
        numbers: list[float] = []
        detached: list[Tensor] = []

        def keep(loss: Tensor) -> None:
            few.append(loss)
            numbers.append(loss.item())
            detached.append(loss.detach())

        keeping(setup, keep)

    assert "graphs" not in loud(plant, real_steps.check_steps)


# --- averaged weights


def averaged(
    setup: TrainingSetup, made: Any, update: Any, net: Any, before: Any = None, every: int = 1
) -> None:
    """Evaluation on an average: `made(model)` makes it, `update(it, model)` follows a step, and
    `net(it)` is evaluated."""
    it, calls, plain = made(setup.model), 0, setup.train_step

    def step(setup: TrainingSetup, batch: Any) -> Any:
        nonlocal calls
        out = plain(setup, batch)  # type: ignore[misc]
        calls += 1
        if calls % every == 0:
            update(it, setup.model)
        return out

    def evaluate(setup: TrainingSetup, loader: Any) -> dict[str, float]:
        if before is not None:
            before(it, setup)
        own, setup.model = setup.model, net(it)
        try:
            return base.evaluate(setup, loader)
        finally:
            setup.model = own

    setup.train_step, setup.evaluate = step, evaluate


def lerp(decay: float, buffers: bool = True) -> Callable[[nn.Module, nn.Module], None]:
    """An update of a copy that averages parameters and copies buffers."""

    @torch.no_grad()
    def update(mine: nn.Module, model: nn.Module) -> None:
        for a, b in zip(mine.parameters(), model.parameters(), strict=True):
            a.lerp_(b, 1 - decay)
        for own, new in zip(mine.buffers(), model.buffers(), strict=True):
            own.copy_(new if buffers else own)

    return update


def ema(setup: TrainingSetup, decay: float, **more: Any) -> None:
    averaged(setup, copy.deepcopy, lerp(decay), lambda it: it, **more)


def ema_of_torch(setup: TrainingSetup, decay: float = 0.95, **more: Any) -> None:
    averaged(
        setup, lambda model: AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay), **more),
        lambda it, model: it.update_parameters(model), lambda it: it,
    )  # fmt: skip


def statistics_before_evaluation(setup: TrainingSetup) -> None:
    averaged(
        setup, copy.deepcopy, lerp(0.9, buffers=False), lambda it: it,
        before=lambda it, setup: update_bn(setup.train_loader, it),
    )  # fmt: skip


def exchanged_meanwhile(setup: TrainingSetup, decay: float) -> None:
    """Parameters of an average are put into the net for the while of an evaluation."""
    shadow = [p.detach().clone() for p in setup.model.parameters()]
    plain = setup.train_step

    def step(setup: TrainingSetup, batch: Any) -> Any:
        out = plain(setup, batch)  # type: ignore[misc]
        for a, b in zip(shadow, setup.model.parameters(), strict=True):
            a.lerp_(b.detach(), 1 - decay)
        return out

    @contextmanager
    def exchanged(model: nn.Module) -> Iterator[None]:
        own = [p.detach().clone() for p in model.parameters()]
        with torch.no_grad():
            for p, a in zip(model.parameters(), shadow, strict=True):
                p.copy_(a)
            yield
            for p, a in zip(model.parameters(), own, strict=True):
                p.copy_(a)

    def evaluate(setup: TrainingSetup, loader: Any) -> dict[str, float]:
        with exchanged(setup.model):
            return base.evaluate(setup, loader)

    setup.train_step, setup.evaluate = step, evaluate


def mean_of_all(setup: TrainingSetup) -> None:
    averaged(setup, AveragedModel, lambda it, model: it.update_parameters(model), lambda it: it)


@pytest.mark.parametrize(
    "plant",
    [
        lambda setup: ema(setup, 0.9),
        lambda setup: ema(setup, 0.99),
        lambda setup: ema(setup, 0.9, every=2),
        lambda setup: ema(setup, 0.9, every=3),
        lambda setup: ema(setup, 0.9, every=10),
        ema_of_torch,
        lambda setup: ema_of_torch(setup, use_buffers=True),
        mean_of_all,
        statistics_before_evaluation,
        lambda setup: exchanged_meanwhile(setup, 0.95),
    ],
)
def test_averages_that_follow_are_fine(plant: base.Plant) -> None:
    assert loud(plant, average.check_eval_follows) == {}


@pytest.mark.parametrize(
    ("plant", "id", "cause"),
    [
        (lambda setup: averaged(setup, copy.deepcopy, lerp(0.9, buffers=False), lambda it: it),
         "eval_statistics", "average_without_buffers"),
        (lambda setup: ema(setup, 0.9999), "average_speed", "average_too_slow"),
        (lambda setup: exchanged_meanwhile(setup, 0.9999), "average_speed", "average_too_slow"),
        (lambda setup: ema_of_torch(setup, 0.9999, use_buffers=True),
         "average_speed", "average_too_slow"),
        (lambda setup: ema(setup, 1.0), "eval_follows", "eval_of_other_weights"),
    ],
)  # fmt: skip
def test_averages_that_do_not_follow_are_found(plant: base.Plant, id: str, cause: str) -> None:
    found = loud(plant, average.check_eval_follows)
    assert found.get(id, ("", ""))[1] == cause, found


# --- the schedule


def scheduled(setup: TrainingSetup, rate: Callable[[int], float], stepped: bool) -> None:
    plain = setup.train_step
    setup.scheduler = torch.optim.lr_scheduler.LambdaLR(setup.optimizer, rate)

    def step(setup: TrainingSetup, batch: Any) -> Any:
        out = plain(setup, batch)  # type: ignore[misc]
        setup.scheduler.step()
        return out

    if stepped:
        setup.train_step = step


@pytest.mark.parametrize(
    ("rate", "stepped"),
    [
        (lambda step: min(1.0, step / 10), True),
        (lambda epoch: min(1.0, (epoch + 1) / 3), False),  # somebody steps it after each epoch
        (lambda epoch: 0.9**epoch, False),
    ],
)
def test_a_schedule_that_is_stepped_in_or_outside_of_the_step_is_fine(
    rate: Any, stepped: bool
) -> None:
    plant = lambda setup: scheduled(setup, rate, stepped)  # noqa: E731
    assert loud(plant, real_steps.check_steps, schedule.check_schedule) == {}


def test_a_warm_up_from_0_that_nobody_steps_is_found() -> None:
    found = loud(
        lambda setup: scheduled(setup, lambda step: min(1.0, step / 10), False),
        real_steps.check_steps, schedule.check_schedule,
    )  # fmt: skip
    assert found == {"schedule": ("warn", "schedule_never_stepped")}
