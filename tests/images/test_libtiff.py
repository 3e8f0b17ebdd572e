"""What libtiff says of a damaged file goes to the file's reason, not to the terminal."""

import contextlib
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from src.images.decode import decode
from src.preparation.sources.base import BadSample
from tests.preparation.image_folders import prepare_folder, read_csv, write_images


def tiff(compression: str) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (400, 64, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "TIFF", compression=compression)
    return buffer.getvalue()


def middle_overwritten(content: bytes) -> bytes:
    half = len(content) // 2
    return content[:half] + b"\xff\x00" * 2000 + content[half + 4000 :]


def unknown_tag(content: bytes) -> bytes:
    """One of the first entries of the directory gets a number that nobody knows."""
    start = int.from_bytes(content[4:8], "little")
    damaged = bytearray(content)
    damaged[start + 2 + 12 * 8 : start + 4 + 12 * 8] = (60_001).to_bytes(2, "little")
    return bytes(damaged)


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_adobe_deflate", "jpeg", "packbits"])
@pytest.mark.parametrize("damage", [middle_overwritten, unknown_tag])
def test_nothing_is_printed(
    compression: str, damage: Callable[[bytes], bytes], capfd: pytest.CaptureFixture[str]
) -> None:
    with contextlib.suppress(BadSample):
        decode(damage(tiff(compression)))
    assert capfd.readouterr().err == ""


def test_the_reason_stands_beside_the_name_of_the_file(
    project: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    images = write_images(tmp_path / "images", {"a": 40, "b": 40})
    (images / "a/damaged.tif").write_bytes(middle_overwritten(tiff("tiff_lzw")))
    prepare_folder(project, images, on_bad="skip")
    assert capfd.readouterr().err == ""
    [row] = read_csv(project / "data/prepared/rejects.csv")
    assert row["path"] == "a/damaged.tif"
    assert row["reason"].startswith("it is cut short or damaged (")
    assert "decoder error" not in row["reason"]  # Pillow's words, which say nothing
