"""The loaders against their data sets: how much, in which order, paired how."""

import itertools
import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from src.checks.context import Context, Sample, draw, labels_of, split_batch, to_tensor
from src.checks.report import Check

PASS_LIMIT = 20_000  # items of a loader that are read through (choice)
RESEMBLING = 256  # augmented pictures that decide (choice)
SUSPICIOUS = 0.85  # of what draws reach: then so many are read (choice)
MOST_PASSES = 8  # through a small loader for so many (choice)


def check_loaders(ctx: Context) -> list[Check]:
    """Coverage and order of the training loader, pairs and number of the validation loader."""
    setup = ctx.fresh()
    found = []
    first = _labels_of_pass(setup.train_loader)
    second = _labels_of_pass(setup.train_loader)
    if first is not None and setup.train_data is not None:
        found += _coverage(ctx, first, second, len(setup.train_data), setup.train_loader)
    for batch in ctx.batches[:3]:
        rows = to_tensor(split_batch(batch)[0]).detach().cpu().float()
        distinct = len({row.numpy().tobytes() for row in rows}) / len(rows)
        if distinct <= 0.5 and len(rows) >= 4 and not any(c.id == "loader_pairs" for c in found):
            text = f"only {distinct:.0%} of the pictures of a batch differ"
            found.append(Check("loader_pairs", "fail", distinct, 0.5, text,
                               ["loader_misaligned", "loader_repeats"]))  # fmt: skip
    if setup.val_loader is not None and setup.val_data is not None:
        found += _pairs(ctx, setup)
    return found or [Check("loader", "pass", None, None, "no loader to compare")]


def _labels_of_pass(loader: Any) -> list[Tensor] | None:
    """Labels of each batch of an epoch; None where it is too long to read."""
    batches, count = [], 0
    for batch in loader:
        labels = labels_of(split_batch(batch)[1])
        batches.append(labels)
        count += len(labels)
        if count > PASS_LIMIT:
            return None
    return batches


def _coverage(
    ctx: Context, first: list[Tensor], second: list[Tensor] | None, total: int, loader: Any
) -> list[Check]:
    found = []
    count = sum(map(len, first))
    share = count / max(1, total)
    biggest = max(map(len, first), default=0)
    text = f"an epoch has {count} of {total} training items in {len(first)} batches"
    if total - count >= biggest and share < 0.9:
        found.append(Check("loader_coverage", "fail", share, 0.9, text,
                           ["loader_incomplete", "loader_of_other_data"]))  # fmt: skip
    elif share > 1.5:
        found.append(Check("loader_coverage", "warn", share, 1.5, text,
                           ["loader_repeats", "loader_of_other_data"]))  # fmt: skip
    else:
        found.append(Check("loader_coverage", "pass", share, 0.9, text))
    full = [labels for labels in first if len(labels) == biggest]
    same = len(full) > 2 and biggest >= 8 and all(torch.equal(labels, full[0]) for labels in full)
    # A sampler that takes as many of each class has the same labels by design, in other pictures.
    by_design = len(full[0].unique(return_counts=True)[1].unique()) == 1 if full else False
    if same and not (by_design and _pictures_differ(ctx)):
        text = f"all {len(full)} batches of an epoch have the same labels"
        return [Check("loader_coverage", "fail", 1 / len(full), 0.9, text,
                      ["loader_repeats", "loader_incomplete"])]  # fmt: skip
    if same:
        text = "every batch has as many of each class, in one order"
        return [*found, Check("loader_order", "pass", None, None, text)]
    everything = torch.cat(first)
    kinds = np.mean([len(labels.unique()) for labels in full])
    shares = torch.bincount(everything.clamp_min(0)).float() / len(everything)
    expected = float((1 - (1 - shares) ** biggest).sum())
    soft = ctx.soft
    text = f"batches hold {kinds:.1f} classes, {expected:.1f} by chance"
    same = second is not None and len(first) > 1 and len(first) == len(second) and all(
        torch.equal(a, b) for a, b in zip(first, second, strict=True))  # fmt: skip
    if kinds < 0.6 * expected and expected > 1.3:
        found.append(Check("loader_order", "fail", float(kinds), 0.6 * expected, text,
                           ["loader_sorted", "loader_not_shuffled"]))  # fmt: skip
    elif (
        same and not soft and len(everything.unique()) > 1 and not isinstance(loader, list | tuple)
    ):
        text = "two epochs have the same order"
        found.append(Check("loader_order", "warn", 1.0, 0.0, text, ["loader_not_shuffled"]))
    else:
        found.append(Check("loader_order", "pass", float(kinds), 0.6 * expected, text))
    norms = any(isinstance(m, torch.nn.modules.batchnorm._BatchNorm)
                for m in ctx.fresh().model.modules())  # fmt: skip
    smallest = min(map(len, first))
    if norms and (biggest < 4 or smallest < 2):
        text = f"batches of {smallest} to {biggest} are too small for BatchNorm"
        found.append(Check("batch_size", "warn", float(smallest), 4.0, text, ["batch_too_small"]))
    return found


def _pairs(ctx: Context, setup: Any) -> list[Check]:
    """Each (picture, label) of the loaders is an item of its data set; exactly, where the data set
    gives the same picture each time."""
    found = []
    plans = [("val", setup.val_loader, setup.val_data, ctx.val_sample)]
    if ctx.deterministic_train:
        plans.append(("train", setup.train_loader, setup.train_data, ctx.train_sample))
    for name, loader, data, sample in plans:
        if sample is None:
            continue
        known = {row.numpy().tobytes(): int(y) for row, y in zip(sample.x, sample.y, strict=True)}
        count = paired = matched = 0
        for batch in loader:
            x, targets = split_batch(batch)
            labels, rows = labels_of(targets), to_tensor(x).detach().cpu().float()
            count += len(labels)
            for row, label in zip(rows, labels, strict=True):
                own = known.get(row.numpy().tobytes())
                matched += own is not None
                paired += own is not None and own == int(label)
            if count > PASS_LIMIT:
                break
        whole = len(sample) == sample.total
        if name == "val" and count != len(data) and count <= PASS_LIMIT:
            text = f"the val loader gives {count} of {len(data)} items"
            found.append(Check("val_loader", "fail", count / len(data), 1.0, text,
                               ["loader_incomplete", "loader_of_other_data"]))  # fmt: skip
        if matched and paired < 0.98 * matched:
            text = (
                f"only {paired / matched:.0%} of the {name} loader's pictures have their own label"
            )
            found.append(Check("loader_pairs", "fail", paired / matched, 0.98, text,
                               ["loader_misaligned", "labels_shuffled"]))  # fmt: skip
        elif whole and name == "val" and not matched and _repeatable(data, sample):
            text = "none of the val loader's pictures is an item of val_data"
            causes = ["loader_of_other_data", "train_val_preprocessing_differ"]
            found.append(Check("val_loader", "warn", 0.0, 0.9, text, causes))
    if not ctx.deterministic_train and not ctx.soft and not found:
        found += _resembling(ctx, setup)
    return found or [Check("loader_pairs", "pass", 1.0, 0.98, "pictures come with their labels")]


def _resembling(ctx: Context, setup: Any) -> list[Check]:
    """Where pictures are augmented: those of the loader resemble items of their own label, as new
    draws of the items do. A batch that resembles less may be an unlucky one: more of the loader is
    read before it is called a fault."""
    sample, first = ctx.train_sample, to_tensor(split_batch(ctx.batches[0])[0])
    if sample is None or sample.x.ndim != 4 or first.shape[1:] != sample.x.shape[1:]:
        return []
    count = sum(len(split_batch(batch)[1]) for batch in ctx.batches)
    here, usual, _ = _agreement(setup, sample, ctx.batches, 1)
    shares = torch.bincount(sample.y.clamp_min(0)).float() / len(sample)
    readable = usual > 0.5 + 0.5 * float(shares.max()) and count >= 32
    limit = 0.7 * usual
    if readable and here < SUSPICIOUS * usual:
        again = itertools.chain.from_iterable(setup.train_loader for _ in range(MOST_PASSES))
        more = list(itertools.islice(again, -(-RESEMBLING // count) * len(ctx.batches)))
        draws = -(-RESEMBLING // len(sample))
        here, usual, error = _agreement(setup, sample, more or ctx.batches, draws)
        limit = min(0.7 * usual, usual - 4 * error)
    text = f"{here:.0%} of the loader's pictures resemble items of their label, draws {usual:.0%}"
    if readable and here < limit:
        causes = ["loader_misaligned", "labels_shuffled"]
        return [Check("loader_pairs", "fail", here, limit, text, causes)]
    return [Check("loader_pairs", "pass", here, limit, text)]


def _agreement(
    setup: Any, sample: Sample, batches: list[tuple[Any, Any]], draws: int
) -> tuple[float, float, float]:
    """The share of the batches' pictures whose nearest item of the sample has their label, that of
    so many new draws of the sample, and the standard error of their difference."""
    parts = [split_batch(batch) for batch in batches]
    given = torch.cat([to_tensor(x).detach().cpu().float() for x, _ in parts])
    labels = torch.cat([labels_of(targets) for _, targets in parts])
    again = draw(setup.train_data, sample.indices * draws, "train_data")
    small = torch.nn.functional.adaptive_avg_pool2d

    def distances(x: Tensor) -> Tensor:
        a, b = (small(part, 8).reshape(len(part), -1) for part in (x, sample.x))
        return torch.cdist(a, b)

    def agreement(distance: Tensor, y: Tensor) -> float:
        return float((sample.y[distance.argmin(1)] == y).float().mean())

    here, own = agreement(distances(given), labels), distances(again.x)
    # A picture of the loader finds an earlier draw of itself only where it is in the sample.
    known = len(sample) / sample.total
    usual = known * agreement(own, again.y)
    rows = torch.arange(len(again))
    own[rows, rows % len(sample)] = float("inf")
    usual += (1 - known) * agreement(own, again.y)
    return here, usual, math.sqrt(usual * (1 - usual) * (1 / len(given) + 1 / len(again)))


def _repeatable(data: Any, sample: Sample) -> bool:
    again = draw(data, sample.indices[:8], "val_data")
    return bool(torch.equal(again.x, sample.x[: len(again)]))


def check_val_random(ctx: Context) -> list[Check]:
    """Validation pictures are the same each time: no augmentation there."""
    setup = ctx.fresh()
    if ctx.val_sample is None or _repeatable(setup.val_data, ctx.val_sample):
        return []
    text = "validation pictures differ from call to call: is the training's augmentation on?"
    return [Check("val_random", "warn", 1.0, 0.0, text,
                  ["train_val_preprocessing_differ", "eval_not_deterministic"])]  # fmt: skip


def _as_they_are(items: Any) -> Any:
    return items


def check_workers(ctx: Context) -> list[Check]:
    """Random draws of several worker processes differ, where those of one process do."""
    setup = ctx.fresh()
    loader = setup.train_loader
    workers = getattr(loader, "num_workers", 0)
    if workers < 1 or ctx.deterministic_train or setup.train_data is None:
        return []
    count = 2 * max(2, workers)
    probe = torch.utils.data.DataLoader(
        setup.train_data, batch_size=1, sampler=[0] * count, num_workers=max(2, workers),
        worker_init_fn=getattr(loader, "worker_init_fn", None),
        collate_fn=_as_they_are,
    )  # fmt: skip
    draws = []
    for _ in range(2):
        draws += [to_tensor(split_batch(items[0])[0]).float().numpy().tobytes() for items in probe]
    inside = len({to_tensor(split_batch(setup.train_data[0])[0]).float().numpy().tobytes()
                  for _ in range(count)}) / count  # fmt: skip
    distinct = len(set(draws)) / len(draws)
    text = f"{distinct:.0%} of the draws of {max(2, workers)} workers differ"
    if distinct <= 0.55 and inside > 0.8 and not math.isnan(distinct):
        return [Check("workers", "fail", distinct, 0.55, text, ["worker_seeds_equal"])]
    return [Check("workers", "pass", distinct, 0.55, text)]


def _pictures_differ(ctx: Context) -> bool:
    """Whether the first two batches hold other pictures."""
    first, second = (to_tensor(split_batch(batch)[0]) for batch in ctx.batches[:2])
    return not torch.equal(first, second)
