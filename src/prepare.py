"""Stage `prepare`: pictures from a source become a packed data set with fixed splits."""

import hashlib
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from src import stage
from src.errors import InputError

OUT = Path("data/prepared")
SEEDS_TRIED = 200


def main(run: stage.Stage) -> None:
    from src.data.sources import open_source
    from src.files import fresh_directory

    source = open_source(run.params)
    with fresh_directory(OUT) as folder:
        pack(source, run.params, folder)


def pack(source: Any, params: Mapping[str, Any], folder: Path) -> None:
    """Write the packed data set of `source` into `folder`; InputError when a class has no picture
    in a split, or a picture is in two given ones."""
    from contextlib import ExitStack

    from PIL import ImageOps

    from src.data.fit import fit_picture
    from src.data.pack import PixelStatistics, SplitWriter
    from src.data.quality import Quality
    from src.data.split import SPLITS, split_of
    from src.files import write_json

    size, channels, fit = (params[f"prepare.{key}"] for key in ("size", "channels", "fit"))
    interpolation, crop_ratio = params["prepare.interpolation"], params["prepare.crop_ratio"]
    seed, shares = params["prepare.split_seed"], _shares(source, params)
    contents: Counter[str] = Counter()
    split_of_content: dict[str, str] = {}
    left_out = 0
    statistics, quality = PixelStatistics(channels), Quality(source.classes, channels)
    with ExitStack() as stack:
        writers = {
            split: stack.enter_context(SplitWriter(folder, split, (size, size, channels)))
            for split in SPLITS
        }
        for item in source.items:
            content, picture = item.read()
            sha256 = hashlib.sha256(content).hexdigest()
            split = item.split or split_of(sha256, seed, *shares)
            if split_of_content.setdefault(sha256, split) != split:
                if source.published:
                    left_out += 1
                    continue
                raise InputError(
                    f"prepare: {item.name} of split {split} is the same picture as one of split "
                    f"{split_of_content[sha256]}: a net must not be tested on what it learnt; "
                    "remove one of them"
                )
            pixels = fit_picture(picture, size, channels, fit, item.name, interpolation, crop_ratio)
            writers[split].add(pixels, item.label, item.name, sha256)
            width, height = ImageOps.exif_transpose(picture).size
            quality.add(split, item.label, width, height, pixels)
            contents[sha256] += 1
            if split == "train":
                statistics.add(pixels)
    per_class = {
        split: _per_class(writer.rows, source.classes) for split, writer in writers.items()
    }
    _require_every_class(per_class, source, writers, params)
    mean, std = statistics.mean_and_std()
    meta = {
        "classes": source.classes,
        "size": size,
        "channels": channels,
        "fit": fit,
        "crop_ratio": crop_ratio,
        "interpolation": interpolation,
        "mean": mean,
        "std": std,
        "counts": {split: len(writer.rows) for split, writer in writers.items()},
        "shards": {split: writer.shards for split, writer in writers.items()},
        "source": params["prepare.source"],
    }
    write_json(folder / "meta.json", meta)
    report = {
        "per_class": per_class,
        "identical_pictures": sum(count - 1 for count in contents.values()),
        **({"left_out_as_in_a_given_split": left_out} if source.published else {}),
        **source.notes,
    }
    write_json(folder / "report.json", report)
    files = source.notes.get("files_left_out", 0)
    rejects = {"its content is in a published split": left_out, "by its ending no picture": files}
    quality.write(folder, {reason: count for reason, count in rejects.items() if count})
    counts = ", ".join(f"{count} {split}" for split, count in meta["counts"].items())
    print(f"prepare: {len(source.classes)} classes, {counts}, {size} px, {channels} channel(s)")
    if left_out:
        print(f"prepare: {left_out} pictures were left out: a published split has the same ones")
    if files:
        print(f"prepare: {files} files were left out, by their ending they are no pictures")


def _shares(source: Any, params: Mapping[str, Any]) -> tuple[float, float]:
    """The shares of val and test that go there by hash: none where the source gives the split."""
    return (
        0 if "val" in source.given else params["prepare.val_share"],
        0 if "test" in source.given else params["prepare.test_share"],
    )


def _per_class(rows: list[tuple[int, int, str, str]], classes: list[str]) -> dict[str, int]:
    counts = Counter(label for _, label, _, _ in rows)
    return {name: counts[label] for label, name in enumerate(classes)}


def _require_every_class(
    per_class: dict[str, dict[str, int]], source: Any, writers: Any, params: Mapping[str, Any]
) -> None:
    for split, counts in per_class.items():
        missing = [name for name, count in counts.items() if count == 0]
        if missing:
            shown = ", ".join(missing[:3]) + (" ..." if len(missing) > 3 else "")
            raise InputError(
                f"prepare: no picture of class {shown} in split {split}: "
                + _remedy(source, writers, params)
            )


def _remedy(source: Any, writers: Any, params: Mapping[str, Any]) -> str:
    """What to change so that each class has a picture in each split."""
    from src.data.split import SPLITS, split_of

    fixed = source.given - {"train"}
    rows = [(row[1], row[3]) for split in set(SPLITS) - fixed for row in writers[split].rows]
    there = {(row[1], split) for split in fixed for row in writers[split].rows}
    shares = _shares(source, params)
    for seed in range(SEEDS_TRIED if len(fixed) < 2 else 0):
        seen = there | {(label, split_of(sha256, seed, *shares)) for label, sha256 in rows}
        if len(seen) == len(source.classes) * len(SPLITS):
            return f"set prepare.split_seed={seed}, which gives every split every class"
    left_out = source.notes.get("files_left_out", 0)
    also = f" ({left_out} files were left out, by their ending no pictures)" if left_out else ""
    return "add pictures of it, or remove the class" + also


if __name__ == "__main__":
    stage.run("prepare", main)
