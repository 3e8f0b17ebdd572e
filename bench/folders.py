"""From class folders of JPEGs to a validated net, this project beside two others.

    python -m bench.folders [--lightning FOLDER] [--timm FILE] [--epochs 1 3 10] [--model NAME]
        [--size 64] [--batch 64] [--images 6000] [--rounds 1] [--stages]

This project: `dvc repro` of all five stages in a fresh clone, from the hash of the images to
metrics with intervals on val and test. timm: its train.py (`--timm`: of a checkout) with its own
loader. Lightning (`--lightning FOLDER`: where it was installed with `uv pip install --target FOLDER
--no-deps lightning torchmetrics lightning-utilities`): bench/lightning_folders.py. Each trains the
same net on the same images at the same size and batch size with AdamW, without augmentation, on all
cores, validates after each epoch and keeps its checkpoints; the two others read with two workers.
Images are JPEGs of 300 x 200, made here: 80 % train, 10 % val, 10 % test.

One run of each program after the other, for some rounds; a process's start counts. `--stages` also
runs the stages one by one, for where the time goes.
"""

import argparse
import os
import re
import shutil
import statistics
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from bench.measured import Cost, cost_of
from src.base.imports import ROOT
from tests.pipeline import clone

CLASSES, WIDTH, HEIGHT, WORKERS = 6, 300, 200, 2
SPLITS = {"train": 0.8, "val": 0.1, "test": 0.1}
PLAIN = {
    "source": "folder",
    "path": "data/images",
    "channels": 3,
    "optimizer": "adamw",
    "lr": 0.001,
    "weight_decay": 0.05,
    "augment_crop": 0,
    "augment_flip": "false",
    "ema": "none",
    "on_fail": "report",
    "progress": "auto",
}


def write_images(folder: Path, count: int) -> None:
    """`count` JPEGs in class folders of SPLITS: blurred noise with grain, which compresses like a
    photo (some 15 kB), lighter by its class on one side."""
    draws, number = np.random.default_rng(0), 0
    ramp = np.linspace(-40, 40, WIDTH)[None, :, None] * np.ones((HEIGHT, 1, 1))
    for split, share in SPLITS.items():
        for index in range(round(count * share)):
            label = index % CLASSES
            coarse = draws.integers(0, 256, (25, 38, 3), dtype=np.uint8)
            smooth = Image.fromarray(coarse).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)
            grain = draws.integers(-12, 13, (HEIGHT, WIDTH, 1))
            slope = (ramp if label % 2 else ramp[:, ::-1]) * (label // 2)
            pixels = np.clip(np.asarray(smooth) + grain + slope, 0, 255).astype(np.uint8)
            path = folder / split / f"class {label}" / f"{number:06d}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path, quality=80)
            number += 1


class Programs:
    """The three, each in a new folder below `folder` at each run."""

    def __init__(self, folder: Path, wanted: argparse.Namespace):
        self.folder, self.wanted = folder, wanted
        self.images = folder / "images"
        self.here = {**clone.environment(), "OMP_NUM_THREADS": str(os.cpu_count())}

    def ours(self, epochs: int) -> tuple[Cost, str]:
        project = self._clone(epochs)
        return cost_of([sys.executable, "-m", "dvc", "repro", "-f"], project, self.here)

    def stages(self, epochs: int) -> list[tuple[str, Cost]]:
        project = self._clone(epochs)
        names = ("prepare", "subset", "overfit_check", "train", "evaluate")
        return [
            (name, cost_of([sys.executable, "-m", f"src.{name}"], project, self.here)[0])
            for name in names
        ]

    def _clone(self, epochs: int) -> Path:
        project = self._new("ours")
        wanted = self.wanted
        given = {"model": wanted.model, "size": wanted.size, "batch_size": wanted.batch}
        clone.new_clone(project, **PLAIN, **given, epochs=epochs, threads=os.cpu_count())
        # As a person puts them there; the copy is not of the measured.
        shutil.copytree(self.images, project / "data/images", copy_function=os.link)
        return project

    def timms(self, epochs: int) -> tuple[Cost, str]:
        wanted = self.wanted
        command = [
            sys.executable, str(wanted.timm.resolve()), "--data-dir", str(self.images),
            "--val-split", "val", "--model", wanted.model, "--num-classes", str(CLASSES),
            "--img-size", str(wanted.size), "--opt", "adamw", "--lr", "1e-3", "--weight-decay",
            "0.05", "--sched", "step", "--decay-epochs", "1000", "--warmup-epochs", "0",
            "--smoothing", "0", "--no-aug", "--crop-pct", "1", "--workers", str(WORKERS),
            "--batch-size", str(wanted.batch), "--epochs", str(epochs), "--device", "cpu",
            "--output", "output",
        ]  # fmt: skip
        return cost_of(command, self._new("timm"), self.here)

    def lightnings(self, epochs: int) -> tuple[Cost, str]:
        wanted, script = self.wanted, ROOT / "bench/lightning_folders.py"
        numbers = (wanted.size, wanted.batch, epochs, WORKERS)
        command = [sys.executable, str(script), str(self.images), wanted.model, *map(str, numbers)]
        here = {**self.here, "PYTHONPATH": str(wanted.lightning.resolve())}
        return cost_of(command, self._new("lightning"), here)

    def _new(self, name: str) -> Path:
        target = self.folder / name
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir()
        return target


ACCURACY = {  # of val, as each program prints it last
    "this project": r"val accuracy ([0-9.]+)",
    "timm's train.py": r"Acc@1:\s*[0-9.]+ \(\s*([0-9.]+)\)",
    "Lightning": r"val accuracy ([0-9.]+)",
}


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.folders", description=__doc__)
    parser.add_argument("--lightning", type=Path, metavar="FOLDER")
    parser.add_argument("--timm", type=Path, metavar="FILE")
    parser.add_argument("--epochs", type=int, nargs="+", default=[1, 3, 10])
    parser.add_argument("--model", default="resnet10t", metavar="NAME", help="of timm")
    parser.add_argument("--size", type=int, default=64, help="pixels at which it trains (64)")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--images", type=int, default=6000)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--stages", action="store_true", help="also the cost of each stage")
    wanted = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="folders-") as name:
        programs = Programs(Path(name), wanted)
        write_images(programs.images, wanted.images)
        run: dict[str, Callable[[int], tuple[Cost, str]]] = {"this project": programs.ours}
        if wanted.timm:
            run["timm's train.py"] = programs.timms
        if wanted.lightning:
            run["Lightning"] = programs.lightnings
        print(f"{wanted.images} JPEGs, {wanted.model} at {wanted.size} px, batch {wanted.batch}")
        print("| epochs | program | wall s | CPU s | MB | val accuracy | this project is faster |")
        print("|---|---|---|---|---|---|---|", flush=True)
        for epochs in wanted.epochs:
            found: dict[str, list[Cost]] = {program: [] for program in run}
            accuracy = {}
            for _ in range(wanted.rounds):
                for program, measure in run.items():
                    cost, printed = measure(epochs)
                    found[program].append(cost)
                    accuracy[program] = re.findall(ACCURACY[program], printed)[-1:] or ["?"]
            for program, costs in found.items():
                pairs = zip(found["this project"], costs, strict=True)
                ratio = statistics.median(there.seconds / here.seconds for here, there in pairs)
                wall, cpu = (
                    statistics.median(getattr(c, k) for c in costs) for k in ("seconds", "cpu")
                )
                memory = max(cost.memory for cost in costs) / 2**20
                print(
                    f"| {epochs} | {program} | {wall:.1f} | {cpu:.1f} | {memory:.0f} | "
                    f"{accuracy[program][0]} | {ratio:.2f} |",
                    flush=True,
                )
            if wanted.stages:
                for stage, cost in programs.stages(epochs):
                    print(f"| {epochs} | - {stage} | {cost.seconds:.1f} | {cost.cpu:.1f} | | | |")


if __name__ == "__main__":
    main()
