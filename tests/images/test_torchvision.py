"""Sets of torchvision.datasets, read by torchvision's own classes from small files made here."""

import gzip
import hashlib
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from src.data.packed import PackedSplit
from src.images.sources.idx import IDX_SETS
from src.images.sources.torchvision import SETS, torchvision_source
from src.plumbing.errors import InputError
from src.preparation.sources.base import Source
from tests.conftest import packed, set_params
from tests.preparation.image_folders import report

COUNTS = {"train": 400, "t10k": 60}


def idx(array: np.ndarray) -> bytes:
    """An array of uint8 or big-endian int32 as the bytes of an idx file."""
    sizes = np.array(array.shape, dtype=">u4").tobytes()
    return bytes((0, 0, 8 if array.itemsize == 1 else 12, array.ndim)) + sizes + array.tobytes()


def mnist_files(copies: int = 0) -> dict[str, bytes]:
    """The four files of a small MNIST; the first `copies` images of train are in test too."""
    rng, files = np.random.default_rng(0), {}
    images = {
        split: rng.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        for split, count in COUNTS.items()
    }
    images["t10k"][:copies] = images["train"][:copies]
    for split, count in COUNTS.items():
        files[f"{split}-images-idx3-ubyte"] = idx(images[split])
        files[f"{split}-labels-idx1-ubyte"] = idx((np.arange(count) % 10).astype(np.uint8))
    return files


def lay_out(root: Path, files: dict[str, bytes], packed: bool = False) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        path = root / (f"{name}.gz" if packed else name)
        path.write_bytes(gzip.compress(content) if packed else content)
    return root


def listing(root: Path) -> dict[str, tuple[int, int]]:
    return {
        str(path.relative_to(root)): (path.stat().st_mtime_ns, path.stat().st_size)
        for path in sorted(root.rglob("*"))
    }


def prepare(project: Path, name: str, path: Path, **values: object) -> dict[str, PackedSplit]:
    set_params(project, source=f"torchvision:{name}", path=path, **values)
    return packed(project)


def source_of(name: str, root: Path) -> Source:
    return torchvision_source({"prepare.source": f"torchvision:{name}", "prepare.path": str(root)})


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("below", [".", "FashionMNIST/raw"])
def test_idx_files_packed_or_not_at_either_place(
    project: Path, tmp_path: Path, below: str, packed: bool
) -> None:
    root, files = tmp_path / "files", mnist_files()
    lay_out(root / below, files, packed)
    before = listing(root)
    splits = prepare(project, "FashionMNIST", root, size=28, channels=1, val_share=0.1)
    assert listing(root) == before
    assert splits["test"].meta["classes"][9] == "Ankle boot"
    assert splits["test"].paths == [f"test/{n:05d}" for n in range(60)]
    from_train = splits["train"].paths + splits["val"].paths
    assert sorted(from_train) == [f"train/{n:05d}" for n in range(400)]
    assert 15 <= len(splits["val"]) <= 70
    pixels = np.frombuffer(files["train-images-idx3-ubyte"], np.uint8, offset=16)
    for split in ("train", "val"):
        numbers = [int(path[-5:]) for path in splits[split].paths]
        wanted = pixels.reshape(400, 28, 28, 1)[numbers]
        assert np.array_equal(splits[split].rows(range(len(numbers))), wanted)
        assert splits[split].labels.tolist() == [number % 10 for number in numbers]
        hashes = [hashlib.sha256(image.tobytes()).hexdigest() for image in wanted]
        assert splits[split].sha256 == hashes


def test_a_folder_that_cannot_be_written_is_enough(project: Path, tmp_path: Path) -> None:
    root = lay_out(tmp_path / "files", mnist_files(), packed=True)
    root.chmod(0o500)
    try:
        assert len(prepare(project, "MNIST", root)["test"]) == 60
    finally:
        root.chmod(0o700)


def test_the_published_test_split_stays_whole(
    project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = lay_out(tmp_path / "files", mnist_files(copies=7))
    splits = prepare(project, "MNIST", root, size=28, channels=1)
    assert len(splits["test"]) == 60
    assert len(splits["train"]) + len(splits["val"]) == 400 - 7
    learnt = set(splits["train"].sha256) | set(splits["val"].sha256)
    assert not learnt & set(splits["test"].sha256)
    assert report(project)["left_out_as_in_a_given_split"] == 7
    assert report(project)["identical_pictures"] == 0
    assert "prepare: 7 samples were left out" in capsys.readouterr().out


def test_val_does_not_move_with_the_share_of_test(project: Path, tmp_path: Path) -> None:
    root = lay_out(tmp_path / "files", mnist_files())
    before = prepare(project, "MNIST", root, test_share=0.1)["val"].paths
    assert prepare(project, "MNIST", root, test_share=0.5)["val"].paths == before


def images(folder: Path, count: int, seed: int, suffix: str = "png") -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    paths = [folder / f"{number:05d}.{suffix}" for number in range(count)]
    for path in paths:
        Image.fromarray(rng.integers(0, 256, (12, 10, 3), dtype=np.uint8)).save(path)
    return paths


def test_splits_by_name_without_class_names(project: Path, tmp_path: Path) -> None:
    root = tmp_path / "files"
    base = root / "gtsrb"
    for label in range(43):
        images(base / f"GTSRB/Training/{label:05d}", 9, label, "ppm")
    test = images(base / "GTSRB/Final_Test/Images", 86, 99, "ppm")
    rows = "".join(f"{path.name};{number % 43}\n" for number, path in enumerate(test))
    (base / "GT-final_test.csv").write_text("Filename;ClassId\n" + rows)
    splits = prepare(project, "GTSRB", root, val_share=0.5)
    assert splits["train"].meta["classes"] == [str(label) for label in range(43)]
    assert splits["test"].labels.tolist() == [number % 43 for number in range(86)]
    assert len(splits["train"]) + len(splits["val"]) == 9 * 43


def test_three_given_splits(project: Path, tmp_path: Path) -> None:
    root = tmp_path / "files"
    labels = root / "dtd/dtd/labels"
    labels.mkdir(parents=True)
    for number, kind in enumerate(("banded", "dotted")):
        paths = images(root / "dtd/dtd/images" / kind, 12, number, "jpg")
        for third, split in enumerate(("train", "val", "test")):
            with open(labels / f"{split}1.txt", "a") as file:
                file.writelines(f"{kind}/{path.name}\n" for path in paths[third * 4 :][:4])
    splits = prepare(project, "DTD", root)
    assert splits["train"].meta["classes"] == ["banded", "dotted"]
    for split, data in splits.items():
        assert data.paths == [f"{split}/{number:05d}" for number in range(8)]
        assert data.labels.tolist() == [0] * 4 + [1] * 4
    assert not set(splits["train"].sha256) & set(splits["test"].sha256)


def test_trainval_is_the_training_split(project: Path, tmp_path: Path) -> None:
    base = tmp_path / "files/oxford-iiit-pet"
    (base / "annotations").mkdir(parents=True)
    for label, breed in enumerate(("great_dane", "Siamese")):
        for path in images(base / "images", 60, label, "jpg"):
            number = int(path.stem)
            path.rename(path.with_name(f"{breed}_{number}.jpg"))
            split = "test" if number < 10 else "trainval"
            with open(base / f"annotations/{split}.txt", "a") as file:
                file.write(f"{breed}_{number} {label + 1} 1 1\n")
    splits = prepare(project, "OxfordIIITPet", tmp_path / "files")
    assert splits["test"].meta["classes"] == ["Great Dane", "Siamese"]
    assert len(splits["test"]) == 20
    assert len(splits["train"]) + len(splits["val"]) == 100


def test_a_set_without_splits_is_split_by_hash(project: Path, tmp_path: Path) -> None:
    for label, kind in enumerate(("Forest", "River", "SeaLake")):
        images(tmp_path / "files/eurosat/2750" / kind, 40, label, "jpg")
    splits = prepare(project, "EuroSAT", tmp_path / "files")
    assert all(len(data) > 5 for data in splits.values())
    paths = sorted(path for data in splits.values() for path in data.paths)
    assert paths == [f"all/{number:05d}" for number in range(120)]
    assert splits["train"].meta["classes"] == ["Forest", "River", "SeaLake"]


def test_every_set_of_the_table_can_be_created() -> None:
    """The arguments are those of torchvision's classes, and each split is one of them."""
    import inspect

    from torchvision import datasets

    for name, chosen in SETS.items():
        signature = inspect.signature(getattr(datasets, name).__init__)
        for split, arguments in chosen.splits.items():
            signature.bind(None, "root", **arguments)
            assert split in ("all", "train", "val", "test"), name
        assert chosen.files, name


def test_nothing_is_created_or_fetched_for_any_set(tmp_path: Path) -> None:
    """Each set, over an empty folder, ends in one line that names a file, and leaves it empty."""
    first = {name: chosen.files[0] for name, chosen in SETS.items()}
    first |= {name: f"{name}/raw/{x.files['test'][0]}" for name, x in IDX_SETS.items()}
    for name, file in first.items():
        with pytest.raises(InputError) as caught:
            source_of(name, tmp_path)
        line = str(caught.value)
        assert str(tmp_path / file) in line, name
        assert "nothing is downloaded" in line
        assert "\n" not in line
        assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("FashionMnist", " is no data set of torchvision, did you mean FashionMNIST?"),
        ("Nothing", " is no data set of torchvision: set one of MNIST, "),
        ("Kitti", " gives no images with one class each"),
        ("ImageNet", " gives no images with one class each, in splits that share them: set folder"),
    ],
)
def test_names_that_cannot_work(project: Path, name: str, words: str) -> None:
    set_params(project, source=f"torchvision:{name}")
    with pytest.raises(InputError) as caught:
        packed(project)
    line = f"params.yaml: prepare.source torchvision:{name}{words}"
    assert str(caught.value).startswith(line)


def with_sizes(sizes: bytes, pack: Callable[[bytes], bytes] = bytes) -> Callable[[bytes], bytes]:
    """Makes a file of labels, packed or not, whose header says that it has these sizes."""
    made = bytes((0, 0, 8, len(sizes) // 4)) + sizes + bytes(100)
    return lambda _: pack(made)


IMAGES, LABELS = "t10k-images-idx3-ubyte", "train-labels-idx1-ubyte"
PACKED = "train-images-idx3-ubyte.gz"


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        (IMAGES, lambda content: content[: len(content) // 2], "it ends early"),
        (IMAGES, lambda content: b"\0\0\x08\x01" + content[4:], "it holds no images"),
        (IMAGES, lambda content: content[:7] + b";" + content[8:], "59 images, .* are 60 labels"),
        (IMAGES, lambda content: b"PK" + content[2:], "it is no idx file"),
        (IMAGES, lambda content: b"", "it ends early"),
        (IMAGES, lambda content: content[:4] + b"\xff" * 12 + content[16:], "it ends early"),
        (IMAGES, lambda content: content[:8] + bytes(4) + content[12:], "it has a size of 0"),
        (LABELS, with_sizes(b"\xff" * 12), "it ends early"),
        (LABELS, with_sizes(b"\xff" * 4), "it ends early"),
        (LABELS, with_sizes(bytes(4)), "a size of 0"),
        (LABELS + ".gz", with_sizes(b"\xff" * 12, gzip.compress), "it ends early"),
        (LABELS + ".gz", with_sizes(b"\xff" * 4, gzip.compress), "it ends early"),
        (LABELS + ".gz", with_sizes(bytes(4), gzip.compress), "a size of 0"),
        (PACKED, lambda content: content[:1000], "is no file of torchvision:MNIST"),
        (PACKED, lambda content: b"no gzip", "cannot be unpacked"),
        (
            PACKED,
            lambda content: content[:5000] + bytes(100) + content[5100:],
            "cannot be unpacked",
        ),
    ],
)
def test_files_that_are_not_whole(
    project: Path, tmp_path: Path, name: str, change: Callable[[bytes], bytes], words: str
) -> None:
    path = lay_out(tmp_path / "files", mnist_files(), packed=name.endswith(".gz")) / name
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(InputError, match=words) as caught:
        prepare(project, "MNIST", path.parent)
    line = str(caught.value)
    kinds = ("is no file of torchvision:MNIST (", "cannot be unpacked (")
    assert line.startswith(tuple(f"{path} {kind}" for kind in kinds))
    assert "\n" not in line
    assert not (project / "data/prepared").exists()


def test_a_folder_named_like_the_file(tmp_path: Path) -> None:
    root = lay_out(tmp_path / "files", mnist_files())
    name = "train-images-idx3-ubyte"
    (root / name).unlink()
    (root / name).mkdir()
    with pytest.raises(InputError, match=f"torchvision:MNIST needs .*{name}"):
        source_of("MNIST", root)


@pytest.mark.parametrize("name", list(IDX_SETS))
def test_idx_files_hold_what_torchvision_reads(tmp_path: Path, name: str) -> None:
    from torchvision import datasets

    chosen, rng = IDX_SETS[name], np.random.default_rng(0)
    for number, (images, labels) in enumerate(chosen.files.values()):
        count = 60 + number
        values = (np.arange(count) % len(chosen.classes)).astype(np.uint8)
        content = idx(values)
        if name == "QMNIST":  # columns of big-endian integers, the class first
            table = np.zeros((count, 8), dtype=">i4")
            table[:, 0], table[:, 1] = values, 200
            content = idx(table)
        drawn = rng.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        lay_out(tmp_path / name / "raw", {images: idx(drawn), labels: content})
    source = source_of(name, tmp_path)
    items = list(source.items)
    assert source.total == len(items) == 121
    more = {"split": "balanced"} if name == "EMNIST" else {}
    for split, start, stop in (("test", 0, 60), ("train", 60, 121)):
        expected = getattr(datasets, name)(str(tmp_path), train=split == "train", **more)
        assert source.classes == list(expected.classes)
        assert len(expected) == stop - start
        for number, item in enumerate(items[start:stop]):
            image, label = expected[number]
            assert item.label == label
            assert item.name == f"{split}/{number:05d}"
            assert item.read()[0] == np.asarray(image).tobytes()


@pytest.mark.parametrize("source", ["synthetic", "torchvision:MNIST"])
def test_torch_is_imported_for_torchvisions_own_sets_alone(
    project: Path, tmp_path: Path, source: str
) -> None:
    """Its import takes 600 MB: idx files do without, and what is no set of torchvision."""
    if ":" in source:
        root = lay_out(tmp_path / "files", mnist_files(), packed=True)
        set_params(project, source=source, path=root)
    code = (
        "import sys, src.prepare as module\n"
        "from src.plumbing.stage import Stage\n"
        "module.main(Stage('prepare'))\n"
        "print([name for name in ('torch', 'torchvision') if name in sys.modules])\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code], cwd=project, capture_output=True, text=True, check=True
    )
    assert ended.stdout.splitlines()[-1] == "[]"


def test_labels_outside_the_classes_are_refused(project: Path, tmp_path: Path) -> None:
    files = mnist_files()
    files["train-labels-idx1-ubyte"] = idx((np.arange(400) % 11).astype(np.uint8))
    with pytest.raises(InputError, match=r"train/00010 has label 10, which is none of 10 classes"):
        prepare(project, "MNIST", lay_out(tmp_path / "files", files))


def test_a_suggested_split_seed_works_beside_a_given_test_split(
    project: Path, tmp_path: Path
) -> None:
    root = lay_out(tmp_path / "files", mnist_files())
    with pytest.raises(InputError, match=r"in split val: set prepare\.split_seed=") as caught:
        prepare(project, "MNIST", root, val_share=0.03)
    seed = str(caught.value).partition("split_seed=")[2].partition(",")[0]
    splits = prepare(project, "MNIST", root, val_share=0.03, split_seed=seed)
    assert set(splits["val"].labels) == set(range(10))
    assert len(splits["test"]) == 60
