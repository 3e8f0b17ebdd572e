"""Stage `subset`: a small, balanced part of the prepared data, for quick first looks.

Mean and standard deviation stay those of the full training split: samples enter the net alike.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from src.plumbing.stage import Stage, run_stage

if TYPE_CHECKING:
    from src.data.packed import PackedSplit

SOURCE, OUT = "data/prepared", Path("data/subset")


def main(stage: Stage) -> None:
    from src.base.files import fresh_directory, write_json
    from src.data.packed import PackedSplit
    from src.data.writer import SplitWriter

    wanted = {
        "train": stage.params["subset.train_per_class"],
        "val": stage.params["subset.val_per_class"],
    }
    counts, shards = {}, {}
    with fresh_directory(OUT) as folder:
        for split, per_class in wanted.items():
            full = PackedSplit(SOURCE, split)
            with SplitWriter(folder, split, full.meta) as writer:
                for index in balanced_choice(full, per_class, stage.params["subset.seed"]):
                    label, path, sha256 = full.labels[index], full.paths[index], full.sha256[index]
                    writer.add(full.rows([index])[0], int(label), path, sha256)
            counts[split], shards[split] = writer.count, writer.shards
        write_json(folder / "meta.json", {**full.meta, "counts": counts, "shards": shards})
    print("subset: " + ", ".join(f"{count} {split}" for split, count in counts.items()))


def balanced_choice(data: "PackedSplit", per_class: int, seed: int) -> list[int]:
    """Indices of `per_class` samples of each class that has any, or as many as the rarest has, in
    ascending order. The hash of a sample decides, so adding samples exchanges few."""
    import numpy as np

    from src.data.split import hash_share

    counts = np.bincount(data.labels, minlength=len(data.meta["classes"]))
    take = min(per_class, int(counts[counts > 0].min()))  # val may lack a class, see prepare
    shares = np.fromiter((hash_share(seed, sha256) for sha256 in data.sha256), dtype=np.float64)
    order = np.lexsort((shares, data.labels))  # class after class, in each by share, then by index
    place = np.arange(len(order)) - (counts.cumsum() - counts)[data.labels[order]]
    found: list[int] = np.sort(order[place < take]).tolist()
    return found


if __name__ == "__main__":
    run_stage("subset", main)
