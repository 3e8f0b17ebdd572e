"""What a person looks at before training: near-duplicates, flat pictures, balance, the table."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from src.images.near_duplicates import MOST_BITS, close_pairs, differences, perceptual_hash
from src.images.quality.collected import NEAR
from tests.conftest import run_stage, set_params

NAMES = ("samples.png", "balance.png", "sizes.png", "quality.json", "quality.md")


def photo(seed: int, size: int = 64) -> Image.Image:
    """Smooth colours, as different from each other as photos are."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((size, size), Image.Resampling.BICUBIC)


def hash_of(picture: Image.Image) -> int:
    small = np.asarray(picture.convert("RGB").resize((32, 32), Image.Resampling.BILINEAR))
    return perceptual_hash(small.sum(axis=2, dtype=np.float64))


def again_as_jpeg(picture: Image.Image, quality: int) -> Image.Image:
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer)


def test_a_copy_has_a_close_hash_and_another_picture_has_not() -> None:
    for seed in range(20):
        picture = photo(seed)
        start = hash_of(picture)
        for copy in (again_as_jpeg(picture, 95), picture.resize((40, 40))):
            assert (start ^ hash_of(copy)).bit_count() <= MOST_BITS
        assert (start ^ hash_of(photo(seed + 100))).bit_count() > MOST_BITS


def test_close_pairs_are_those_of_a_search_by_hand() -> None:
    draws = np.random.default_rng(0)
    hashes = draws.integers(1, 2**63, 400).astype(np.uint64) | np.uint64(2**63)
    for index in range(0, 100, 2):  # planted: up to three bits apart
        bits = draws.choice(63, draws.integers(0, 4), replace=False)
        hashes[index + 1] = hashes[index] ^ np.uint64(sum(1 << int(bit) for bit in bits))
    groups = draws.integers(0, 3, 400)
    groups[1:100:2] = (groups[0:100:2] + 1) % 3
    found, left_out = close_pairs(hashes, groups, most=1000)
    wanted = {
        (a, b)
        for a in range(400)
        for b in range(a + 1, 400)
        if groups[a] != groups[b] and (int(hashes[a]) ^ int(hashes[b])).bit_count() <= MOST_BITS
    }
    assert {(int(a), int(b)) for a, b in found} == wanted
    assert len(wanted) >= 50
    assert not left_out
    few, left_out = close_pairs(hashes, groups, most=5)
    assert len(few) == 5
    assert left_out
    assert len(close_pairs(np.zeros(9, dtype=np.uint64), np.arange(9), 5)[0]) == 0


def test_a_copy_differs_less_than_another_picture() -> None:
    one, copy, other = (
        np.asarray(picture.convert("RGB"))[None]
        for picture in (photo(1), again_as_jpeg(photo(1), 95), photo(2))
    )
    assert differences(one, one).tolist() == [0]
    assert differences(one, copy)[0] < NEAR < 2 * NEAR < differences(one, other)[0]


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """80 different pictures in given splits, two copies across them, a flat one, an oblong one."""
    root = tmp_path / "raw"
    for number in range(80):
        split = ("train", "train", "val", "test")[number % 4]
        path = root / split / ("cat", "dog")[number // 40] / f"{number:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        photo(number).save(path)
    again_as_jpeg(photo(0), 95).save(root / "val/cat/copy.png")
    photo(5).resize((48, 48)).save(root / "test/cat/smaller.png")
    Image.new("RGB", (64, 64), (40, 40, 41)).save(root / "train/dog/flat.png")
    photo(300).resize((300, 30)).save(root / "train/dog/oblong.png")
    return root


def prepare(project: Path, raw: Path) -> dict:
    set_params(project, source="folder", path=raw, size=32, channels=3)
    run_stage(project, "prepare")
    return dict(json.loads((project / "data/prepared/quality.json").read_text()))


def test_the_table_says_what_is_there(project: Path, raw: Path) -> None:
    table = prepare(project, raw)
    assert table["pictures"] == {"train": 42, "val": 21, "test": 21}
    assert table["per_class"]["train"] == {"cat": 20, "dog": 22}
    assert table["imbalance"] == pytest.approx(1.0, abs=0.1)
    near = table["near_duplicates_across_splits"]
    pairs = {tuple(sorted(pair["pictures"])) for pair in near["first"]}
    assert pairs == {
        ("train: train/cat/000.png", "val: val/cat/copy.png"),
        ("test: test/cat/smaller.png", "train: train/cat/005.png"),
    }
    assert table["constant"] == {"pictures": 1, "first": ["train: train/dog/flat.png"]}
    assert (table["width"], table["height"]) == ([48, 300], [30, 64])
    assert table["enlarged"] == 1
    folder = project / "data/prepared"
    pixels = np.load(folder / "val-images-00000.npy") / 255
    assert table["channels"]["val"]["mean"] == pytest.approx(pixels.mean((0, 1, 2)), abs=1e-5)
    assert table["channels"]["val"]["std"] == pytest.approx(pixels.std((0, 1, 2)), abs=1e-5)
    text = (folder / "quality.md").read_text()
    assert "near-duplicates across splits | 2 pairs" in " ".join(text.split())
    for name in ("near_duplicates.png", *NAMES):
        assert (folder / name).stat().st_size > 100


def test_the_same_pictures_give_the_same_bytes(project: Path, raw: Path) -> None:
    folder = project / "data/prepared"
    prepare(project, raw)
    first = {path.name: path.read_bytes() for path in folder.iterdir()}
    set_params(project, prepare_workers=2)
    prepare(project, raw)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == first


def test_the_run_of_train_gets_what_is_to_look_at(finished: tuple[Path, dict]) -> None:
    from src.data.packed import read_meta
    from src.train import to_look_at

    folder = finished[0] / "data/prepared"
    names = {path.name for path in to_look_at(str(folder), read_meta(folder))}
    assert names >= set(NAMES)
    assert not any(name.endswith(".npy") or name in ("train.csv", "val.csv") for name in names)
