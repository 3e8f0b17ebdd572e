"""What a person looks at before training: near-duplicates, flat images, balance, the table."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from src.data.split import SPLITS
from src.images.near_duplicates import MOST_BITS, close_pairs, differences, perceptual_hash
from src.images.packing import Packer
from src.images.quality import NEAR, Quality
from src.images.quality_figures import CLASSES_SHOWN, class_balance, size_distribution
from tests.conftest import packed, run_stage, set_params


def bins(width: int, height: int) -> tuple[np.ndarray, np.ndarray]:
    """One image of that size, counted as the data set counts it."""
    quality = Quality(["a"], Packer(32, 1, "crop", "bilinear", 1.0))
    quality._count_size(width, height)
    return quality.sizes, quality.shapes


@pytest.mark.parametrize("classes", [2, 100, pytest.param(500, marks=pytest.mark.slow)])
def test_bars_have_room_for_their_names(classes: int, capfd: pytest.CaptureFixture[str]) -> None:
    counts = {split: np.arange(classes) + k for k, split in enumerate(SPLITS)}
    names = [f"$class {number}$" for number in range(classes)]
    image = Image.open(io.BytesIO(class_balance(counts, names)))
    shown = min(classes, CLASSES_SHOWN)
    assert 20 * shown < image.height < 20 * shown + 300  # 20 px for a line of 11
    assert capfd.readouterr() == ("", "")


def test_of_many_classes_the_ends_are_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    figures: list[Any] = []
    monkeypatch.setattr("src.images.quality_figures.png", figures.append)
    counts = {"train": np.roll(np.arange(1000), 7), "val": np.zeros(1000, dtype=int)}
    class_balance(counts, [f"{number}" for number in range(1000)])
    balance = figures[0].axes[0]
    names = [label.get_text() for label in balance.get_yticklabels()]
    assert len(names) == CLASSES_SHOWN
    assert (names[0], names[-1]) == ("6", "7")  # of 999 images and of none
    assert "60 most frequent and the 60 rarest of 1000" in balance.get_title()


SIZES = [(28, 28), (10_000, 10), (140_000, 3), (2**30, 2**30), (1, 1), (1, 4000)]
FAST = [(*sides, 8) for sides in SIZES[:4]] + [(*sides, 4096) for sides in SIZES[4:]]
SLOW = [(*sides, 4096) for sides in SIZES[:4]] + [(*sides, 8) for sides in SIZES[4:]]


@pytest.mark.parametrize(
    ("width", "height", "packed"),
    [*FAST, *(pytest.param(*values, marks=pytest.mark.slow) for values in SLOW)],
)
def test_any_size_is_drawn(
    width: int, height: int, packed: int, capfd: pytest.CaptureFixture[str]
) -> None:
    sizes, shapes = bins(width, height)
    assert sizes.sum() == shapes.sum() == 1
    image = size_distribution(sizes, shapes, (4, 8), packed, "a title with $ in it")
    assert Image.open(io.BytesIO(image)).size == (1400, 440)
    assert capfd.readouterr() == ("", "")


def test_a_square_stands_in_the_middle_of_the_shapes() -> None:
    for width, height, step in ((50, 50, 0), (100, 50, 8), (50, 100, -8), (9, 9_000_000, -48)):
        shapes = bins(width, height)[1]
        assert np.flatnonzero(shapes).tolist() == [len(shapes) // 2 + step]


@pytest.mark.slow
def test_equal_hashes_do_not_make_the_search_quadratic() -> None:
    hashes = np.full(30_000, 12345, dtype=np.uint64)  # two hundred million pairs there are
    pairs, is_part = close_pairs(hashes, np.arange(30_000) % 2, 1000)
    assert (len(pairs), is_part) == (1000, True)


def photo(seed: int, size: int = 64) -> Image.Image:
    """Smooth colours, as different from each other as photos are."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((size, size), Image.Resampling.BICUBIC)


def hash_of(image: Image.Image) -> int:
    small = np.asarray(image.convert("RGB").resize((32, 32), Image.Resampling.BILINEAR))
    return perceptual_hash(small.sum(axis=2, dtype=np.float64))


def again_as_jpeg(image: Image.Image, quality: int) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer)


def test_a_copy_has_a_close_hash_and_another_image_has_not() -> None:
    for seed in range(20):
        image = photo(seed)
        start = hash_of(image)
        for copy in (again_as_jpeg(image, 95), image.resize((40, 40))):
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
    nothing, left_out = close_pairs(np.zeros(9, dtype=np.uint64), np.arange(9), 5)
    assert (nothing.shape, left_out) == ((0, 2), False)


def test_a_copy_differs_less_than_another_image() -> None:
    one, copy, other = (
        np.asarray(image.convert("RGB"))[None]
        for image in (photo(1), again_as_jpeg(photo(1), 95), photo(2))
    )
    assert differences(one, one).tolist() == [0]
    assert differences(one, copy)[0] < NEAR < 2 * NEAR < differences(one, other)[0]


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """80 different images in given splits, two copies across them, a flat one, an oblong one."""
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
    for name in ("near_duplicates.png", "samples.png", "balance.png", "sizes.png"):
        assert (folder / name).stat().st_size > 100


def test_the_same_images_give_the_same_bytes(project: Path, raw: Path) -> None:
    folder = project / "data/prepared"
    prepare(project, raw)
    first = {path.name: path.read_bytes() for path in folder.iterdir()}
    set_params(project, prepare_workers=2)
    prepare(project, raw)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == first


def test_mean_and_std_are_those_of_the_training_pixels(project: Path) -> None:
    train = packed(project)["train"]
    pixels = train.rows(np.arange(len(train))).reshape(-1, 3) / 255
    assert train.meta["mean"] == pytest.approx(pixels.mean(axis=0), rel=1e-5)
    assert train.meta["std"] == pytest.approx(pixels.std(axis=0), rel=1e-5)


def as_palette(image: Image.Image) -> Image.Image:
    return image.quantize(16)


def with_alpha(image: Image.Image) -> Image.Image:
    return image.convert("RGBA")


@pytest.mark.parametrize("made", [None, as_palette, with_alpha])
def test_colour_that_is_packed_as_grey_is_told(
    project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], made: Any
) -> None:
    """The example, photos; its relatives, palettes and images with alpha. Grey ones that are saved
    as colour are not counted."""
    for number in range(60):
        path = tmp_path / "raw" / ("cat", "dog")[number % 2] / f"{number:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        image = photo(number)
        if number < 40:
            (made(image) if made else image).save(path)
        else:  # grey as a colour JPEG, which is what many cameras and scanners write
            image.convert("L").convert("RGB").save(path.with_suffix(".jpg"), quality=80)
    set_params(project, source="folder", path=tmp_path / "raw", size=32, channels=1)
    run_stage(project, "prepare")
    said = "in colour, and packed as grey: 40 of 60 images; prepare.channels=3 keeps their colour"
    assert said in capsys.readouterr().out
    assert said in (project / "data/prepared/quality.md").read_text()
    set_params(project, channels=3)
    packed(project)
    assert "in colour" not in capsys.readouterr().out
