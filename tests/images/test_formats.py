"""Which formats of images are read, and that no image is lost by its ending."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from src.images.decode import READ, SUFFIXES, UNREAD, decode, read_content
from src.images.model import AUTO
from src.images.packing import FILES, read_new
from src.images.value_range import eight_bits
from src.plumbing.errors import InputError
from src.preparation.sources.base import BadSample
from src.preparation.sources.folder import walk
from tests.preparation.image_folders import by_path, prepare_folder, read_csv, write_images

# Endings that Pillow has a name for and that hold no images, or of which it reads none.
NO_IMAGES = {".pdf", ".ps", ".h5", ".hdf", ".bufr", ".grib", ".iim", ".mpg", ".mpeg", ".palm"}
EXACT = (".png", ".bmp", ".tif", ".ppm", ".pnm", ".tga", ".pcx", ".sgi", ".qoi", ".dds", ".apng")


def noise(side: int = 16) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)


def test_every_ending_that_pillow_knows_is_read_or_refused() -> None:
    known = set(Image.registered_extensions())
    assert not known - set(SUFFIXES) - NO_IMAGES
    assert not set(SUFFIXES) & NO_IMAGES
    assert [ending for ending, count in Counter(SUFFIXES).items() if count > 1] == []
    formats = Image.registered_extensions()
    for form, endings in READ.items():
        assert form in Image.OPEN
        assert {formats[ending] for ending in endings.split()} <= {form, "MPO"}


@pytest.mark.parametrize("ending", EXACT)
def test_pixels_of_exact_formats(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"a{ending}"
    Image.fromarray(noise()).save(path)
    assert ending in SUFFIXES
    assert np.array_equal(np.asarray(decode(read_content(path)).image), noise())


def test_an_icon_is_its_largest_image(tmp_path: Path) -> None:
    path = tmp_path / "a.ico"
    Image.fromarray(noise(32)).save(path, sizes=[(16, 16), (32, 32)])
    assert np.array_equal(np.asarray(decode(read_content(path)).image), noise(32))


def test_floats_in_a_pfm(tmp_path: Path) -> None:
    path = tmp_path / "a.pfm"
    grey = noise()[:, :, 0]
    Image.fromarray(grey.astype(np.float32) / 255).save(path)
    image, _ = eight_bits(decode(read_content(path)), AUTO)
    assert np.abs(np.asarray(image).astype(int) - grey).max() <= 1


def test_half_of_the_images_in_another_format_stop_and_are_counted(
    project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = write_images(tmp_path / "images", {"cat": 40, "dog": 40})
    for number in range(20):
        (images / f"cat/{number:03d}.png").rename(images / f"cat/{number:03d}.HEIC")
    with pytest.raises(InputError) as caught:
        prepare_folder(project, images)
    assert str(caught.value).startswith(
        "prepare: cat/000.HEIC cannot be used: HEIC images are not read: save it as PNG or JPEG, "
        "or remove it; 19 more such samples"
    )
    assert len(by_path(prepare_folder(project, images, on_bad="skip"))) == 60
    assert "20 samples cannot be used and were left out (HEIC images are not read: 20)" in (
        capsys.readouterr().out
    )
    rejects = {row["path"] for row in read_csv(project / "data/prepared/rejects.csv")}
    assert rejects == {f"cat/{number:03d}.HEIC" for number in range(20)}


@pytest.mark.parametrize("form", UNREAD)
def test_no_format_is_left_out_by_its_ending(tmp_path: Path, form: str) -> None:
    """Nor is the preview read that a camera raw holds as a TIFF, which was not named."""
    for ending in UNREAD[form].split():
        path = tmp_path / f"a{ending.upper()}"
        Image.fromarray(noise()).save(path, "TIFF")
    found = dict(walk(tmp_path, FILES, Counter()))
    assert len(found) == len(UNREAD[form].split())
    for read in found.values():
        with pytest.raises(BadSample, match=f"{form} images are not read"):
            read()


def test_predict_says_the_same(tmp_path: Path) -> None:
    path = tmp_path / "a.dng"
    Image.fromarray(noise()).save(path, "TIFF")
    about = {"input_size": [3, 8, 8], "fit": "crop", "interpolation": "bilinear"}
    with pytest.raises(InputError, match=r"a\.dng cannot be used: camera raw images are not read"):
        read_new(path, about, "a.dng")


def test_what_phones_call_jpg() -> None:
    with pytest.raises(BadSample, match="HEIC images are not read"):
        decode(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(99))


@pytest.mark.parametrize("first", [b"", b"\0\0\2\0", b"no image ", b"\0\1\1", b"RIFF", b"ID3"])
def test_other_content_is_not_taken_for_a_tga(first: bytes) -> None:
    """Which has no mark: zeros, text, a cursor, sounds."""
    for rest in (bytes(400), b"some text that goes on " * 20):
        with pytest.raises(BadSample):
            decode(first + rest)
