"""What `prepare` costs: memory, the gain of a second worker, and ten times as many images.

python -m bench.prepare [--images 20000] [--pairs 3] [--fashion FOLDER]

Images are JPEGs of 400 x 300 that are made here. Memory is the unique set size of the stage and
all its processes together, ten times a second. Speeds are compared in turn, so that what else
the machine does meets both.
"""

import argparse
import os
import shutil
import statistics
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from bench.measured import cost_of
from tests.conftest import copy_project, set_params


def write_jpegs(folder: Path, count: int) -> None:
    """`count` different JPEGs of 400 x 300 in ten class folders: blurred noise, which compresses
    like a photo (20 to 30 kB)."""
    for number in range(count):
        rng = np.random.default_rng(number)
        coarse = Image.fromarray(rng.integers(0, 256, (38, 50, 3), dtype=np.uint8))
        grain = rng.integers(-12, 13, (300, 400, 1))
        smooth = np.asarray(coarse.resize((400, 300), Image.Resampling.BICUBIC)).astype(np.int16)
        pixels = np.clip(smooth + grain, 0, 255).astype(np.uint8)
        path = folder / f"class {number % 10}" / f"{number:06d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path, quality=80)


def run(project: Path, **params: object) -> tuple[float, int]:
    """Seconds and the largest unique set size (bytes) of one `prepare`."""
    set_params(project, **params)
    cost, _ = cost_of([sys.executable, "-m", "src.prepare"], project)
    return cost.seconds, cost.memory


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.prepare", description=__doc__)
    parser.add_argument("--images", type=int, default=20_000, help="JPEGs (20000)")
    parser.add_argument("--pairs", type=int, default=3, help="one and two workers in turn (3)")
    parser.add_argument("--size", type=int, default=64, help="of the packed images (64)")
    parser.add_argument("--fashion", type=Path, help="folder with the files of Fashion-MNIST")
    parser.add_argument("--no-tenfold", action="store_true", help="leave the tenfold set out")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        project = copy_project(folder / "project")
        common = {"source": "folder", "size": arguments.size, "channels": 3, "progress": "off"}
        write_jpegs(folder / "images", arguments.images)
        set_params(project, path=folder / "images", **common)
        ratios, largest = [], 0
        for _ in range(arguments.pairs):
            one, memory_one = run(project, prepare_workers=1)
            two, memory_two = run(project, prepare_workers=2)
            ratios.append(one / two)
            largest = max(largest, memory_one, memory_two)
            print(
                f"{arguments.images} JPEGs: 1 worker {one:.1f} s, 2 workers {two:.1f} s, "
                f"{one / two:.2f} times as fast",
                flush=True,
            )
        print(
            f"median {statistics.median(ratios):.2f} times as fast (wanted: 1.6); "
            f"at most {largest / 2**20:.0f} MB (wanted: 700)",
            flush=True,
        )
        if not arguments.no_tenfold:
            # Other images, not links to the same: identical ones would cost less to note.
            tenth = folder / "tenth"
            write_jpegs(tenth, arguments.images // 10)
            few, _ = run(project, path=tenth, prepare_workers=2)
            shutil.rmtree(tenth)
            many, memory = run(project, path=folder / "images", prepare_workers=2)
            print(
                f"ten times as many take {many / few:.1f} times as long (wanted: at most 11), "
                f"{memory / 2**20:.0f} MB",
                flush=True,
            )
        if arguments.fashion:
            seconds, memory = run(
                project,
                source="torchvision:FashionMNIST",
                path=os.path.abspath(arguments.fashion),
                size=28,
                channels=1,
                prepare_workers=2,
            )
            print(f"Fashion-MNIST: {seconds:.1f} s, {memory / 2**20:.0f} MB (wanted: at most 700)")


if __name__ == "__main__":
    main()
