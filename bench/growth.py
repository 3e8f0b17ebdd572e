"""How cost and memory grow: with the images, and with the experiments in the store.

    python -m bench.growth [--images 1000 10000 100000] [--experiments 10 100 1000] [--million]
        [--costs FILE] [--figure FILE]

Images are JPEGs of 32 px in ten class folders, made here; the net is timm's `test_resnet`. Each
command is a process of its own: CPU seconds and the unique set size count all that it started.
Exponents are k of a + b n^k through three counts, each ten times the one before: then a, what a
command costs whatever there is, falls out of 10^k = (third - second) / (second - first). A command
whose cost rises by less than FLAT of it in all has none.

`--costs FILE` keeps what was measured, so that the counts may be measured in several runs; each
prints all that is there. `--million` adds prepare alone on 1,000,000 images.
"""

import argparse
import json
import math
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
from PIL import Image

from bench import stored_experiments
from bench.measured import Cost, cost_of
from src.base.files import write_json
from tests.pipeline import clone

CLASSES, SIZE = 10, 32
FLAT = 0.25  # least rise of a cost, of the first one, from which an exponent is told (choice)
PARAMS = {
    "source": "folder",
    "path": "data/images",
    "size": SIZE,
    "epochs": 1,
    "batch_size": 128,
    "threads": 2,
    "on_fail": "report",
    "train_per_class": 20,
}


def write_images(folder: Path, count: int) -> None:
    """`count` different JPEGs: coarse noise, lighter by its class on one side."""
    draws = np.random.default_rng(count)
    for label in range(CLASSES):
        (folder / f"class {label}").mkdir(parents=True)
    ramp = np.linspace(-60, 60, 8).astype(np.int16)[None, :, None]
    for number in range(count):
        label = number % CLASSES
        coarse = draws.integers(60, 196, (8, 8, 3), dtype=np.int16)
        coarse += np.rot90(ramp, label % 4) * (1 + label // 4) // 3
        pixels = np.clip(coarse, 0, 255).astype(np.uint8).repeat(4, axis=0).repeat(4, axis=1)
        Image.fromarray(pixels).save(folder / f"class {label}" / f"{number:07d}.jpg", quality=80)


def module(name: str, *arguments: str) -> list[str]:
    return [sys.executable, "-m", f"src.{name}", *arguments]


def dvc(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "dvc", *arguments]


Costs = dict[str, dict[str, dict[str, dict[str, float]]]]  # of what: command: count: Cost
Step = tuple[int, str, Cost]


def of_images(folder: Path, counts: Sequence[int]) -> Iterator[Step]:
    """The commands on so many images, from the class folders on."""
    for count in counts:
        project = new_project(folder / str(count), count)
        yield count, "dvc add", cost(project, dvc("add", "data/images"))
        for stage in ("prepare", "subset"):
            yield count, stage, cost(project, module(stage))
        leave_check(project)
        for stage in ("train", "evaluate"):
            yield count, stage, cost(project, module(stage))
        # As `dvc repro` ends: what lies there is hashed and cached.
        yield count, "dvc commit", cost(project, dvc("commit", "--force"))
        yield count, "dvc repro, no-op", cost(project, dvc("repro"))
        clone.commit(project, "results")
        flipped = ("exp", "run", "--name", "flipped", "-S", "evaluate.flip=true")
        clone.run(project, *dvc(*flipped))
        clone.restore(project)
        for tool in ("where flipped", "table", "compare HEAD flipped"):
            yield count, tool.partition(" ")[0], cost(project, module(*tool.split()))
        shutil.rmtree(project)


def of_experiments(folder: Path, counts: Sequence[int]) -> Iterator[Step]:
    """The tools with so many experiments and MLflow runs, on a thousand images."""
    project = new_project(folder / "project", 1000)
    for command in (dvc("add", "data/images"), module("prepare"), module("subset")):
        clone.run(project, *command)
    leave_check(project)
    for command in (module("train"), module("evaluate"), dvc("commit", "--force")):
        clone.run(project, *command)
    clone.commit(project, "results")
    before = 0
    for count in counts:
        ids = stored_experiments.add(project, range(before, count))
        before = count
        last = stored_experiments.name(count - 1)
        rate = stored_experiments.learning_rate(count - 1)
        shutil.rmtree(project / ".dvc/tmp/exps/cache", ignore_errors=True)
        for title, words in (
            ("where EXPERIMENT", f"where {last}"),
            ("where RUN ID", f"where {ids[-1]}"),
            ("table, first", "table"),
            ("table, again", "table"),
            ("compare HEAD EXPERIMENT", f"compare HEAD {last}"),
            ("compare HEAD lr=...", f"compare HEAD lr={rate}"),
        ):
            yield count, title, cost(project, module(*words.split()))
        yield count, "dvc repro, no-op", cost(project, dvc("repro"))


def of_a_million(folder: Path) -> Iterator[Step]:
    """`prepare` alone."""
    count = 1_000_000
    project = new_project(folder / str(count), count)
    yield count, "prepare", cost(project, module("prepare"))


def new_project(folder: Path, count: int) -> Path:
    """A project with so many images, in which nothing has run."""
    clone.new_clone(folder, **PARAMS)
    write_images(folder / "data/images", count)
    return folder


def leave_check(project: Path) -> None:
    """What overfit-check leaves: it looks at the subset alone, so its cost does not grow."""
    folder = project / "results/overfit_check"
    folder.mkdir(parents=True)
    for name in ("report.json", "batch.png", "curves.png"):
        (folder / name).write_text("{}")
    (folder / "verdict.json").write_text('{"proceed": true}')


def cost(project: Path, command: Sequence[str]) -> Cost:
    return cost_of(command, project, clone.environment())[0]


def exponent(costs: Sequence[float]) -> float | None:
    """k of a + b n^k through the costs at three counts, each ten times the one before; None where
    they hardly rise."""
    if len(costs) != 3:
        return None
    first, second, third = costs
    if third - first < FLAT * first or third <= second:
        return None
    if second - first <= 0.01 * third:  # nothing of it can be told at the second
        return math.log10(third / first)
    return math.log10((third - second) / (second - first))


def table(found: Costs) -> Iterator[str]:
    """What was measured, as markdown."""
    for kind, commands in found.items():
        counts = sorted({int(n) for by_count in commands.values() for n in by_count})
        shown = " | ".join(f"{n:,} {kind}" for n in counts)
        yield f"| CPU s, wall s, MB | {shown} | exponent of CPU |"
        yield "|---|" + "---|" * (len(counts) + 1)
        for command, by_count in commands.items():
            cells = [
                f"{cost['cpu']:.1f}, {cost['seconds']:.1f}, {cost['memory'] / 2**20:.0f}"
                if (cost := by_count.get(str(n)))
                else "-"
                for n in counts
            ]
            k = exponent([by_count[str(n)]["cpu"] for n in counts[:3] if str(n) in by_count])
            told = "flat" if k is None else f"{k:.2f}"
            yield f"| {command} | " + " | ".join(cells) + f" | {told} |"
        yield ""


def draw(found: Costs, path: Path) -> None:
    """CPU seconds and memory over the counts, both logarithmic."""
    from matplotlib.figure import Figure

    from src.base.figure import same_for_everyone

    with same_for_everyone():
        figure = Figure(figsize=(11, 3.6 * len(found)), layout="constrained")
        axes = figure.subplots(len(found), 2, squeeze=False)
        for row, (kind, commands) in zip(axes, found.items(), strict=True):
            for axis, key, unit, label in zip(
                row, ("cpu", "memory"), (1, 2**20), ("CPU seconds", "MB, unique set"), strict=True
            ):
                for command, by_count in commands.items():
                    counts = sorted(map(int, by_count))
                    values = [by_count[str(n)][key] / unit for n in counts]
                    axis.loglog(counts, values, marker="o", markersize=3, label=command)
                axis.set(xlabel=kind, ylabel=label)
                for side in (axis.xaxis, axis.yaxis):
                    side.set_major_formatter("{x:,g}")
                    side.set_minor_formatter("")
                axis.grid(alpha=0.3)
            row[1].legend(fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
        figure.savefig(path, dpi=50)


def measure(kind: str, steps: Iterable[Step], found: Costs, kept: Path | None) -> None:
    for count, command, cost in steps:
        found.setdefault(kind, {}).setdefault(command, {})[str(count)] = asdict(cost)
        print(
            f"{count} {kind}: {command}: {cost.cpu:.2f} s CPU, {cost.seconds:.2f} s, "
            f"{cost.memory / 2**20:.0f} MB",
            file=sys.stderr,
            flush=True,
        )
        if kept:
            write_json(kept, found)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.growth", description=__doc__)
    parser.add_argument("--images", type=int, nargs="*", default=[1000, 10_000, 100_000])
    parser.add_argument("--experiments", type=int, nargs="*", default=[10, 100, 1000])
    parser.add_argument("--million", action="store_true", help="prepare of 1,000,000 images, too")
    parser.add_argument("--costs", type=Path, help="JSON in which what was measured is kept")
    parser.add_argument("--figure", type=Path, help="PNG to draw")
    wanted = parser.parse_args()
    kept: Path | None = wanted.costs
    found: Costs = json.loads(kept.read_text()) if kept and kept.exists() else {}
    with tempfile.TemporaryDirectory(prefix="growth-") as name:
        folder = Path(name)
        measure("images", of_images(folder, wanted.images), found, kept)
        if wanted.experiments:
            measure("experiments", of_experiments(folder, wanted.experiments), found, kept)
        if wanted.million:
            measure("images", of_a_million(folder), found, kept)
    print("\n".join(table(found)))
    if wanted.figure:
        draw(found, wanted.figure)


if __name__ == "__main__":
    main()
