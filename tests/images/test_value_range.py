"""Values of more or fewer than 8 bits: told where they come out dark, and put right by a key."""

import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from src.images.decode import Upright, decode
from src.images.model import AUTO
from src.images.packing import read_new
from src.images.value_range import eight_bits
from src.preparation.sources.base import BadSample
from tests.conftest import run_stage
from tests.preparation.image_folders import prepare_folder

Write = Callable[[np.ndarray, Path], None]


def saved(values: np.ndarray, path: Path) -> None:
    Image.fromarray(values).save(path)


def write(root: Path, kinds: dict[str, Write], count: int = 30) -> Path:
    """Two classes of `count` images of noise in 0..1 (float64 16 x 16) for each ending and writer
    of `kinds`."""
    draws = np.random.default_rng(0)
    for name in ("a", "b"):
        (root / name).mkdir(parents=True)
        for number in range(count):
            for kind, writer in kinds.items():
                writer(draws.random((16, 16)), root / name / f"{number:03d}-{kind}")
    return root


def of_bits(bits: int) -> Write:
    return lambda x, path: saved((x * (2**bits - 1)).round().astype(np.uint16), path)


def floats(top: float, low: float = 0.0) -> Write:
    return lambda x, path: saved((low + x * (top - low)).astype(np.float32), path)


def of_bytes(top: int) -> Write:
    return lambda x, path: saved((x * top).round().astype(np.uint8), path)


def lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    """What was printed of the images: not the first line, nor that a class has few in a split."""
    printed = capsys.readouterr().out.splitlines()[1:]
    return [line for line in printed if not line.endswith("is measured on such a class")]


def test_12_bits_in_16_are_told_and_put_right_by_the_key(
    project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = write(tmp_path / "images", {"x.png": of_bits(12)})
    dark = prepare_folder(project, images, channels=1)
    (line,) = lines(capsys)
    assert line == (
        "prepare: 60 images of 16 bits with no value above 4095, so that the brightest becomes 16 "
        "of 255: if that is their full range, set prepare.value_range=4095"
    )
    assert dark["train"].rows([0]).max() <= 16
    bright = prepare_folder(project, images, channels=1, value_range=4095)
    assert lines(capsys) == []
    row, path = bright["train"].rows([0])[0], bright["train"].paths[0]
    wanted = np.asarray(Image.open(images / path)).astype(float) * 255 / 4095
    assert np.abs(row[:, :, 0] - wanted).max() <= 0.5
    meta = bright["train"].meta
    assert meta["value_range"] == 4095
    about = {**meta, "input_size": [1, 16, 16]}
    assert (read_new(str(images / path), about, path) == row).all()  # as predict reads it


def test_8_and_16_bits_beside_each_other_are_told(
    project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kinds = {"x.png": of_bits(16), "y.png": of_bytes(255)}
    prepare_folder(project, write(tmp_path / "images", kinds, 20), channels=1)
    (line,) = lines(capsys)
    assert "40 of 16 bits (white: 65535), 40 of 8 bits (white: 255)" in line
    assert "prepare.value_range" in line
    prepare_folder(project, tmp_path / "images", channels=1, value_range=65535)
    assert lines(capsys) == []


def whole(top: int) -> Write:
    return lambda x, path: saved((x * top).round().astype(np.int32), path)


def test_kinds_of_one_white_are_no_different_ranges(
    project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of 8 and of 32 bits; and beside a third kind they stand together."""
    kinds = {"x.tif": whole(255), "y.png": of_bytes(255)}
    prepare_folder(project, write(tmp_path / "two", kinds, 20), channels=1)
    assert lines(capsys) == []
    kinds["z.png"] = of_bits(16)
    prepare_folder(project, write(tmp_path / "three", kinds, 20), channels=1)
    (line,) = lines(capsys)
    assert "40 of 16 bits (white: 65535), 40 of 32 bits and 40 of 8 bits (white: 255): " in line


RELATIVES: dict[str, tuple[dict[str, Write], str, str]] = {
    "floats far below 1": (
        {"x.tif": floats(0.0123)},
        "60 images of floats with no value above 0.0123",
        "0.013",
    ),
    "floats of 12 bits": ({"x.tif": floats(4095.0)}, "no value above 409", "4100"),
    "floats below 0": ({"x.tif": floats(1.0, -1.0)}, "each becomes 8 bits by its own lowest", ""),
    "bytes of 0 and 1": (
        {"x.png": of_bytes(1)},
        "60 images of 8 bits with no value above 1, so that the brightest becomes 1 of 255",
        "1",
    ),
    "whole numbers of 32 bits": (
        {"x.tif": whole(999)},
        "60 images of 32 bits with no value above 999",
        "1023",
    ),
}


@pytest.mark.parametrize("name", RELATIVES)
def test_other_types_that_come_out_dark_are_told(
    name: str, project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kinds, told, value = RELATIVES[name]
    images = write(tmp_path / "images", kinds)
    prepare_folder(project, images, channels=1)
    found = [line for line in lines(capsys) if "nearly so once packed" not in line]
    assert len(found) == 1
    assert told in found[0]
    if value:
        assert found[0].endswith(f"set prepare.value_range={value}")
        splits = prepare_folder(project, images, channels=1, value_range=value)
        assert lines(capsys) == []
        assert splits["train"].rows(range(20)).std() > 50


def test_what_uses_its_type_to_the_full_is_not_told(
    project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number, kind in enumerate((of_bits(16), floats(1.0), floats(255.0))):
        prepare_folder(project, write(tmp_path / f"{number}", {"x.tif": kind}), channels=1)
        assert lines(capsys) == []
    prepare_folder(project, write(tmp_path / "bytes", {"x.png": of_bytes(255)}), channels=1)
    assert lines(capsys) == []


def test_values_beyond_the_range_are_cut_off_and_told(
    project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = write(tmp_path / "images", {"x.png": of_bits(12)})
    prepare_folder(project, images, channels=1, value_range=1000)
    (line,) = lines(capsys)
    assert "60 images of 16 bits with values beyond 0 and 1000, prepare.value_range" in line


def test_quality_says_it_too(project: Path, tmp_path: Path) -> None:
    images = write(tmp_path / "images", {"x.png": of_bits(10), "y.png": of_bytes(0)}, 20)
    from tests.conftest import set_params

    set_params(project, source="folder", path=images, channels=1, on_leak="drop")
    run_stage(project, "prepare")
    folder = project / "data/prepared"
    found = json.loads((folder / "quality.json").read_text())
    assert found["values"][0] == {
        "values": "16 bits",
        "white": 65535.0,
        "pictures": 40,
        "lowest": 0.0,
        "highest": 1023.0,
    }
    text = (folder / "quality.md").read_text()
    assert "- 40 images of 16 bits with no value above 1023" in text
    assert "constant or nearly so once packed" in text
    assert "| 16 bits " in text


def rgba(colour: tuple[int, int, int], alpha: np.ndarray) -> Image.Image:
    pixels = np.empty((*alpha.shape, 4), np.uint8)
    pixels[:, :, :3], pixels[:, :, 3] = colour, alpha
    return Image.fromarray(pixels)


def test_what_is_in_the_alpha_channel_alone_is_seen(
    project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """White letters on nothing were white on white."""

    def letters(x: np.ndarray, path: Path) -> None:
        rgba((255, 255, 255), (x * 255).astype(np.uint8)).save(path)

    splits = prepare_folder(project, write(tmp_path / "images", {"x.png": letters}), channels=1)
    assert splits["train"].rows(range(20)).std() > 50
    assert lines(capsys) == [
        "prepare: 60 transparent images show nothing on white and were put on black"
    ]


def test_transparent_images_that_show_something_on_white_stay_there() -> None:
    alpha = np.arange(256, dtype=np.uint8).reshape(16, 16)
    assert Upright.of(rgba((0, 0, 0), alpha)).image.getpixel((0, 0)) == (255, 255, 255)
    assert Upright.of(rgba((0, 0, 0), alpha)).ground == "white"
    nothing = Upright.of(rgba((10, 200, 30), alpha * 0))
    assert (nothing.ground, nothing.image.getpixel((3, 3))) == ("none", (10, 200, 30))
    constant = Upright.of(rgba((255, 255, 255), alpha * 0 + 255))
    assert (constant.ground, constant.image.getpixel((3, 3))) == ("white", (255, 255, 255))


def png_of_16_bit_colours(values: np.ndarray) -> bytes:
    """A PNG by hand, as Pillow writes none: `values` uint16 H x W x 3."""
    import zlib

    def chunk(kind: bytes, data: bytes) -> bytes:
        check = zlib.crc32(kind + data).to_bytes(4, "big")
        return len(data).to_bytes(4, "big") + kind + data + check

    height, width, _ = values.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    size = width.to_bytes(4, "big") + height.to_bytes(4, "big")
    header = chunk(b"IHDR", size + bytes((16, 2, 0, 0, 0)))
    body = chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + header + body


def test_colours_of_16_bits_keep_8_of_them_and_that_is_known() -> None:
    values = np.random.default_rng(0).integers(0, 4096, (8, 8, 3)).astype(np.uint16)
    found = decode(png_of_16_bit_colours(values))
    assert found.narrowed
    image, facts = eight_bits(found, AUTO)
    assert (np.asarray(image) == values >> 8).all()
    assert facts.kind == "16 bits, as 8 bits"
    with pytest.raises(BadSample, match="its colours have 16 bits, of which 8 are read"):
        eight_bits(found, 4095.0)
    buffer = io.BytesIO()
    Image.fromarray(values[:, :, 0]).save(buffer, "PNG")
    assert not decode(buffer.getvalue()).narrowed  # grey: Pillow keeps all of them


def test_a_range_that_is_set_for_16_bits_is_no_remark_on_dark_bytes(
    project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """To follow it would cut off the others."""
    images = write(tmp_path / "images", {"x.png": of_bits(12), "y.png": of_bytes(119)}, 30)
    prepare_folder(project, images, channels=1, value_range=4095)
    assert not any("value_range=" in line for line in lines(capsys))
