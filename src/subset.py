"""Stage `subset`: a small, balanced part of the prepared data, for quick first looks.

Mean and standard deviation stay those of the full training split, so that a picture enters the
net in the same way on every rung of the ladder.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from src.plumbing import stage

if TYPE_CHECKING:
    from src.data.packed import PackedSplit

SOURCE, OUT = "data/prepared", Path("data/subset")


def main(run: stage.Stage) -> None:
    from src.base.files import fresh_directory, write_json
    from src.data.packed import PackedSplit
    from src.data.writer import SplitWriter

    wanted = {
        "train": run.params["subset.train_per_class"],
        "val": run.params["subset.val_per_class"],
    }
    counts, shards = {}, {}
    with fresh_directory(OUT) as folder:
        for split, per_class in wanted.items():
            full = PackedSplit(SOURCE, split)
            meta = full.meta
            shape = (meta["size"], meta["size"], meta["channels"])
            with SplitWriter(folder, split, shape) as writer:
                for index in balanced_choice(full, per_class, run.params["subset.seed"]):
                    label, path, sha256 = full.labels[index], full.paths[index], full.sha256[index]
                    writer.add(full.pictures([index])[0], int(label), path, sha256)
            counts[split], shards[split] = writer.count, writer.shards
        write_json(folder / "meta.json", {**meta, "counts": counts, "shards": shards})
    print("subset: " + ", ".join(f"{count} {split}" for split, count in counts.items()))


def balanced_choice(data: "PackedSplit", per_class: int, seed: int) -> list[int]:
    """Indices of `per_class` pictures of each class of a PackedSplit, in ascending order; of every
    class as many as the rarest one has, if that is fewer (a class without any does not count). The
    hash of a picture decides, so adding pictures exchanges few."""
    import numpy as np

    from src.data.split import hash_share

    counts = np.bincount(data.labels, minlength=len(data.meta["classes"]))
    take = min(per_class, int(counts[counts > 0].min()))  # val may lack a class, see prepare
    chosen: list[int] = []
    for label in range(len(counts)):
        candidates = np.flatnonzero(data.labels == label).tolist()
        candidates.sort(key=lambda index: (hash_share(seed, data.sha256[index]), index))
        chosen += candidates[:take]
    return sorted(chosen)


if __name__ == "__main__":
    stage.run("subset", main)
