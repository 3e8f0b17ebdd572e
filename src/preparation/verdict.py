"""Whether the samples may be used as they are, and what to change if not."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from src.base.words import either
from src.data.split import SPLITS, split_of
from src.plumbing.errors import InputError
from src.preparation.report import Report
from src.preparation.shares import closest
from src.preparation.sources.base import Source
from src.preparation.targets import whole_numbers

SEEDS_TRIED = 200
SAMPLES_TRIED = 200  # per class: a seed that gives these every split does for all (choice)


def shares_by_hash(source: Source, params: Mapping[str, Any]) -> tuple[float, float]:
    """The shares of val and test that go there by hash: none where the source gives the split."""
    val_share, test_share = params["prepare.val_share"], params["prepare.test_share"]
    return (0 if "val" in source.given else val_share, 0 if "test" in source.given else test_share)


def decide(report: Report, params: Mapping[str, Any], failed: Path) -> None:
    """InputError when the samples must not be used; `failed`: where the report is kept then."""
    if wrong := _first_wrong(report, params, failed):
        report.copy_to(failed)
        raise InputError(f"prepare: {wrong}")


def _first_wrong(report: Report, params: Mapping[str, Any], failed: Path) -> str | None:
    skip, drop = params["prepare.on_bad"] == "skip", params["prepare.on_leak"] == "drop"
    ledger = report.ledger
    if report.rejected and not skip:
        return report.first_rejected(failed)
    if ledger.leaks.count and not report.source.published and not drop:
        return report.first_leak(failed)
    for split, names in ledger.missing():
        # With `skip` only what nothing can be learnt from or measured on: train without a class, or
        # an empty split.
        if not skip or split == "train" or not ledger.per_class[split].total():
            shown = ", ".join(map(repr, names[:3])) + (" ..." if len(names) > 3 else "")
            return f"no sample of class {shown} in split {split}: {_remedy(report, params, names)}"
    return None


def _remedy(report: Report, params: Mapping[str, Any], names: list[str]) -> str:
    """What to change so that each class has a sample in each split, of which one lacks `names`."""
    source, ledger = report.source, report.ledger
    fixed = source.given - {"train"}
    there = {(label, split) for split in fixed for label in ledger.per_class[split]}
    has_all = len(there) == len(fixed) * len(source.classes)
    best = closest(ledger) if ledger.has_groups and has_all else None
    if best and not best[1].lacking:
        seed, found = best
        return (
            f"set prepare.split_seed={seed}, which gives every split every class and comes closest "
            f"to the shares ({'/'.join(found.splits)} {found.shown()})"
        )
    hashed = list(ledger.hashed(SAMPLES_TRIED))
    shares = shares_by_hash(source, params)
    for seed in range(SEEDS_TRIED if len(fixed) < 2 else 0):
        seen = there | {(label, split_of(content, seed, *shares)) for label, content in hashed}
        if len(seen) == len(source.classes) * len(SPLITS):
            return f"set prepare.split_seed={seed}, which gives every split every class"
    counts = Counter(source.classes[label] for label, _ in hashed)
    told = _what_to_add(report, counts, len(SPLITS) - len(fixed), names)
    also = [*source.remarks]
    if report.rejected:
        reasons = ", ".join(why for why, _ in report.reasons.most_common(2))
        also.append(f"{report.unusable()}: {reasons}")
    return told + (f" ({'; '.join(also)})" if also else "")


def _what_to_add(report: Report, counts: Counter[str], parts: int, names: list[str]) -> str:
    """What the data need where no seed helps: a cause that all classes share, or more of some, such
    as of `names`. `counts`: what a hash can part of each class, into so many `parts`."""
    samples = report.samples_of_classes()
    if shared := report.large_group() or whole_numbers(samples):
        return shared
    few = [name for name in samples if counts[name] < parts]
    # A group goes to one split, however many samples it has.
    where = " in more groups" if report.ledger.has_groups else ""
    what = f"it{where}"
    if few:
        # The class that lacks a sample under this seed need not be the one that none can help.
        among = [name for name in few if name in names] or few
        name = min(among, key=lambda name: counts[name])
        there_are = f"there {either(counts[name], 'is', 'are')} {counts[name]} for {parts} splits"
        if not where and parts == len(SPLITS) and counts[name] < samples[name]:
            there_are += f" without the copies among its {samples[name]}"
        what = f"{name!r}{where}, of which {there_are}"
    can_do_without = len(samples) - len(few or names) >= 2
    return f"add samples of {what}" + (
        ", or leave the class out (prepare.leave_out)" if can_do_without else ""
    )
