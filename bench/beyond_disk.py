"""Data that no disk holds, read through a bounded cache: a prototype and what it costs.

    python -m bench.beyond_disk [--images 12000] [--size 64] [--rows 256] [--window 4]

A packed split is cut into shards, each under its sha256 at an fsspec address (a folder, the memory,
a web server on 127.0.0.1); a manifest lists them. Shards are fetched into a bounded cache, `window`
of them at a time, the next while these are used. Beside it the packed reader (mapped), with all
data on the disk. docs/explanation/beyond-the-disk.md says why it is so, and what follows.
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import psutil
import torch

from bench.loop import images_in
from src.base.randomness import generator
from src.data.batches import training_batches
from src.data.packed import PackedSplit
from src.data.readers import Reading
from tests.conftest import free_port

SEED, BATCH, EPOCHS, FETCHES = 0, 64, 3, 4


def publish(data: PackedSplit, address: str, rows: int) -> dict[str, Any]:
    """Write `data` as shards of `rows` samples below `address`; the manifest, all that a stage
    would depend on: the sha256 of each shard, its size, and the labels."""
    files, root = fsspec.core.url_to_fs(address)
    files.makedirs(root, exist_ok=True)
    shards = []
    for start in range(0, len(data), rows):
        content = data.rows(np.arange(start, min(start + rows, len(data)))).tobytes()
        name = hashlib.sha256(content).hexdigest()
        files.pipe_file(f"{root}/{name}", content)
        shards.append({"sha256": name, "bytes": len(content)})
    return {"shards": shards, "rows": rows, "shape": data.shape, "labels": data.labels.tolist()}


@dataclass
class Cache:
    """Shards in `folder`, at most `limit` bytes of them, fetched from `address`."""

    address: str
    folder: Path
    shards: list[dict[str, Any]]
    limit: int
    hits: int = 0
    fetched: int = 0  # bytes
    here: dict[int, Future[Path]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.files, self.root = fsspec.core.url_to_fs(self.address)
        self.pool = ThreadPoolExecutor(FETCHES)

    def want(self, number: int, next_use: dict[int, int], keep: set[int]) -> Future[Path]:
        """A shard, at once or soon. Others go, but for those in `keep`: the ones whose next use
        is last (Belady 1966)."""
        if number in self.here:
            self.hits += 1
            return self.here[number]
        room = self.limit - self.shards[number]["bytes"]
        while sum(self.shards[other]["bytes"] for other in self.here) > room:
            others = [other for other in self.here if other not in keep]
            gone = self.here.pop(max(others, key=next_use.__getitem__))
            gone.result().unlink()  # those who have mapped it keep it
        self.fetched += self.shards[number]["bytes"]
        self.here[number] = self.pool.submit(self._fetch, self.shards[number]["sha256"])
        return self.here[number]

    def _fetch(self, name: str) -> Path:
        content = self.files.cat_file(f"{self.root}/{name}")
        if hashlib.sha256(content).hexdigest() != name:
            raise ValueError(f"{self.address}/{name} is damaged")
        path = self.folder / name
        path.with_suffix(".partial").write_bytes(content)
        os.replace(path.with_suffix(".partial"), path)
        return path


def batches(
    manifest: dict[str, Any], cache: Cache, window: int, epoch: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(rows uint8 B x H x W x C, labels int64 B) of an epoch. Samples are mixed within `window`
    shards; a resumed run would begin at the window of its step."""
    count, shape, rows = len(cache.shards), tuple(manifest["shape"]), manifest["rows"]
    order, following = (
        torch.randperm(count, generator=generator(SEED, "shards", e)).tolist()
        for e in (epoch, epoch + 1)
    )
    groups = [order[start : start + window] for start in range(0, count, window)]
    labels = np.array(manifest["labels"])
    next_use = {number: place for place, number in enumerate(order)}
    later = {number: count + place for place, number in enumerate(following)}

    def ask(group: list[int], keep: set[int]) -> list[Future[Path]]:
        return [cache.want(number, next_use, keep) for number in group]

    waiting = ask(groups[0], set(groups[0]))
    left = np.empty(0, dtype=np.int64)  # what is left of a window goes into the next one's batches
    maps: dict[int, np.ndarray] = {}
    for place, group in enumerate(groups):
        paths = [future.result() for future in waiting]
        for number in group:
            next_use[number] = later[number]
        kept = {number: maps[number] for number in set((left // rows).tolist())}
        maps = kept | {
            number: np.memmap(path, np.uint8, "r").reshape(-1, *shape)
            for number, path in zip(group, paths, strict=True)
        }
        if place + 1 < len(groups):
            waiting = ask(groups[place + 1], {*group, *groups[place + 1]})
        samples = np.concatenate([n * rows + np.arange(len(maps[n])) for n in group])
        mix = torch.randperm(len(samples), generator=generator(SEED, f"window {place}", epoch))
        samples = np.concatenate([left, samples[mix.numpy()]])
        whole = len(samples) // BATCH * BATCH
        for part in samples[:whole].reshape(-1, BATCH):
            out = np.empty((BATCH, *shape), dtype=np.uint8)
            owner = part // rows
            for number in np.unique(owner):
                out[owner == number] = maps[number][part[owner == number] - number * rows]
            yield out, labels[part]
        left = samples[whole:]


def measured(name: str, epochs: Any, cache: Cache | None = None) -> None:
    """Print images per second and per CPU second of each epoch, what memory grew by at most, hits
    and bytes fetched."""
    process, cells = psutil.Process(), []
    before, largest = process.memory_full_info().uss, 0
    for epoch in range(EPOCHS):
        start, cpu, count = time.perf_counter(), time.process_time(), 0
        for number, (rows, _) in enumerate(epochs(epoch)):
            count += len(rows)
            if number % 50 == 0:
                largest = max(largest, process.memory_full_info().uss)
        seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
        told = f"{count / seconds:,.0f}, {count / cpu:,.0f}"
        if cache:
            told += f" ({cache.hits} hits, {cache.fetched / 2**20:.0f} MB)"
            cache.hits = cache.fetched = 0
        cells.append(told)
    print(f"| {name} | {' | '.join(cells)} | {(largest - before) / 2**20:.0f} |", flush=True)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.beyond_disk", description=__doc__)
    parser.add_argument("--images", type=int, default=12_000)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--rows", type=int, default=256, help="samples a shard (256)")
    parser.add_argument("--window", type=int, default=4, help="shards mixed at a time (4)")
    wanted = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data = images_in(folder / "packed", wanted.images, wanted.size)
        manifest = publish(data, f"file://{folder}/remote", wanted.rows)
        publish(data, "memory://remote", wanted.rows)
        text, shards = json.dumps(manifest), manifest["shards"]
        print(f"{data.nbytes / 2**20:.0f} MB, {len(shards)} shards, manifest {len(text) >> 10} KB")
        print(f"| images per s, per CPU s | epoch {' | '.join('123'[:EPOCHS])} | MB more |")
        print("|---" * (EPOCHS + 2) + "|")
        device, mapped = torch.device("cpu"), Reading("mapped")
        measured(
            "packed, mapped",
            lambda e: training_batches(data, SEED, e, BATCH, device, reading=mapped),
        )
        port = free_port()
        command = [sys.executable, "-m", "http.server", str(port), "--bind", "127.0.0.1"]
        quiet = subprocess.DEVNULL
        server = subprocess.Popen(command, cwd=folder / "remote", stdout=quiet, stderr=quiet)
        try:
            addresses = [f"file://{folder}/remote", "memory://remote", f"http://127.0.0.1:{port}"]
            for address in addresses:
                for share in (1.0, 0.5, 0.25):  # of the data
                    with tempfile.TemporaryDirectory(dir=folder) as at:
                        cache = Cache(address, Path(at), shards, int(share * data.nbytes))
                        measured(
                            f"{address.partition(':')[0]}, cache {share:.0%}",
                            partial(batches, manifest, cache, wanted.window),
                            cache,
                        )
        finally:
            server.terminate()
            server.wait()


if __name__ == "__main__":
    main()
