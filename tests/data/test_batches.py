"""Batches: order by (seed, epoch, step) alone, the same however read; threads that end cleanly."""

import gc
import pickle
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from src.base.files import write_json
from src.data import readers
from src.data.batches import leftover_remark, ordered_batches, steps_per_epoch, training_batches
from src.data.packed import PackedSplit
from src.data.readers import Batch, Reading, read_batches, tier
from src.data.writer import SplitWriter
from src.plumbing import params
from src.plumbing.errors import InputError
from tests.conftest import set_params

CPU = torch.device("cpu")
WAYS = [Reading("resident"), Reading("mapped"), Reading("workers", 2), Reading("auto", 1)]
COUNT, SIDE = 301, 8


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> PackedSplit:
    """Images of noise in shards of 64, in classes of different sizes."""
    folder, size = tmp_path_factory.mktemp("packed"), {"size": SIDE, "channels": 3}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("src.data.writer.SHARD_BYTES", 64 * SIDE * SIDE * 3)
        draws = np.random.default_rng(0)
        with SplitWriter(folder, "train", size) as writer:
            for index in range(COUNT):
                image = draws.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
                writer.add(image, int(index**0.5) % 3, f"{index}", f"{index:064x}")
    assert len(writer.shards) == 5
    about = {"classes": ["a", "b", "c"], "mean": [0.5] * 3, "std": [0.3] * 3}
    write_json(folder / "meta.json", {**about, **size, "shards": {"train": writer.shards}})
    return PackedSplit(folder, "train")


def batches_of(data: PackedSplit, **options: Any) -> list[Batch]:
    options = {"seed": 0, "epoch": 0, "batch_size": 16, "device": CPU, **options}
    return list(training_batches(data, **options))


def raw(batches: Iterable[Batch]) -> list[tuple[bytes, tuple[int, ...], list[int]]]:
    return [(p.numpy().tobytes(), tuple(p.shape), y.tolist()) for p, y in batches]


def test_an_epoch_visits_every_sample_at_most_once(data: PackedSplit) -> None:
    batches = batches_of(data)
    assert len(batches) == steps_per_epoch(len(data), 16) == len(data) // 16
    whole = batches_of(data, batch_size=len(data))[0]
    rows = {row.numpy().tobytes() for row in whole[0]}
    assert rows == {row.tobytes() for row in data.rows(np.arange(len(data)))}


def test_order_follows_seed_and_epoch_alone(data: PackedSplit) -> None:
    torch.manual_seed(1)
    first = raw(batches_of(data))
    torch.manual_seed(2)
    assert raw(batches_of(data)) == first
    assert raw(batches_of(data, epoch=1)) != first
    assert raw(batches_of(data, seed=1)) != first


def test_reading_draws_nothing_from_the_global_generator(data: PackedSplit) -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    batches_of(data, reading=Reading("workers", 2))
    assert torch.equal(before, torch.get_rng_state())


def test_a_batch_larger_than_the_data_holds_all_of_it(data: PackedSplit) -> None:
    ((images, labels),) = batches_of(data, batch_size=10_000)
    assert len(images) == len(labels) == len(data)


def test_what_an_epoch_leaves_out_is_said() -> None:
    assert leftover_remark(97, 64, "random") == (
        "train: an epoch is 1 step of 64 samples: 33 of 97 are left out, others in each"
    )
    assert leftover_remark(29, 10, "random").startswith("train: an epoch is 2 steps of 10 samples")
    assert leftover_remark(29, 10, "balanced") == ""  # drawn with replacement
    assert leftover_remark(1077, 32, "random") == leftover_remark(64, 64, "random") == ""
    line = leftover_remark(43, 64, "balanced")
    assert "one step of 43 samples per epoch: there are no 64" in line


@pytest.mark.parametrize("reading", WAYS, ids=str)
@pytest.mark.parametrize("sampling", ["random", "balanced"])
@pytest.mark.parametrize("first_step", [0, 1, 11, 18])
def test_each_way_gives_the_same_batches(
    data: PackedSplit, reading: Reading, sampling: str, first_step: int
) -> None:
    options = {"seed": 3, "epoch": 2, "sampling": sampling}
    found = raw(batches_of(data, reading=reading, first_step=first_step, **options))
    expected = raw(batches_of(data, **options))
    assert len(expected) == 18
    assert found == expected[first_step:]
    images = data.rows(np.arange(COUNT))
    by_content = {image.tobytes(): index for index, image in enumerate(images)}
    for content, shape, labels in found:
        assert shape == (16, SIDE, SIDE, 3)
        step = len(content) // 16
        indices = [by_content[content[k : k + step]] for k in range(0, len(content), step)]
        assert data.labels[indices].tolist() == labels


@pytest.mark.parametrize("reading", WAYS, ids=str)
def test_each_way_evaluates_in_order(data: PackedSplit, reading: Reading) -> None:
    batches = list(ordered_batches(data, CPU, reading))
    assert [len(labels) for _, labels in batches] == [128, 128, 45]
    assert np.array_equal(torch.cat([p for p, _ in batches]).numpy(), data.rows(range(COUNT)))
    assert np.array_equal(torch.cat([y for _, y in batches]).numpy(), data.labels)


@pytest.mark.parametrize("reading", WAYS, ids=str)
def test_a_batch_may_be_changed_in_place(data: PackedSplit, reading: Reading) -> None:
    for images, labels in ordered_batches(data, CPU, reading):
        images.zero_()
        labels.zero_()
    assert raw(ordered_batches(data, CPU, reading)) == raw(ordered_batches(data, CPU))


def test_the_size_chooses(data: PackedSplit, monkeypatch: pytest.MonkeyPatch) -> None:
    fresh = PackedSplit(data.folder, "train")
    assert fresh.nbytes == COUNT * SIDE * SIDE * 3
    enough = int(fresh.nbytes / readers.RESIDENT_SHARE) + 1
    for free, workers, expected in (
        (enough, 0, "resident"),
        (enough, 2, "resident"),
        (enough - 8, 0, "mapped"),
        (enough - 8, 2, "workers"),
    ):
        monkeypatch.setattr(readers, "free_memory", lambda device, free=free: free)
        assert tier(fresh, CPU, Reading("auto", workers)) == expected
    assert tier(fresh, CPU, Reading("resident")) == "resident"
    assert tier(fresh, CPU, Reading("mapped", 2)) == "mapped"


def test_what_is_resident_stays_when_memory_gets_short(
    data: PackedSplit, monkeypatch: pytest.MonkeyPatch
) -> None:
    fresh = PackedSplit(data.folder, "train")
    list(ordered_batches(fresh, CPU, Reading("resident")))
    monkeypatch.setattr(readers, "free_memory", lambda device: 0)
    assert tier(fresh, CPU, Reading()) == "resident"
    assert tier(PackedSplit(data.folder, "train"), CPU, Reading()) == "mapped"


def test_resident_images_go_with_their_split(data: PackedSplit) -> None:
    before = len(readers._resident)
    fresh = PackedSplit(data.folder, "train")
    list(ordered_batches(fresh, CPU, Reading("resident")))
    assert len(readers._resident) == before + 1
    del fresh
    gc.collect()
    assert len(readers._resident) == before


def test_too_much_to_be_resident_is_said_in_a_line(data: PackedSplit) -> None:
    huge = PackedSplit(data.folder, "train")
    huge.shape = (2**24, 2**24, 3)  # as many images of 2 ** 48 pixels
    with pytest.raises(InputError, match=r"machine.reading resident needs .* GiB on cpu") as caught:
        next(read_batches(huge, [np.arange(4)], CPU, Reading("resident")))
    assert "set auto or mapped" in str(caught.value)


def test_free_memory_knows_the_limit_of_a_container(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(readers, "CGROUP", tmp_path)
    whole = readers.free_memory(CPU)
    assert whole > 2**20
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.current").write_text("1000\n")
    assert readers.free_memory(CPU) > 2**20
    (tmp_path / "memory.max").write_text("5000\n")
    assert readers.free_memory(CPU) == 4000


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("reader")]


def test_the_thread_ends_with_the_loop(data: PackedSplit) -> None:
    for _ in ordered_batches(data, CPU, Reading("mapped")):
        assert threads()
        break
    assert threads() == []

    def fail() -> None:
        for _ in training_batches(data, 0, 0, 2, CPU):
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert threads() == []
    list(ordered_batches(data, CPU))
    assert threads() == []


def test_the_thread_reads_ahead_but_not_everything(
    data: PackedSplit, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []
    whole = PackedSplit.rows
    enough = threading.Event()

    def noted(self: PackedSplit, indices: np.ndarray) -> np.ndarray:
        read.append(int(indices[0]))
        if len(read) == 1 + readers.AHEAD:
            enough.set()
        return whole(self, indices)

    monkeypatch.setattr(PackedSplit, "rows", noted)
    batches = read_batches(data, [np.array([number]) for number in range(50)], CPU)
    next(batches)
    assert enough.wait(10)  # without anybody asking for them
    batches.close()  # type: ignore[attr-defined]
    assert read == list(range(1 + readers.AHEAD))


def test_an_error_of_the_thread_is_raised_where_its_batch_is_read(data: PackedSplit) -> None:
    batches = read_batches(data, [np.arange(4), np.arange(4), np.array([COUNT + 64])], CPU)
    assert len(next(batches)[0]) == len(next(batches)[0]) == 4
    with pytest.raises(IndexError):
        next(batches)
    assert threads() == []


def test_to_another_process_go_no_images(data: PackedSplit) -> None:
    text = pickle.dumps(data)
    assert len(text) < data.nbytes
    other = pickle.loads(text)
    assert np.array_equal(other.rows(range(COUNT)), data.rows(range(COUNT)))


def test_workers_must_be_there_to_read(project: Path) -> None:
    set_params(project, reading="workers")
    with pytest.raises(InputError, match=r"machine.workers must be at least 1 for machine.reading"):
        params.load(project)
    set_params(project, workers=1)
    assert params.load(project)["machine.reading"] == "workers"
