"""Stage `prepare`: samples from a source become a packed data set with fixed splits.

In order: open the source, read and pack each sample, give it its split, judge what was found, write
meta.json, the report, and what a person should look at.
"""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from src.plumbing.stage import Stage, run_stage

if TYPE_CHECKING:
    from src.preparation.report import Report

OUT = Path("data/prepared")


def main(stage: Stage) -> None:
    from src.base.files import fresh_directory

    failed = stage.root / ".cache/prepare"
    shutil.rmtree(failed, ignore_errors=True)
    with fresh_directory(OUT) as folder:
        quality, report = pack(stage.params, folder, failed)
        quality.write(folder, report)


def pack(params: Mapping[str, Any], folder: Path, failed: Path) -> "tuple[Any, Report]":
    """Write the packed data set of `params` into `folder`; returns the kind's `Quality` and the
    report. InputError for samples that cannot be used, a sample or group in two splits, or a class
    that a split lacks, as `on_bad` and `on_leak` say; the report is then in `failed`."""
    from contextlib import ExitStack, closing

    from src.base.files import write_json
    from src.base.kinds import kind_part, kind_with
    from src.data.split import SPLITS
    from src.data.writer import SplitWriter
    from src.plumbing.terminal import Counted
    from src.preparation.classes import with_chosen_classes
    from src.preparation.groups import without_missing_groups
    from src.preparation.ledger import Ledger
    from src.preparation.report import Report
    from src.preparation.sources.base import Rejected
    from src.preparation.verdict import decide, shares_by_hash
    from src.preparation.workers import read_in_order, worker_count

    name = params["prepare.source"]
    kind = kind_with(name)
    found = kind_part(kind, "catalog").SOURCES[name.partition(":")[0]](params)
    source = without_missing_groups(with_chosen_classes(found, params))
    packer = kind_part(kind, "packing").packer(params)
    workers = 0 if source.in_memory else worker_count(params["machine.prepare_workers"])
    seed, shares = params["prepare.split_seed"], shares_by_hash(source, params)
    ledger = Ledger(source.classes, seed, shares, params["prepare.split_by"])
    report = Report(source, ledger, folder)
    quality = kind_part(kind, "quality").Quality(source.classes, packer)
    with ExitStack() as stack:
        stack.callback(report.close)
        writers = {
            split: stack.enter_context(SplitWriter(folder, split, packer.meta, source.grouped))
            for split in SPLITS
        }
        results = stack.enter_context(closing(read_in_order(source.items, packer, workers)))
        counted = Counted("prepare", source.total, kind, params["machine.progress"])
        progress = stack.enter_context(counted)
        for item, result in results:
            progress.advance()
            if isinstance(result, Rejected):
                report.reject(item, result)
                continue
            if (split := ledger.place(item, result.sha256)) is None:
                continue
            report.used += 1
            writers[split].add(result.row, item.label, item.name, result.sha256, item.group)
            quality.add(split, item.label, result)
    report.write(quality.notes())
    decide(report, params, failed)
    meta = {
        "classes": source.classes,
        **packer.meta,
        **quality.meta(),
        "counts": {split: writer.count for split, writer in writers.items()},
        "shards": {split: writer.shards for split, writer in writers.items()},
        "source": name,
    }
    write_json(folder / "meta.json", meta)
    counts = ", ".join(f"{writer.count} {split}" for split, writer in writers.items())
    print(f"prepare: {len(source.classes)} classes, {counts}, {packer}")
    report.told = [*source.remarks, *report.remarks(), *quality.remarks()]
    for remark in report.told:
        print(f"prepare: {remark}")
    return quality, report


if __name__ == "__main__":
    run_stage("prepare", main)
