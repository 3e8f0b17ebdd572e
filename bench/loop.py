"""What the loop costs: `python -m bench.loop [--pairs 7]` prints two ratios against a bare loop.
`--model`, `--size` and `--batch` choose another net than that of params.yaml.

Bare: the same net, optimizer and batches from memory, a dozen lines of PyTorch. Both run in one
process, one after the other, again and again, so that a busy machine is busy for both; the median
of the pairs counts.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from src.base.files import write_json
from src.base.randomness import sample_order
from src.data.batches import steps_per_epoch
from src.data.packed import PackedSplit
from src.data.readers import MAPPED, Reading
from src.data.writer import SplitWriter
from src.model.device import prepare_device
from src.plumbing import params
from src.plumbing.terminal import Progress
from src.training.checkpoint import Checkpoint
from src.training.loop import Training

CLASSES = 10
# What a bare loop has none of.
PLAIN = {
    "augment_crop": 0,
    "augment_flip": False,
    "accumulate": 1,
    "ema": "none",
    "freeze_epochs": 0,
    "warmup": 0,
}


def images_in(folder: Path, count: int, size: int) -> PackedSplit:
    """A packed split of `count` random images of 3 x `size` x `size`."""
    folder.mkdir(exist_ok=True)
    draws = np.random.default_rng(0)
    with SplitWriter(folder, "train", {"size": size, "channels": 3}) as writer:
        for index in range(count):
            image = draws.integers(0, 256, (size, size, 3), dtype=np.uint8)
            writer.add(image, index % CLASSES, f"{index}", f"{index:064x}")
    meta = {
        "classes": [str(label) for label in range(CLASSES)],
        "size": size,
        "channels": 3,
        "mean": [0.5] * 3,
        "std": [0.3] * 3,
        "shards": {"train": writer.shards},
    }
    write_json(folder / "meta.json", meta)
    return PackedSplit(folder, "train")


def training_for(
    data: PackedSplit,
    given: dict[str, Any],
    reading: Reading = MAPPED,
    net: nn.Module | None = None,
) -> Training:
    """The project's training on `data`, without the validation at the end of each epoch; of `net`
    where there is one."""
    device = prepare_device(given["machine.device"], given["threads"])
    training = Training(given, data, data, device, reading)
    training._finish_epoch = lambda: next_epoch(training)  # type: ignore[method-assign]
    if net is not None:
        learner = training.learner
        learner.model = learner.forward = net.to(device)
        learner.optimizer = torch.optim.AdamW(learner.model.parameters(), lr=1e-3)
    return training


def next_epoch(training: Training) -> dict[str, float]:
    training.epoch, training.step_in_epoch = training.epoch + 1, 0
    training.sums.zero_()
    return {}


def run_epochs(
    training: Training, on_epoch: Callable[[dict[str, float]], None] = lambda row: None
) -> None:
    """All epochs, from the first one on, without a checkpoint."""
    training.epoch, plan = 0, training.plan
    checkpoint = Checkpoint(Path("unused"), "0", 1e9, {})
    checkpoint.save = lambda state: None  # type: ignore[method-assign]
    progress = Progress(plan.epochs, training.steps_per_epoch, plan.step_size, "images", 0, "off")
    training.run(checkpoint, progress, on_epoch)
    wait(training.learner.device)


def our_epochs(
    data: PackedSplit, net: nn.Module | None, given: dict[str, Any]
) -> Callable[[], None]:
    """The project's loop over `epochs`."""
    training = training_for(data, given, Reading.from_params(given), net)
    return lambda: run_epochs(training)


def bare_epochs(
    data: PackedSplit, net: nn.Module | None, given: dict[str, Any]
) -> Callable[[], None]:
    """The same in a dozen lines of PyTorch."""
    learner, size = training_for(data, given, net=net).learner, given["batch_size"]
    model, optimizer, device = learner.model, learner.optimizer, learner.device
    images = torch.from_numpy(data.rows(np.arange(len(data)))).to(device)
    labels = torch.from_numpy(data.labels).to(device)

    def run() -> None:
        model.train()
        total = torch.zeros((), device=device)
        for epoch in range(given["epochs"]):
            order = sample_order(0, epoch, len(data)).to(device)
            for part in order.split(size):
                with learner.autocast():
                    logits = model(learner.enter(images[part]))
                loss = functional.cross_entropy(logits, labels[part])
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                optimizer.step()
                total += loss.detach()
        wait(device)

    return run


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def pairs_of(
    make_ours: Callable[[], Callable[[], None]],
    make_bare: Callable[[], Callable[[], None]],
    count: int,
    clock: Callable[[], float],
) -> list[tuple[float, float]]:
    """Seconds for (ours, bare) by `clock`, each after one run to warm up. Each pair has nets of its
    own: where their memory happens to lie makes 10 % of difference."""
    found = []
    for _ in range(count):
        seconds = []
        for run in (make_ours(), make_bare()):
            run()
            start = clock()
            run()
            seconds.append(clock() - start)
        found.append((seconds[0], seconds[1]))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.loop", description=__doc__)
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--model")
    parser.add_argument("--size", type=int, default=32, help="side of the images in pixels")
    parser.add_argument("--batch", type=int)
    wanted = parser.parse_args()
    count = wanted.pairs
    given: dict[str, Any] = {**params.load(), **PLAIN, "epochs": 1, "threads": 1}
    given["model"] = wanted.model or given["model"]
    given["batch_size"] = wanted.batch or given["batch_size"]
    with tempfile.TemporaryDirectory() as folder:
        data = images_in(Path(folder) / "real", 2048, wanted.size)
        # The time of the one thread that computes, which a busy machine does not lengthen (a second
        # one would wait in a spin, which counts as work); a GPU is waited for.
        clock = time.perf_counter if torch.cuda.is_available() else time.thread_time
        real = pairs_of(
            lambda: our_epochs(data, None, given),
            lambda: bare_epochs(data, None, given),
            count,
            clock,
        )
        ratios = sorted(bare / ours for ours, bare in real)
        print(
            f"{given['model']}, {wanted.size} px, batch {given['batch_size']}: "
            f"{statistics.median(ratios):.3f} of the bare speed "
            f"({ratios[0]:.3f} to {ratios[-1]:.3f})"
        )

        few = images_in(Path(folder) / "small", 2048, 32)
        steps = steps_per_epoch(len(few), given["batch_size"])
        tiny = {**given, "epochs": 5, "model": "own"}

        def net() -> nn.Module:
            return nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, CLASSES))

        small = pairs_of(
            lambda: our_epochs(few, net(), tiny),
            lambda: bare_epochs(few, net(), tiny),
            count,
            time.thread_time,
        )
        extra = statistics.median(ours - bare for ours, bare in small) / (5 * steps)
        each = statistics.median(bare for _, bare in small) / (5 * steps)
        print(f"a net of one layer: {extra * 1e3:.3f} ms more per step than {each * 1e3:.3f} ms")


if __name__ == "__main__":
    main()
