"""The loaders against their data sets: how much, in which order, paired how."""

import itertools
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

from src.checks.context import Context, Sample, draw
from src.checks.reading import inputs_of, labels_of, rows_as_bytes
from src.checks.report import Check, cannot_tell, fail, finding, ok, warn
from src.checks.training_setup import TrainingSetup

PASS_LIMIT = 20_000  # items of a loader that are read through (choice)
RESEMBLING = 256  # augmented images that decide (choice)
SUSPICIOUS = 0.85  # of what draws reach: then so many are read (choice)
MOST_PASSES = 8  # through a small loader for so many (choice)


def check_loaders(ctx: Context) -> list[Check]:
    """Coverage and order of the training loader, pairs and number of the validation loader."""
    setup, found = ctx.fresh(), []
    first, second = (_labels_of_epoch(setup.train_loader) for _ in range(2))
    if first is None:
        found.append(cannot_tell("loader_coverage", f"an epoch has more than {PASS_LIMIT} items"))
    elif setup.train_data is not None:
        same = second is not None and len(first) == len(second) > 1
        same = same and all(map(torch.equal, first, second or ()))
        found += _epoch(ctx, setup, first, same)
    for batch in ctx.batches[:3]:
        rows = rows_as_bytes(inputs_of(batch))
        distinct = len(set(rows)) / len(rows)
        if distinct <= 0.5 and len(rows) >= 4:
            text = f"only {distinct:.0%} of the images of a batch differ"
            causes = ["loader_misaligned", "loader_repeats"]
            found.append(fail("loader_pairs", distinct, 0.5, text, *causes))
            break
    if setup.val_loader is not None and setup.val_data is not None:
        found += _pairs(ctx, setup)
    return found or [ok("loader", None, None, "no loader to compare")]


def _labels_of_epoch(loader: Any) -> list[Tensor] | None:
    """Labels of each batch of an epoch; None where it is too long to read."""
    batches: list[Tensor] = []
    for batch in loader:
        batches.append(labels_of(batch))
        if sum(map(len, batches)) > PASS_LIMIT:
            return None
    return batches


def _epoch(ctx: Context, setup: TrainingSetup, first: list[Tensor], same: bool) -> list[Check]:
    """Coverage and order of an epoch, by labels. `same`: a second epoch has the same batches."""
    biggest, smallest = max(map(len, first), default=0), min(map(len, first), default=0)
    full = [labels for labels in first if len(labels) == biggest]
    # A sampler that takes as many of each class has the same labels by design, in other images.
    by_design = len(full[0].unique(return_counts=True)[1].unique()) == 1 if full else False
    if len(full) > 2 and biggest >= 8 and all(torch.equal(labels, full[0]) for labels in full):
        if by_design and not torch.equal(*map(inputs_of, ctx.batches[:2])):
            text = "every batch has as many of each class, in one order"
            return [_coverage(setup, first, biggest), ok("loader_order", None, None, text)]
        text = f"all {len(full)} batches of an epoch have the same labels"
        causes = ["loader_repeats", "loader_incomplete"]
        return [fail("loader_coverage", 1 / len(full), 0.9, text, *causes)]
    found = [_coverage(setup, first, biggest), _order(ctx, setup.train_loader, first, full, same)]
    norms = any(isinstance(module, _BatchNorm) for module in ctx.fresh().model.modules())
    if norms and (biggest < 4 or smallest < 2):
        text = f"batches of {smallest} to {biggest} are too small for BatchNorm"
        found.append(warn("batch_size", float(smallest), 4.0, text, "batch_too_small"))
    return found


def _coverage(setup: TrainingSetup, first: list[Tensor], biggest: int) -> Check:
    id, total, count = "loader_coverage", len(setup.train_data), sum(map(len, first))
    share = count / max(1, total)
    text = f"an epoch has {count} of {total} training items in {len(first)} batches"
    if total - count >= biggest and share < 0.9:
        return fail(id, share, 0.9, text, "loader_incomplete", "loader_of_other_data")
    if share > 1.5:
        return warn(id, share, 1.5, text, "loader_repeats", "loader_of_other_data")
    return ok(id, share, 0.9, text)


def _order(ctx: Context, loader: Any, first: list[Tensor], full: list[Tensor], same: bool) -> Check:
    id, everything = "loader_order", torch.cat(first)
    kinds = float(np.mean([len(labels.unique()) for labels in full]))
    shares = torch.bincount(everything.clamp_min(0)).float() / len(everything)
    expected = float((1 - (1 - shares) ** len(full[0])).sum())
    text = f"batches hold {kinds:.1f} classes, {expected:.1f} by chance"
    if kinds < 0.6 * expected and expected > 1.3:
        return fail(id, kinds, 0.6 * expected, text, "loader_sorted", "loader_not_shuffled")
    comparable = not ctx.soft and len(everything.unique()) > 1
    if same and comparable and not isinstance(loader, list | tuple):
        return warn(id, 1.0, 0.0, "two epochs have the same order", "loader_not_shuffled")
    return ok(id, kinds, 0.6 * expected, text)


def _pairs(ctx: Context, setup: TrainingSetup) -> list[Check]:
    """Each (image, label) of the loaders is an item of its data set; exactly, where the data set
    gives the same image each time."""
    found = list(_exact_pairs(setup, "val", ctx.val_sample))
    if ctx.deterministic_train:
        found += _exact_pairs(setup, "train", ctx.train_sample)
    elif not ctx.soft and not found:
        found = _resembling(ctx, setup)
    return found or [ok("loader_pairs", 1.0, 0.98, "images come with their labels")]


def _exact_pairs(setup: TrainingSetup, name: str, sample: Sample | None) -> Iterator[Check]:
    if sample is None:
        return
    known = dict(zip(rows_as_bytes(sample.x), sample.y.tolist(), strict=True))
    data, count, paired, matched = getattr(setup, f"{name}_data"), 0, 0, 0
    for batch in getattr(setup, f"{name}_loader"):
        labels = labels_of(batch).tolist()
        count += len(labels)
        for row, label in zip(rows_as_bytes(inputs_of(batch)), labels, strict=True):
            matched += row in known
            paired += known.get(row) == label
        if count > PASS_LIMIT:
            break
    if name == "val" and count != len(data) and count <= PASS_LIMIT:
        text = f"the val loader gives {count} of {len(data)} items"
        causes = ["loader_incomplete", "loader_of_other_data"]
        yield fail("val_loader", count / len(data), 1.0, text, *causes)
    if matched and paired < 0.98 * matched:
        share = paired / matched
        text = f"only {share:.0%} of the {name} loader's images have their own label"
        yield fail("loader_pairs", share, 0.98, text, "loader_misaligned", "labels_shuffled")
    elif name == "val" and len(sample) == sample.total and not matched and _repeats(data, sample):
        text = "none of the val loader's images is an item of val_data"
        causes = ["loader_of_other_data", "train_val_preprocessing_differ"]
        yield warn("val_loader", 0.0, 0.9, text, *causes)


def _resembling(ctx: Context, setup: TrainingSetup) -> list[Check]:
    """Augmented images resemble items of their own label, as new draws of the items do. A batch
    that resembles less may be bad luck: more are read before it is called a fault."""
    sample = ctx.train_sample
    if sample is None or sample.x.ndim != 4:
        return []
    if inputs_of(ctx.batches[0]).shape[1:] != sample.x.shape[1:]:
        return []
    count = sum(len(labels_of(batch)) for batch in ctx.batches)
    here, usual, _ = _agreement(setup, sample, ctx.batches, 1)
    shares = torch.bincount(sample.y.clamp_min(0)).float() / len(sample)
    readable = usual > 0.5 + 0.5 * float(shares.max()) and count >= 32
    limit = 0.7 * usual
    if readable and here < SUSPICIOUS * usual:
        loader: Any = setup.train_loader
        again = itertools.chain.from_iterable(loader for _ in range(MOST_PASSES))
        more = list(itertools.islice(again, -(-RESEMBLING // count) * len(ctx.batches)))
        draws = -(-RESEMBLING // len(sample))
        here, usual, error = _agreement(setup, sample, more or ctx.batches, draws)
        limit = min(0.7 * usual, usual - 4 * error)
    text = f"{here:.0%} of the loader's images resemble items of their label, draws {usual:.0%}"
    status = "fail" if readable and here < limit else "pass"
    id, causes = "loader_pairs", ["loader_misaligned", "labels_shuffled"]
    return [finding(status, id, here, limit, text, *causes)]


def _agreement(
    setup: TrainingSetup, sample: Sample, batches: list[tuple[Any, Any]], draws: int
) -> tuple[float, float, float]:
    """The share of the batches' images whose nearest item of the sample has their label, that of
    so many new draws of the sample, and the standard error of their difference."""
    given = torch.cat([inputs_of(batch) for batch in batches])
    labels = torch.cat([labels_of(batch) for batch in batches])
    again = draw(setup.train_data, sample.indices * draws, "train_data")

    def distances(x: Tensor) -> Tensor:
        a, b = (functional.adaptive_avg_pool2d(part, 8).flatten(1) for part in (x, sample.x))
        return torch.cdist(a, b)

    def agreement(distance: Tensor, y: Tensor) -> float:
        return float((sample.y[distance.argmin(1)] == y).float().mean())

    here, own = agreement(distances(given), labels), distances(again.x)
    # An image of the loader finds an earlier draw of itself only where it is in the sample.
    known = len(sample) / sample.total
    usual = known * agreement(own, again.y)
    rows = torch.arange(len(again))
    own[rows, rows % len(sample)] = float("inf")
    usual += (1 - known) * agreement(own, again.y)
    return here, usual, math.sqrt(usual * (1 - usual) * (1 / len(given) + 1 / len(again)))


def _repeats(data: Any, sample: Sample) -> bool:
    """Whether a data set gives the same items again."""
    again = draw(data, sample.indices[:8], "val_data")
    return torch.equal(again.x, sample.x[: len(again)])


def check_val_random(ctx: Context) -> list[Check]:
    """Validation images are the same each time: no augmentation there."""
    setup = ctx.fresh()
    if ctx.val_sample is None or _repeats(setup.val_data, ctx.val_sample):
        return []
    text = "validation images differ from call to call: is the training's augmentation on?"
    causes = ["train_val_preprocessing_differ", "eval_not_deterministic"]
    return [warn("val_random", 1.0, 0.0, text, *causes)]


def check_workers(ctx: Context) -> list[Check]:
    """Random draws of several worker processes differ, where those of one process do."""
    setup = ctx.fresh()
    loader: Any = setup.train_loader
    workers = getattr(loader, "num_workers", 0)
    if workers < 1 or ctx.deterministic_train or setup.train_data is None:
        return []
    workers = max(2, workers)
    same_item = torch.utils.data.DataLoader(
        setup.train_data,
        sampler=[0] * 2 * workers,
        num_workers=workers,
        worker_init_fn=getattr(loader, "worker_init_fn", None),
        collate_fn=list,
    )
    draws = [inputs_of(items[0]).numpy().tobytes() for _ in range(2) for items in same_item]
    inside = {inputs_of(setup.train_data[0]).numpy().tobytes() for _ in range(2 * workers)}
    distinct = len(set(draws)) / len(draws)
    text = f"{distinct:.0%} of the draws of {workers} workers differ"
    status = "fail" if distinct <= 0.55 and len(inside) / (2 * workers) > 0.8 else "pass"
    return [finding(status, "workers", distinct, 0.55, text, "worker_seeds_equal")]
