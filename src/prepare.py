"""Stage `prepare`: pictures from a source become a packed data set with fixed splits."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from src.plumbing import stage
from src.preparation.verdict import _decide, _shares

if TYPE_CHECKING:
    from src.images.quality.collected import Quality
    from src.preparation.report import Report
    from src.preparation.sources.base import Source

OUT = Path("data/prepared")


def main(run: stage.Stage) -> None:
    from src.base.files import fresh_directory
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

    from src.base.files import write_json
    from src.data.split import SPLITS
    from src.data.writer import SplitWriter
    from src.images.quality.collected import Quality
    from src.plumbing.terminal import Counted
    from src.preparation.ledger import Ledger
    from src.preparation.read import Reader, Rejected
    from src.preparation.report import Report
    from src.preparation.workers import read_in_order, worker_count

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


if __name__ == "__main__":
    stage.run("prepare", main)
