"""How an image of any shape becomes a square: interpolation and crop ratio."""

import hashlib

import numpy as np
import pytest
from PIL import Image, ImageOps

from src.images.fit import fit_image
from src.plumbing.errors import InputError

# sha256 of fit_image's output (grey, RGB) before it knew interpolation and crop_ratio.
RECORDED = {
    ("crop", (8, 8)): ("970bad2f7a3df160", "c4af45ccaa8508c9"),
    ("crop", (53, 31)): ("c0782b3f696e61a6", "864c3b062b2b5e25"),
    ("crop", (31, 53)): ("44670bb3a7ebbe6a", "e27db4a45e4ef9b3"),
    ("crop", (28, 28)): ("043ea99be89dc887", "c8cbd889ffe7e28a"),
    ("pad", (8, 8)): ("970bad2f7a3df160", "c4af45ccaa8508c9"),
    ("pad", (53, 31)): ("cd6d6858f1e6007e", "acd948155e2aaa8f"),
    ("pad", (31, 53)): ("663ba1fbda0f6adb", "2515691434092e45"),
    ("pad", (28, 28)): ("043ea99be89dc887", "c8cbd889ffe7e28a"),
    ("squash", (8, 8)): ("970bad2f7a3df160", "c4af45ccaa8508c9"),
    ("squash", (53, 31)): ("4473d03b4425bd91", "e87a07f17ca7f0bf"),
    ("squash", (31, 53)): ("b661d55b656cb9a3", "99cc2dbf8db731b0"),
    ("squash", (28, 28)): ("043ea99be89dc887", "c8cbd889ffe7e28a"),
}
SHAPES = [(8, 8), (53, 31), (31, 53), (200, 7), (28, 28)]
METHODS = ("bilinear", "bicubic", "lanczos", "nearest")


def random_image(size: tuple[int, int], channels: int = 3) -> Image.Image:
    rng = np.random.default_rng(size[0] * 1000 + size[1])
    pixels = rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(pixels if channels == 3 else pixels[:, :, 0])


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("fit", "shape"), RECORDED)
def test_the_defaults_give_the_bits_they_always_gave(
    fit: str, shape: tuple[int, int], channels: int
) -> None:
    pixels = fit_image(random_image(shape, channels), 28, channels, fit)
    recorded = RECORDED[fit, shape][channels == 3]
    assert hashlib.sha256(pixels.tobytes()).hexdigest()[:16] == recorded


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("method", METHODS)
def test_without_a_crop_it_is_pillows_own(method: str, shape: tuple[int, int]) -> None:
    image, resampling = random_image(shape), Image.Resampling[method.upper()]
    expected = {
        "crop": ImageOps.fit(image, (24, 24), resampling),
        "pad": ImageOps.pad(image, (24, 24), resampling),
        "squash": image.resize((24, 24), resampling),
    }
    for fit, wanted in expected.items():
        pixels = fit_image(image, 24, 3, fit, method)
        assert np.array_equal(pixels, np.asarray(wanted)), fit


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("shape", [(64, 64), (96, 60), (60, 96)])
@pytest.mark.parametrize("fit", ["crop", "pad", "squash"])
def test_crop_ratio_is_a_larger_square_with_the_middle_cut_out(
    fit: str, shape: tuple[int, int], method: str
) -> None:
    image = random_image(shape)
    larger = fit_image(image, 32, 3, fit, method)[4:28, 4:28]  # 24 / 0.75 = 32
    pixels = fit_image(image, 24, 3, fit, method, crop_ratio=0.75)
    # The edge of what `pad` shows falls between two pixels of the source, and is rounded.
    inner = slice(3, -3) if fit == "pad" else slice(None)
    difference = np.abs(pixels.astype(int) - larger)[inner, inner]
    # Pillow takes or leaves a source pixel by half a pixel's distance, where rounding decides.
    assert difference.max() <= 8
    assert difference.mean() < 0.5  # a shift by a pixel gives about 40 here
    assert not np.array_equal(pixels, fit_image(image, 24, 3, fit, method))


def test_cropping_cuts_the_black_of_pad_first() -> None:
    wide = Image.new("L", (80, 40), 255)
    whole = fit_image(wide, 40, 1, "pad")[:, :, 0]
    assert (whole == 255).mean() == 0.5
    middle = fit_image(wide, 40, 1, "pad", crop_ratio=0.8)[:, :, 0]
    assert (middle[:7] == 0).all()
    assert (middle[8:32] == 255).all()
    assert (fit_image(wide, 40, 1, "pad", crop_ratio=0.5) == 255).all()


def test_squash_cuts_both_sides_by_the_same_share() -> None:
    pixels = np.zeros((40, 80), dtype=np.uint8)
    pixels[10:30, 20:60] = 255
    image = Image.fromarray(pixels)
    assert (fit_image(image, 16, 1, "squash", "nearest", 0.5) == 255).all()
    assert (fit_image(image, 16, 1, "squash", "nearest", 0.75) == 0).any()


def test_interpolations_differ() -> None:
    results = {fit_image(random_image((64, 64)), 24, 3, "crop", m).tobytes() for m in METHODS}
    assert len(results) == len(METHODS)


@pytest.mark.parametrize("fit", ["crop", "pad", "squash"])
def test_a_line_of_pixels_can_be_fitted(fit: str) -> None:
    pixels = fit_image(Image.new("L", (900, 1), 255), 16, 1, fit, crop_ratio=0.9)
    assert pixels.shape == (16, 16, 1)
    assert (pixels == 255).any()


def test_an_unknown_fit_is_refused() -> None:
    with pytest.raises(InputError, match="fit must be crop, pad or squash, got 'stretch'"):
        fit_image(random_image((20, 30)), 16, 3, "stretch")
