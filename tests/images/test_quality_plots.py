"""Balance and sizes as pictures, of any number of classes and any size."""

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from src.data.split import SPLITS
from src.images.near_duplicates import close_pairs
from src.images.quality.plots import CLASSES_SHOWN, class_balance, size_distribution


def bins(width: int, height: int) -> tuple[np.ndarray, np.ndarray]:
    """One picture of that size, counted as the data set counts it."""
    from src.images.quality.collected import Quality

    quality = Quality(["a"], 32, 1)
    quality._count_size(width, height)
    return quality.sizes, quality.shapes


@pytest.mark.parametrize("classes", [2, 100, pytest.param(500, marks=pytest.mark.slow)])
def test_bars_have_room_for_their_names(classes: int, capfd: pytest.CaptureFixture[str]) -> None:
    counts = {split: np.arange(classes) + k for k, split in enumerate(SPLITS)}
    names = [f"$class {number}$" for number in range(classes)]
    picture = Image.open(io.BytesIO(class_balance(counts, names)))
    shown = min(classes, CLASSES_SHOWN)
    assert 20 * shown < picture.height < 20 * shown + 300  # 20 px for a line of 11
    assert capfd.readouterr() == ("", "")


def test_of_many_classes_the_ends_are_shown() -> None:
    from matplotlib.figure import Figure

    seen: list[Figure] = []
    draw = Figure.savefig
    counts = {"train": np.roll(np.arange(1000), 7), "val": np.zeros(1000, dtype=int)}

    def look(figure: Figure, *args: Any, **options: Any) -> None:
        seen.append(figure)
        draw(figure, *args, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Figure, "savefig", look)
        class_balance(counts, [f"{number}" for number in range(1000)])
    names = [label.get_text() for label in seen[0].axes[0].get_yticklabels()]
    assert len(names) == CLASSES_SHOWN
    assert (names[0], names[-1]) == ("6", "7")  # of 999 pictures and of none
    assert "60 most frequent and the 60 rarest of 1000" in seen[0].axes[0].get_title()


@pytest.mark.parametrize(
    ("width", "height", "packed"),
    [(1, 1, 4096), (28, 28, 8), (10_000, 10, 8), (1, 4000, 4096), (140_000, 3, 8),
     (2**30, 2**30, 8)]
    + [pytest.param(*sides, packed, marks=pytest.mark.slow) for *sides, packed in
       [(1, 1, 8), (28, 28, 4096), (10_000, 10, 4096), (1, 4000, 8), (140_000, 3, 4096),
        (2**30, 2**30, 4096)]],
)  # fmt: skip
def test_any_size_is_drawn(
    width: int, height: int, packed: int, capfd: pytest.CaptureFixture[str]
) -> None:
    sizes, shapes = bins(width, height)
    assert sizes.sum() == shapes.sum() == 1
    picture = size_distribution(sizes, shapes, (4, 8), packed, "a title with $ in it")
    assert Image.open(io.BytesIO(picture)).size == (1400, 440)
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
    nothing, is_part = close_pairs(np.zeros(5, dtype=np.uint64), np.arange(5), 10)
    assert (nothing.shape, is_part) == ((0, 2), False)
