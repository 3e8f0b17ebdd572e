"""All figures of a GPU in one run of six minutes: `python -m bench.gpu [--cifar FOLDER]`.

For four nets and sizes, in turn: a bare loop, the loop as it is and by CUDA graphs, and the steps
on one batch that stays on the GPU. Then the loop against Lightning and timm's train.py, where
`--lightning` and `--timm` say where they are (see bench.frameworks), and the recipe cifar10_fast,
where `--cifar` names a folder with cifar-10-batches-py or with class folders below train and test.
What the time no longer suffices for is named. `--tiny` runs through on a CPU.
"""

import argparse
import gc
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch

from bench.feeding import synthetic
from bench.loop import PLAIN, bare_epochs, images_in, our_epochs, run_epochs, training_for
from src.base.imports import ROOT
from src.data.batches import steps_per_epoch
from src.data.readers import Reading
from src.plumbing import overrides, params
from src.recipe import read

STAGES = ("prepare", "subset", "overfit_check", "train", "evaluate")


class Net(NamedTuple):
    name: str
    size: int  # side of the images in pixels
    batch: int
    images: int
    precision: str


# The default one, one of CIFAR's size, a large one, a transformer.
NETS = [
    Net("default", 32, 32, 4096, "fp32"),
    Net("resnet18", 64, 512, 8192, "bf16"),
    Net("resnet50", 224, 64, 1024, "bf16"),
    Net("vit_small_patch16_224", 224, 64, 1024, "bf16"),
]
TINY = [Net("test_resnet", 16, 8, 24, "fp32"), Net("test_vit", 32, 8, 24, "fp32")]


def compare(net: Net, given: dict[str, Any], folder: Path, rounds: int) -> None:
    """Print images per second of each way to do the same steps, and their ratios."""
    given = {
        **given,
        "batch_size": net.batch,
        "epochs": 1,
        "precision": net.precision,
        "channels_last": net.precision != "fp32",
    }
    if net.name != "default":
        given["model"] = net.name
    plain = {**given, **PLAIN}
    data = images_in(folder, net.images, net.size)
    ways: dict[str, Callable[[], None]] = {
        "bare": bare_epochs(data, None, plain),
        "loop": our_epochs(data, None, {**plain, "machine.cuda_graph": "off"}),
        "loop by graphs": our_epochs(data, None, {**plain, "machine.cuda_graph": "auto"}),
        "one batch": synthetic(data, given),
        "read and augmented": epoch_of(data, given, "resident"),
        "read by a thread": epoch_of(data, given, "mapped"),
    }
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for number in range(rounds + 1):
        for way, epoch in ways.items():
            start = time.perf_counter()
            epoch()
            if number:  # the first round warms up, and captures
                seconds[way].append(time.perf_counter() - start)
    steps = steps_per_epoch(len(data), net.batch)
    about = f"{net.size} px, batches of {net.batch}, {net.precision}, {steps} steps an epoch"
    print(f"{given['model']}, {about}")
    for way, found in seconds.items():
        base = "one batch" if "read" in way else "bare"
        shares = sorted(there / here for here, there in zip(found, seconds[base], strict=True))
        more = statistics.median(found) - statistics.median(seconds["bare"])
        print(
            f"  {way:20}{steps * net.batch / statistics.median(found):9.0f} images/s, "
            f"{statistics.median(shares):.3f} of {base} ({shares[0]:.3f} to {shares[-1]:.3f}), "
            f"{more / steps * 1e3:+.3f} ms a step",
            flush=True,
        )


def epoch_of(data: Any, given: dict[str, Any], mode: str) -> Callable[[], None]:
    training = training_for(data, given, Reading(mode))
    return lambda: run_epochs(training)


def against_others(wanted: argparse.Namespace, limit: float) -> None:
    """bench.frameworks with what is there of the others."""
    others = [("--lightning", wanted.lightning), ("--timm", wanted.timm)]
    words = [str(word) for pair in others if pair[1] for word in pair]
    command = [sys.executable, "-m", "bench.frameworks", "--rounds", "1" if wanted.tiny else "3"]
    run(command + words + ["--device", "cpu" if wanted.tiny else "cuda"], ROOT, limit)


def cifar(folder: Path, seeds: int, end: float, given: list[str]) -> None:
    """The recipe in a project of its own, whose data are made once; for each seed the test accuracy
    and seconds, as far as the time until `end` suffices."""
    at = [f"prepare.path={folder.resolve()}", "machine.tracking=false"]
    if not (folder / "cifar-10-batches-py").is_dir():
        at.append("prepare.source=folder")
    values = overrides.merge(read("cifar10_fast"), at + given)
    with tempfile.TemporaryDirectory() as name:
        project = Path(name) / "project"
        for part in ("src", "requirements", "data/builtin", "data/weights"):
            keep = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT / part, project / part, ignore=keep)
        for part in ("dvc.yaml", "params.yaml"):
            shutil.copy(ROOT / part, project / part)
        for seed in range(seeds):
            write_params(project / "params.yaml", {**values, "seed": str(seed)})
            spent = []
            for stage in STAGES if seed == 0 else ("train", "evaluate"):
                start = time.monotonic()
                if not run([sys.executable, "-m", f"src.{stage}"], project, end - start, True):
                    return
                spent.append(f"{stage} {time.monotonic() - start:.1f} s")
            found = json.loads((project / "results/evaluate/metrics.json").read_text())["test"]
            accuracy = f"test accuracy {found['accuracy']:.4f} of {found['n']}"
            print(f"cifar10_fast, seed {seed}: {accuracy}; {', '.join(spent)}", flush=True)


def write_params(path: Path, values: dict[str, str]) -> None:
    """Other values in a params.yaml, as `dvc exp run -S` writes them."""
    import yaml

    tree = yaml.load(path.read_text(), yaml.BaseLoader)  # all texts, as they stand there
    for key, value in values.items():
        *section, name = key.split(".")
        (tree[section[0]] if section else tree)[name] = value
    path.write_text(as_yaml(tree))


def as_yaml(tree: dict[str, Any], indent: str = "") -> str:
    lines = []
    for key, value in tree.items():
        if isinstance(value, dict):
            lines.append(f"{indent}{key}:\n{as_yaml(value, indent + '  ')}")
        else:
            text = f"[{', '.join(value)}]" if isinstance(value, list) else value
            lines.append(f"{indent}{key}: {text}\n")
    return "".join(lines)


def run(command: list[str], folder: Path, limit: float, quiet: bool = False) -> bool:
    """Whether a command ended well within `limit` seconds; what it printed, if not `quiet`."""
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    what = " ".join(command[1:4])
    try:
        ended = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, timeout=limit
        )
    except (subprocess.TimeoutExpired, ValueError):  # of a limit below 0
        print(f"{what}: no time left", flush=True)
        return False
    if ended.returncode:
        print(f"{what} failed: {(ended.stdout + ended.stderr)[-600:]}", flush=True)
    elif not quiet:
        print(ended.stdout, end="", flush=True)
    return not ended.returncode


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.gpu", description=__doc__)
    parser.add_argument("--cifar", type=Path, metavar="FOLDER")
    parser.add_argument("--lightning", type=Path, metavar="FOLDER")
    parser.add_argument("--timm", type=Path, metavar="FILE")
    parser.add_argument("--seeds", type=int, default=5, help="of the recipe, as time allows")
    parser.add_argument("--minutes", type=float, default=6)
    parser.add_argument("--tiny", action="store_true")
    wanted = parser.parse_args()
    end = time.monotonic() + wanted.minutes * 60
    given: dict[str, Any] = params.load()
    given["machine.device"] = "cpu" if wanted.tiny else "cuda"
    for number, net in enumerate(TINY if wanted.tiny else NETS):
        # The rest of the time is for what comes after them.
        if end - time.monotonic() < wanted.minutes * 60 * 0.45:
            print(f"{net.name}: no time left", flush=True)
            continue
        with tempfile.TemporaryDirectory() as folder:
            compare(net, given, Path(folder) / str(number), 1 if wanted.tiny else 5)
        gc.collect()
        if not wanted.tiny:
            torch.cuda.empty_cache()
    if wanted.lightning or wanted.timm:
        against_others(wanted, min(90, end - time.monotonic()))
    for_a_cpu = [
        "precision=fp32",
        "epochs=6",
        "batch_size=16",
        "prepare.size=32",
        "prepare.val_share=0.2",
    ]
    if wanted.cifar:
        cifar(wanted.cifar, wanted.seeds, end, for_a_cpu if wanted.tiny else [])


if __name__ == "__main__":
    main()
