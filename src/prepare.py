"""Stage `prepare`: pictures from a source become a packed data set with fixed splits."""

import shutil
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from src import stage
from src.errors import InputError

if TYPE_CHECKING:
    from src.preparation.ledger import Ledger
    from src.preparation.quality import Quality
    from src.preparation.report import Report
    from src.preparation.sources.base import Source

OUT = Path("data/prepared")
SEEDS_TRIED = 200
PICTURES_TRIED = 200  # per class: a seed that gives these every split does for all (choice)


def main(run: stage.Stage) -> None:
    from src.files import fresh_directory
    from src.preparation.sources.catalog import open_source

    failed = run.root / ".cache/prepare"
    shutil.rmtree(failed, ignore_errors=True)
    source = open_source(run.params)
    with fresh_directory(OUT) as folder:
        quality, report = pack(source, run.params, folder, failed)
        quality.write(folder, report)


def pack(
    source: "Source", params: Mapping[str, Any], folder: Path, failed: Path
) -> "tuple[Quality, Report]":
    """Write the packed data set of `source` into `folder`; returns what was counted on the way.
    InputError for pictures that cannot be used, a picture or group in two splits, or a class
    without a picture in a split, as `on_bad` and `on_leak` say; the report is then in the folder
    `failed`."""
    from contextlib import ExitStack, closing

    from src.files import write_json
    from src.packing.split import SPLITS
    from src.packing.writer import SplitWriter
    from src.preparation.ledger import Ledger
    from src.preparation.quality import Quality
    from src.preparation.read import Reader, Rejected
    from src.preparation.report import Report
    from src.preparation.workers import read_in_order, worker_count
    from src.terminal import Counted

    keys = ("size", "channels", "fit", "interpolation", "crop_ratio")
    reader = Reader(**{key: params[f"prepare.{key}"] for key in keys})
    workers = 0 if source.in_memory else worker_count(params["machine.prepare_workers"])
    shape = (reader.size, reader.size, reader.channels)
    ledger = Ledger(source.classes, params["prepare.split_seed"], _shares(source, params))
    report = Report(source, ledger, reader.channels, folder)
    quality = Quality(source.classes, reader.size, reader.channels)
    with ExitStack() as stack:
        stack.callback(report.close)
        writers = {
            split: stack.enter_context(SplitWriter(folder, split, shape)) for split in SPLITS
        }
        results = stack.enter_context(closing(read_in_order(source.items, reader, workers)))
        progress = Counted("prepare", source.total, params["machine.progress"])
        stack.enter_context(progress)
        for item, result in results:
            progress.advance()
            if isinstance(result, Rejected):
                report.reject(item, result)
                continue
            split = ledger.place(item, result.sha256)
            if split is None:
                continue
            report.add(result)
            writers[split].add(result.pixels, item.label, item.name, result.sha256)
            quality.add(split, item.label, result)
    report.write()
    _decide(report, source, ledger, params, failed)
    mean, std = quality.splits["train"].statistics.mean_and_std()
    meta = {
        "classes": source.classes,
        **{key: params[f"prepare.{key}"] for key in ("size", "channels", "fit")},
        **{key: params[f"prepare.{key}"] for key in ("crop_ratio", "interpolation")},
        "mean": mean,
        "std": std,
        "counts": {split: writer.count for split, writer in writers.items()},
        "shards": {split: writer.shards for split, writer in writers.items()},
        "source": params["prepare.source"],
    }
    write_json(folder / "meta.json", meta)
    counts = ", ".join(f"{count} {split}" for split, count in meta["counts"].items())
    print(
        f"prepare: {len(source.classes)} classes, {counts}, {reader.size} px, "
        f"{reader.channels} channel(s)"
    )
    for remark in [*source.remarks, *report.remarks()]:
        print(f"prepare: {remark}")
    return quality, report


def _shares(source: "Source", params: Mapping[str, Any]) -> tuple[float, float]:
    """The shares of val and test that go there by hash: none where the source gives the split."""
    val_share, test_share = params["prepare.val_share"], params["prepare.test_share"]
    return (0 if "val" in source.given else val_share, 0 if "test" in source.given else test_share)


def _decide(
    report: "Report",
    source: "Source",
    ledger: "Ledger",
    params: Mapping[str, Any],
    failed: Path,
) -> None:
    """InputError when the pictures must not be used as they are."""
    skip, drop = params["prepare.on_bad"] == "skip", params["prepare.on_leak"] == "drop"
    wrong = None
    if report.rejected and not skip:
        wrong = report.first_rejected(failed)
    elif ledger.leaks.count and not source.published and not drop:
        wrong = report.first_leak(failed)
    elif missing := _missing(ledger, skip):
        split, names = missing
        shown = ", ".join(names[:3]) + (" ..." if len(names) > 3 else "")
        wrong = f"no picture of class {shown} in split {split}: " + _remedy(
            source, ledger, params, report
        )
    if wrong:
        report.copy_to(failed)
        raise InputError(f"prepare: {wrong}")


def _missing(ledger: "Ledger", skip: bool) -> tuple[str, list[str]] | None:
    """A split without pictures of some classes, and these. With `skip` only a split that nothing
    can be learnt from or measured on counts: train without a class, or an empty one."""
    for split, counts in ledger.per_class.items():
        names = [name for label, name in enumerate(ledger.classes) if not counts[label]]
        if names and (not skip or split == "train" or not counts.total()):
            return split, names
    return None


def _remedy(source: "Source", ledger: "Ledger", params: Mapping[str, Any], report: "Report") -> str:
    """What to change so that each class has a picture in each split."""
    from src.packing.split import SPLITS, split_of

    fixed = source.given - {"train"}
    there = {(label, split) for split in fixed for label in ledger.per_class[split]}
    hashed = list(ledger.hashed(PICTURES_TRIED))
    shares = _shares(source, params)
    for seed in range(SEEDS_TRIED if len(fixed) < 2 else 0):
        seen = there | {(label, split_of(content, seed, *shares)) for label, content in hashed}
        if len(seen) == len(source.classes) * len(SPLITS):
            return f"set prepare.split_seed={seed}, which gives every split every class"
    also = [*source.remarks]
    if report.rejected:
        also.append(f"{report.rejected} pictures cannot be used")
    # The class that lacks a picture under this seed need not be the one that none can help.
    parts, counts = len(SPLITS) - len(fixed), Counter(label for label, _ in hashed)
    few = {source.classes[label]: n for label, n in counts.items() if n < parts}
    name, count = min(few.items(), key=lambda item: item[1], default=("", 0))
    # A group goes to one split, however many pictures it has.
    where = " in more groups" if any(kept.startswith("group ") for _, kept in hashed) else ""
    what = f"it{where}"
    if few:
        what = f"{name}{where}, of which there are {count} for {parts} splits"
    return f"add pictures of {what}, or remove the class" + (
        f" ({'; '.join(also)})" if also else ""
    )


if __name__ == "__main__":
    stage.run("prepare", main)
