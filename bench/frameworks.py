"""Training speed against two others on the same images: `python -m bench.frameworks`.

Lightning with its MLFlowLogger (`--lightning FOLDER`: where it was installed with `uv pip install
--target FOLDER --no-deps lightning torchmetrics lightning-utilities`) and timm's own train.py
(`--timm FILE`: train.py of a checkout of timm). The same net, optimizer, batch size and images,
two epochs of which the second counts, one program after the other for some rounds; all log to
MLflow but timm, which writes a CSV. Validation is left out. `--device cuda` compares on a GPU,
`--model` another net.
"""

import argparse
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

from bench.loop import CLASSES, PLAIN, images_in, run_epochs, training_for, wait
from src.data.packed import PackedSplit
from src.data.readers import Reading
from src.images.input import enter
from src.model.device import prepare_device
from src.plumbing import params
from src.tracking.store import store

COUNT, SIZE = 2048, 32


def ours(data: PackedSplit, given: dict[str, Any], folder: Path) -> float:
    """Images per second of this project's loop; a point per epoch goes to MLflow, as in train."""
    training = training_for(data, given, Reading.from_params(given))
    client, experiment = store.open_store(folder)
    run = client.create_run(experiment)
    times: list[float] = []

    def on_epoch(row: dict[str, float]) -> None:
        client.log_metric(run.info.run_id, "epoch", len(times), step=len(times))
        wait(training.learner.device)
        times.append(time.perf_counter())

    run_epochs(training, on_epoch)
    return COUNT / (times[-1] - times[-2])


def lightning(data: PackedSplit, given: dict[str, Any], folder: Path) -> float:
    """Images per second of Lightning's Trainer with its defaults and MLFlowLogger."""
    import lightning as framework
    from lightning.pytorch.loggers import MLFlowLogger

    learner = training_for(data, given).learner
    times: list[float] = []

    class Net(framework.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = learner.model

        def training_step(self, batch: Any, index: int) -> torch.Tensor:
            images, labels = batch
            logits = self.net(enter(images, learner.mean, learner.std))
            loss = functional.cross_entropy(logits, labels)
            self.log("train/loss", loss)
            return loss

        def on_train_epoch_end(self) -> None:
            wait(learner.device)
            times.append(time.perf_counter())

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return learner.optimizer

    images = torch.from_numpy(data.rows(np.arange(len(data))))
    loader = DataLoader(
        TensorDataset(images, torch.from_numpy(data.labels)),
        batch_size=given["batch_size"],
        shuffle=True,
        drop_last=True,
    )
    logger = MLFlowLogger("bench", tracking_uri=store.tracking_uri(folder))
    trainer = framework.Trainer(
        max_epochs=given["epochs"],
        accelerator=learner.device.type,
        devices=1,
        logger=logger,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=str(folder),
    )
    trainer.fit(Net(), loader)
    return COUNT / (times[-1] - times[-2])


def timms(script: Path, given: dict[str, Any], folder: Path) -> float:
    """Images per second that timm's train.py prints for its last epoch."""
    command = [
        sys.executable, str(script), "--data-dir", str(folder / "images"), "--model",
        given["model"], "--num-classes", str(CLASSES), "--img-size", str(SIZE), "--opt", "adamw",
        "--lr", "1e-3", "--weight-decay", "0.05", "--batch-size", str(given["batch_size"]),
        "--epochs", str(given["epochs"]), "--sched", "step", "--decay-epochs", "1000", "--no-aug",
        "--workers", "1" if given["machine.device"] == "cpu" else "8",
        "--device", given["machine.device"], "--output", str(folder / "timm"),
        "--log-interval", "10",
    ]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": str(given["threads"])}
    ended = subprocess.run(command, capture_output=True, text=True, env=environment)
    rates = re.findall(r"Train: 1 .*?,\s*([0-9.]+)/s\)", ended.stdout + ended.stderr)
    if not rates:
        raise SystemExit(
            f"train.py of timm printed no rate:\n{(ended.stdout + ended.stderr)[-2000:]}"
        )
    return float(rates[-1])


def write_files(data: PackedSplit, folder: Path) -> None:
    """The images as PNG files in class folders, which is what timm reads."""
    for split in ("train", "validation"):
        for index, image in enumerate(data.rows(np.arange(len(data)))):
            target = folder / "images" / split / str(data.labels[index])
            target.mkdir(parents=True, exist_ok=True)
            if split == "train" or index < CLASSES:
                Image.fromarray(image).save(target / f"{index:05d}.png")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.frameworks", description=__doc__)
    parser.add_argument("--lightning", type=Path, metavar="FOLDER")
    parser.add_argument("--timm", type=Path, metavar="FILE")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--model")
    wanted = parser.parse_args()
    # Not the fused step, which the others do not take of themselves: the frameworks are compared.
    given: dict[str, Any] = {
        **params.load(),
        **PLAIN,
        "epochs": 2,
        "machine.device": wanted.device,
        "fused": False,
    }
    given["model"] = wanted.model or given["model"]
    prepare_device(wanted.device, given["threads"])
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data = images_in(folder, COUNT, SIZE)
        programs: dict[str, Callable[[], float]] = {
            "this project": lambda: ours(data, given, folder)
        }
        if wanted.lightning:
            sys.path.append(str(wanted.lightning))
            programs["Lightning"] = lambda: lightning(data, given, folder)
        if wanted.timm:
            write_files(data, folder)
            programs["timm's train.py"] = lambda: timms(wanted.timm, given, folder)
        rates: dict[str, list[float]] = {program: [] for program in programs}
        for _ in range(wanted.rounds):
            for program, measure in programs.items():
                rates[program].append(measure())
        for program, found in rates.items():
            share = statistics.median(
                here / there for here, there in zip(rates["this project"], found, strict=True)
            )
            rate = statistics.median(found)
            print(f"{program}: {rate:.0f} images/s; this project is {share:.2f} times as fast")


if __name__ == "__main__":
    main()
