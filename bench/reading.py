"""The mapped reader against a folder of files: `python -m bench.reading [--images 4000]`.

Images per second of processor time, batch by batch in a random order: from a packed data set by
memory map, and from the same images as PNG files through torchvision's ImageFolder with its PIL
decoder and a DataLoader without workers. In turn, the median of the rounds counts; a round of the
map takes many epochs, for one is over in milliseconds.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torchvision.datasets import ImageFolder
from torchvision.transforms import PILToTensor

from bench.loop import CLASSES, images_in
from src.data.batches import training_batches
from src.data.packed import PackedSplit
from src.data.readers import Reading

SIZE, BATCH, ROUNDS, EPOCHS = 32, 64, 5, 40


def packed_reader(data: PackedSplit) -> Callable[[], int]:
    reading, device = Reading("mapped"), torch.device("cpu")

    def read() -> int:
        return sum(
            len(images)
            for epoch in range(EPOCHS)
            for images, _ in training_batches(data, 0, epoch, BATCH, device, reading=reading)
        )

    return read


def folder_reader(folder: Path) -> Callable[[], int]:
    loader = torch.utils.data.DataLoader(
        ImageFolder(str(folder), PILToTensor()), BATCH, shuffle=True, drop_last=True
    )
    return lambda: sum(len(images) for images, _ in loader)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.reading", description=__doc__)
    parser.add_argument("--images", type=int, default=4000)
    count = parser.parse_args().images
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        data = images_in(Path(folder), count, SIZE)
        files = Path(folder) / "files"
        for index, image in enumerate(data.rows(np.arange(count))):
            path = files / str(index % CLASSES) / f"{index:05d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(path)
        rates: dict[str, list[float]] = {"packed": [], "folder": []}
        for number in range(ROUNDS + 1):
            for name, read in (("packed", packed_reader(data)), ("folder", folder_reader(files))):
                start = time.process_time()
                images = read()
                if number:  # the first round warms up
                    rates[name].append(images / (time.process_time() - start))
    packed, single = (statistics.median(rates[name]) for name in ("packed", "folder"))
    print(
        f"{SIZE} px: {packed:.0f} images per CPU second by map, {single:.0f} from files: "
        f"{packed / single:.0f} times as many"
    )


if __name__ == "__main__":
    main()
