"""Every awkward file in a folder is used, refused with a reason and a remedy, or no image."""

import contextlib
import io
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from src.base.imports import ROOT
from tests.conftest import SMALL, copy_project, set_params
from tests.preparation.image_folders import read_csv, report, write_images, write_splits

USED, IGNORED = "used", "ignored"
SIDE = 24


def random_pixels(name: str, channels: int = 3) -> np.ndarray:
    """Other pixels for every name."""
    rng = np.random.default_rng(zlib.crc32(name.encode("utf-8", "surrogateescape")))
    coarse = rng.integers(0, 256, (4, 4, channels), dtype=np.uint8)
    return coarse.repeat(SIDE // 4, axis=0).repeat(SIDE // 4, axis=1)


def saved(path: Path, form: str, mode: str = "RGB", **options: Any) -> bytes:
    image = Image.fromarray(random_pixels(path.name)).convert(mode)
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def image(form: str, mode: str = "RGB", cut: float = 1, **options: Any) -> Callable[[Path], None]:
    """Writes an image, or the first part of its bytes."""

    def write(path: Path) -> None:
        content = saved(path, form, mode, **options)
        path.write_bytes(content[: int(len(content) * cut)])

    return write


def content(data: bytes) -> Callable[[Path], int]:
    return lambda path: path.write_bytes(data)


def array(values: Callable[[np.ndarray], np.ndarray]) -> Callable[[Path], None]:
    """Writes grey noise, changed by `values` into another type."""
    return lambda path: Image.fromarray(values(random_pixels(path.name, 1)[:, :, 0])).save(path)


def frames(form: str) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        later = [Image.fromarray(random_pixels(f"{path.name} {number}")) for number in range(3)]
        path.write_bytes(saved(path, form, save_all=True, append_images=later))

    return write


def exif(orientation: int, form: str = "JPEG") -> Callable[[Path], None]:
    tags = Image.Exif()
    tags[0x0112] = orientation
    return image(form, exif=tags)


def png_of(width: int, height: int) -> bytes:
    """A small PNG that says it has so many pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        check = zlib.crc32(kind + data).to_bytes(4, "big")
        return len(data).to_bytes(4, "big") + kind + data + check

    size = width.to_bytes(4, "big") + height.to_bytes(4, "big")
    header = chunk(b"IHDR", size + bytes((1, 0, 0, 0, 0)))
    rows = chunk(b"IDAT", zlib.compress(bytes(1000)))
    return b"\x89PNG\r\n\x1a\n" + header + rows + chunk(b"IEND", b"")


def link(target: str, is_folder: bool = False) -> Callable[[Path], None]:
    return lambda path: path.symlink_to(target, is_folder)


def linked_below(path: Path) -> None:
    path.parent.mkdir()
    path.symlink_to("../../dog", True)


def huge(path: Path) -> None:
    with open(path, "wb") as file:
        file.write(saved(path, "PNG"))
        file.truncate(2**30 + 1)  # sparse: takes no place


def damaged_check_sum(path: Path) -> None:
    data = bytearray(saved(path, "PNG"))
    data[data.index(b"IDAT") + 8] ^= 0xFF
    path.write_bytes(data)


def inside(name: str) -> Callable[[Path], None]:
    """A folder of that name with an image in it."""

    def write(path: Path) -> None:
        path.mkdir(parents=True)
        image("PNG")(path / name)

    return write


def bound_socket(path: Path) -> None:
    with contextlib.chdir(path.parent):  # the path of a socket must be short
        socket.socket(socket.AF_UNIX).bind(path.name)


def exif_block(data: bytes) -> Callable[[Path], None]:
    return image("JPEG", exif=b"Exif\0\0" + data)


TRUNCATED, NO_IMAGE = "it is cut short or damaged", "it holds no image"
PIXELS, LINK, NO_FILE = "it has too many pixels", "it is a link", "it is no file"
EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n(x) run\n%%EOF\n"
SVG = b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"/>'

# Name below the class folder -> how it is made; USED, IGNORED or the beginning of the reason.
CASES: dict[str, tuple[Callable[[Path], Any], str]] = {
    "a.jpg": (image("JPEG"), USED),
    "A.jpg": (image("JPEG"), USED),  # a case twin
    "UPPER.JPEG": (image("JPEG"), USED),
    "a.png": (image("PNG"), USED),
    "a.bmp": (image("BMP"), USED),
    "a.gif": (image("GIF"), USED),
    "a.webp": (image("WEBP"), USED),
    "a.avif": (image("AVIF"), USED),
    "a.tif": (image("TIFF"), USED),
    "a.tiff": (image("TIFF", compression="tiff_lzw"), USED),
    "a.jp2": (image("JPEG2000"), USED),
    "a.ppm": (image("PPM"), USED),
    "a.pgm": (image("PPM", "L"), USED),
    "a.tga": (image("TGA"), USED),
    "a.ico": (image("ICO"), USED),
    "a.pcx": (image("PCX"), USED),
    "a.sgi": (image("SGI"), USED),
    "a.dds": (image("DDS"), USED),
    "a.pfm": (array(lambda x: (x / 255).astype(np.float32)), USED),
    "half.tga": (image("TGA", cut=0.5), TRUNCATED),
    "a.heic": (content(b"\0\0\0\x18ftypheic"), "HEIC images are not read"),
    "heic inside.jpg": (content(b"\0\0\0\x18ftypheic"), "HEIC images are not read"),
    "preview inside.dng": (image("TIFF"), "camera raw images are not read"),
    "vector.svg": (content(SVG), "vector images are not read"),
    "progressive.jpg": (image("JPEG", progressive=True), USED),
    "png inside.jpg": (image("PNG"), USED),
    "jpeg inside.png": (image("JPEG"), USED),
    "trailing.jpg": (lambda path: path.write_bytes(saved(path, "JPEG") + b"x" * 500), USED),
    "cmyk.jpg": (image("JPEG", "CMYK"), USED),
    "grey.jpg": (image("JPEG", "L"), USED),
    "alpha.png": (image("PNG", "RGBA"), USED),
    "grey alpha.png": (image("PNG", "LA"), USED),
    "palette.png": (image("PNG", "P"), USED),
    "palette transparent.png": (image("PNG", "P", transparency=b"\0\x80"), USED),
    "bilevel.png": (image("PNG", "1"), USED),
    "ycbcr.tif": (image("TIFF", "YCbCr"), USED),
    "sixteen.png": (array(lambda x: x.astype(np.uint16) * 257), USED),
    "sixteen.tif": (array(lambda x: x.astype(np.uint16) * 257), USED),
    "thirty two.tif": (array(lambda x: x.astype(np.int32) * 1000), USED),
    "float.tif": (array(lambda x: (x / 255).astype(np.float32)), USED),
    "negative.tif": (array(lambda x: (x / 127 - 1).astype(np.float32)), USED),
    "nan.tif": (array(lambda x: np.where(x > 99, np.nan, x).astype(np.float32)), "some of its pix"),
    "lab.tif": (image("TIFF", "LAB"), USED),
    **{f"exif {number}.jpg": (exif(number), USED) for number in range(1, 9)},
    "exif 99.jpg": (exif(99), USED),
    "exif nonsense.jpg": (exif_block(b"II*\0\xff\xff\xff\xff" + b"\x12" * 40), USED),
    "exif cut.jpg": (exif_block(b"MM\0*\0\0\0\x08\0\x05\x01"), USED),
    "animated.gif": (frames("GIF"), USED),
    "animated.webp": (frames("WEBP"), USED),
    "animated.png": (frames("PNG"), USED),
    "pages.tif": (frames("TIFF"), USED),
    "preview inside.jpg": (frames("MPO"), USED),
    "one pixel.png": (lambda path: Image.new("RGB", (1, 1), "red").save(path), USED),
    "wide.png": (lambda path: Image.new("RGB", (10000, 10), "green").save(path), USED),
    "tall.png": (lambda path: Image.new("RGB", (10, 10000), "blue").save(path), USED),
    "black.png": (lambda path: Image.new("RGB", (9, 9)).save(path), USED),
    "кот.png": (image("PNG"), USED),
    "猫 👒.png": (image("PNG"), USED),
    "e\u0301te\u0301.png": (image("PNG"), USED),  # decomposed accents
    " leading.png": (image("PNG"), USED),
    "-rf.png": (image("PNG"), USED),
    'comma, "quote" & #50%.png': (image("PNG"), USED),
    "line\nbreak.png": (image("PNG"), USED),
    "x" * 240 + ".png": (image("PNG"), USED),
    "folder.jpg/inside.png": (lambda path: inside(path.name)(path.parent), USED),
    "a/b/c/d.png": (lambda path: inside(path.name)(path.parent), USED),
    "to a file.png": (link("a.png"), USED),
    "half.jpg": (image("JPEG", cut=0.5), TRUNCATED),
    "header.jpg": (image("JPEG", cut=0.3), TRUNCATED),
    "last bytes.jpg": (lambda path: path.write_bytes(saved(path, "JPEG")[:-2]), TRUNCATED),
    "half.png": (image("PNG", cut=0.5), TRUNCATED),
    "half.gif": (image("GIF", cut=0.5), TRUNCATED),
    "half.webp": (image("WEBP", cut=0.5), TRUNCATED),
    "half.avif": (image("AVIF", cut=0.5), NO_IMAGE),
    "half.tif": (image("TIFF", compression="tiff_lzw", cut=0.5), NO_IMAGE),
    "half.jp2": (image("JPEG2000", cut=0.3), TRUNCATED),
    "half.bmp": (image("BMP", cut=0.5), TRUNCATED),
    "check sum.png": (damaged_check_sum, TRUNCATED),
    "empty.jpg": (content(b""), "it is empty"),
    "noise.png": (content(bytes(range(256)) * 3), NO_IMAGE),
    "text.jpg": (content(b"no image"), NO_IMAGE),
    "drawing.png": (content(SVG), NO_IMAGE),
    "postscript.jpg": (content(EPS), NO_IMAGE),  # a program that Pillow would run
    "archive.jpg": (content(b"PK\x03\x04" + bytes(99)), NO_IMAGE),
    "document.png": (content(b"%PDF-1.7\n"), NO_IMAGE),
    "page.jpg": (content(b"\n<!DOCTYPE html><html>404</html>"), "it is a web page"),
    "pointer.jpg": (content(b"version https://git-lfs.github.com/spec/v1\n"), "it is a pointer"),
    "bomb.png": (content(png_of(9500, 9500)), PIXELS),
    "large bomb.png": (content(png_of(20000, 20000)), PIXELS),
    "larger than memory.png": (content(png_of(2**31 - 1, 2**31 - 1)), ""),
    "no width.png": (content(png_of(0, 9)), ""),
    "huge.png": (huge, "it is larger than 1 GiB"),
    "nowhere.jpg": (link("nothing.jpg"), LINK + " that leads nowhere"),
    "loop.jpg": (link("loop.jpg"), LINK + " that leads back to itself"),
    "pipe.jpg": (os.mkfifo, NO_FILE),
    "socket.png": (bound_socket, NO_FILE),
    "up": (link("..", True), LINK + " to a folder"),
    "deep/linked": (linked_below, LINK + " to a folder"),
    "edited~": (lambda path: inside("a.png")(path), "DVC takes no notice"),
    "long.png": (content(png_of(70_000, 9)), "one of its sides is too long"),
    "upright.tif": (exif(6, "TIFF"), USED),
    "carriage\rreturn.png": (image("PNG"), "its name has a carriage return"),
    "caf\udce9.png": (image("PNG"), "its name is not UTF-8"),
    "._a.jpg": (content(b"\0\5\x16\7"), IGNORED),
    ".DS_Store": (content(b"\0\0\0\1Bud1"), IGNORED),
    "Thumbs.db": (content(b"\xd0\xcf\x11\xe0"), IGNORED),
    "desktop.ini": (content(b"[.ShellClassInfo]"), IGNORED),
    "notes.txt": (content(b"a note"), IGNORED),
    "no ending": (image("PNG"), IGNORED),
    "pipe": (os.mkfifo, IGNORED),
    ".hidden/a.png": (lambda path: inside(path.name)(path.parent), IGNORED),
    "empty.jpg folder.jpg": (lambda path: path.mkdir(), IGNORED),
}  # fmt: skip
# What a file system may not take: names that are not UTF-8, twins by case.
OPTIONAL = ("caf\udce9.png", "A.jpg")
DIFFERENT_NAME = {"carriage\rreturn.png": "carriage\\rreturn.png", "caf\udce9.png": "caf\\xe9.png"}
CLASS = "cat"


def write_good(folder: Path) -> None:
    folder.mkdir(parents=True)
    for number in range(40):
        image("PNG")(folder / f"{folder.name} good {number:02d}.png")


def run_prepare(
    project: Path, images: Path, **values: object
) -> "subprocess.CompletedProcess[str]":
    set_params(project, source="folder", path=images, **values)
    return subprocess.run(
        [sys.executable, "-m", "src.prepare"], cwd=project, capture_output=True, text=True
    )


class Outcome:
    def __init__(self, prepared: Path, printed: str, missing: set[str]):
        self.prepared, self.printed, self.missing = prepared, printed, missing
        self.report = json.loads((prepared / "report.json").read_text())
        self.rejects = {row["path"]: row for row in read_csv(prepared / "rejects.csv")}
        self.used = {
            row["path"]: (split, int(row["index"]))
            for split in ("train", "val", "test")
            for row in read_csv(prepared / f"{split}.csv")
        }

    def pixels(self, path: str) -> np.ndarray:
        split, index = self.used[path]
        return np.load(self.prepared / f"{split}-images-00000.npy")[index]


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, set[str]]:
    """The folder, and the cases that this file system does not take."""
    root = tmp_path_factory.mktemp("hostile") / "images"
    for name in (CLASS, "Cat", "dog"):
        if not (root / name).exists():
            write_good(root / name)
    (root / "empty class").mkdir()
    (root / "__MACOSX").mkdir()
    (root / "__MACOSX/._a.jpg").write_bytes(b"\0")
    image("JPEG")(root / "loose.jpg")
    (root / "linked").symlink_to(root / "dog", True)
    shutil.copytree(root / "dog", root / "copied")
    missing = set()
    for name, (make, _) in CASES.items():
        path = root / CLASS / name
        try:
            if path.exists():
                raise OSError
            make(path)
        except OSError:
            assert name in OPTIONAL, name
            missing.add(name)
    return root, missing


@pytest.fixture(scope="module")
def outcome(hostile: tuple[Path, set[str]], tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    project = copy_project(tmp_path_factory.mktemp("outcome") / "project")
    set_params(project, **SMALL)
    ended = run_prepare(project, hostile[0], on_bad="skip", size=SIDE)
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr == ""
    return Outcome(project / "data/prepared", ended.stdout, hostile[1])


@pytest.mark.parametrize("name", CASES, ids=ascii)
def test_each_file_gets_what_it_should(outcome: Outcome, name: str) -> None:
    if name in outcome.missing:
        pytest.skip("this file system does not take it")
    expected, path = CASES[name][1], f"{CLASS}/{DIFFERENT_NAME.get(name, name)}"
    row = outcome.rejects.get(path)
    found = USED if path in outcome.used else IGNORED if row is None else row["reason"]
    if expected in (USED, IGNORED):
        assert found == expected
    else:
        assert row is not None, found
        assert found.startswith(expected)
        assert row["what to do"]
        assert "object at" not in found


def test_nothing_is_lost_and_nothing_counted_twice(outcome: Outcome) -> None:
    cases = [case for case in CASES if case not in outcome.missing]
    assert len(cases) >= 60
    assert not set(outcome.used) & set(outcome.rejects)
    rejected = [case for case in cases if CASES[case][1] not in (USED, IGNORED)]
    rejected += ["linked", "loose.jpg"]
    assert len(outcome.rejects) == len(rejected) == outcome.report["rejects"]["count"]
    assert sum(outcome.report["rejects"]["by_reason"].values()) == len(rejected)
    assert len(outcome.used) == outcome.report["used"]
    # 9 ignored of the cases, of which one is no file; __MACOSX's.
    assert outcome.report["files_left_out"] == 9 - 1 + 1
    assert f"{len(rejected)} samples cannot be used" in outcome.printed


def test_odd_classes(outcome: Outcome) -> None:
    classes = json.loads((outcome.prepared / "meta.json").read_text())["classes"]
    assert {"cat", "copied", "dog"} <= set(classes)
    assert outcome.rejects["linked"]["reason"].startswith("it is a link to a folder, and DVC")
    assert outcome.report["classes_without_pictures"] == ["__MACOSX", "empty class"]
    assert ("classes 'Cat' and 'cat' differ by case" in outcome.printed) == ("Cat" in classes)


def test_what_was_changed_is_counted(outcome: Outcome) -> None:
    report = outcome.report
    assert report["turned_upright"] == 8
    assert report["frames_left_out"] == {"pictures": 4, "frames": 12}
    modes = report["converted_modes"]
    assert {"CMYK": 1, "1": 1, "LA": 1, "I": 1, "F": 3}.items() <= modes.items()
    # The copied class has the images of another one, under another name.
    assert report["conflicting_labels"]["count"] == 40
    assert report["identical_pictures"] >= 40


def test_the_pixels_are_the_right_ones(outcome: Outcome) -> None:
    def grey(name: str) -> np.ndarray:
        return random_pixels(name, 1).astype(int)

    for name in ("sixteen.png", "sixteen.tif", "float.tif"):
        assert np.abs(outcome.pixels(f"cat/{name}") - grey(name)).max() <= 1, name
    # Beyond 16 bits, and below zero: from their own range.
    for name in ("thirty two.tif", "negative.tif"):
        wanted = grey(name)
        scaled = (wanted - wanted.min()) / (wanted.max() - wanted.min()) * 255
        assert np.abs(outcome.pixels(f"cat/{name}") - scaled).max() <= 1, name
    for name in ("animated.png", "pages.tif", "animated.webp"):
        difference = outcome.pixels(f"cat/{name}") - random_pixels(name).astype(int)
        assert np.abs(difference).mean() < 15, name


@pytest.mark.parametrize("workers", [0, 2])
def test_fail_names_the_first_and_counts_the_rest(
    hostile: tuple[Path, set[str]], outcome: Outcome, project: Path, workers: int
) -> None:
    ended = run_prepare(project, hostile[0], prepare_workers=workers)
    assert ended.returncode == 2
    (line,) = ended.stderr.splitlines()
    first, more = next(iter(outcome.rejects)), len(outcome.rejects) - 1
    assert line.startswith(f"prepare: {first} cannot be used: ")
    assert f"; {more} more such samples, all in .cache/prepare/rejects.csv; " in line
    assert not (project / "data/prepared").exists()
    for name in ("rejects.csv", "report.json"):
        kept = (project / ".cache/prepare" / name).read_bytes()
        assert kept == (outcome.prepared / name).read_bytes()


def test_one_bad_file_is_said_in_the_singular(project: Path, tmp_path: Path) -> None:
    images = write_images(tmp_path / "images", {"a": 40, "b": 40})
    (images / "b/x.png").touch()
    ended = run_prepare(project, images)
    assert ended.stderr == (
        "prepare: b/x.png cannot be used: it is empty: get it again from where it came, or remove "
        "it; see .cache/prepare/rejects.csv; prepare.on_bad=skip goes on without it\n"
    )


# Root reads everything, so the reader gives up its rights once all is imported.
UNREADABLE = """
import json, os, sys
from PIL import Image
import numpy
from src.images.packing import FILES, Packed, Packer
from src.preparation.sources.folder import class_folders
from src.preparation.workers import read_in_order
Image.init()
if os.getuid() == 0:
    os.setgroups([]); os.setgid(65534); os.setuid(65534)
source = class_folders({"prepare.path": sys.argv[1]}, FILES)
packer = Packer(8, 3, "crop", "bilinear", 1.0)
found = {
    item.name: "used" if isinstance(result, Packed) else result.reason
    for item, result in read_in_order(source.items, packer, 0)
}
print(json.dumps(found))
"""


def test_files_and_folders_without_permission() -> None:
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        root.chmod(0o755)
        write_images(root, {"cat": 2, "dog": 2, "locked": 2})
        (root / "dog/inner").mkdir()
        image("PNG")(root / "dog/inner/x.png")
        closed = [root / "cat/000.png", root / "dog/inner", root / "locked"]
        for path in closed:
            path.chmod(0)
        try:
            ended = subprocess.run(
                [sys.executable, "-c", UNREADABLE, name], cwd=ROOT, capture_output=True, text=True
            )
        finally:
            for path in closed:
                path.chmod(0o700)
        assert ended.returncode == 0, ended.stderr
        assert json.loads(ended.stdout) == {
            "cat/000.png": "there is no permission to read it",
            "cat/001.png": "used",
            "dog/000.png": "used",
            "dog/001.png": "used",
            "dog/inner": "there is no permission to enter it",
            "locked": "there is no permission to enter it",
        }


def test_linked_classes_are_named_when_too_few_are_left(project: Path, tmp_path: Path) -> None:
    write_images(tmp_path / "store", {"cat": 1, "dog": 1})
    (tmp_path / "images").mkdir()
    for name in ("cat", "dog"):
        (tmp_path / "images" / name).symlink_to(tmp_path / "store" / name)
    ended = run_prepare(project, tmp_path / "images")
    assert ended.returncode == 2
    assert ended.stderr.endswith(
        "found 0; cat: it is a link to a folder, and DVC does not look into it, put the folder "
        "itself there\n"
    )


def test_beside_split_folders_nothing_is_lost_in_silence(project: Path, tmp_path: Path) -> None:
    root = write_splits(tmp_path / "images", ("train", "val", "test"), 10)
    image("PNG")(root / "loose.png")
    (root / "train/notes.txt").write_text("x")
    ended = run_prepare(project, root)
    assert (ended.returncode, len(ended.stderr.splitlines())) == (2, 1)
    assert "loose.png cannot be used: it lies in no class folder" in ended.stderr
    ended = run_prepare(project, root, on_bad="skip")
    assert ended.returncode == 0, ended.stderr
    assert "1 file was left out, by name no sample (.txt: 1)" in ended.stdout
    (root / "val").rename(tmp_path / "val")
    (root / "val").symlink_to(tmp_path / "val")
    ended = run_prepare(project, root)
    assert (ended.returncode, len(ended.stderr.splitlines())) == (2, 1)
    assert "images/val cannot be used: it is a link to a folder, and DVC" in ended.stderr
    (root / "val").unlink()
    (root / "ba\udcff").mkdir()
    ended = run_prepare(project, root)
    assert (ended.returncode, len(ended.stderr.splitlines())) == (2, 1)
    assert "ba\\xff beside the split folders" in ended.stderr


def test_an_image_is_the_same_to_predict(outcome: Outcome, hostile: tuple[Path, set[str]]) -> None:
    """To the bit, whatever the file; and refused by both for the same reason."""
    from src.model.prediction import read_sample
    from src.plumbing.errors import InputError

    meta = json.loads((outcome.prepared / "meta.json").read_text())
    about = {**meta, "input_size": [meta["channels"], meta["size"], meta["size"]]}
    for path in outcome.used:
        again = read_sample(hostile[0] / path, about, path)
        assert np.array_equal(again, outcome.pixels(path)), path
    for path, row in outcome.rejects.items():
        if path.split("/")[-1] in DIFFERENT_NAME.values() or (hostile[0] / path).is_dir():
            continue
        if path == "loose.jpg":  # refused by its place
            continue
        with pytest.raises(InputError) as caught:
            read_sample(hostile[0] / path, about, path)
        assert row["reason"] in str(caught.value)


def test_a_class_that_differs_from_the_others(project: Path, tmp_path: Path) -> None:
    """With one image it cannot be in three splits: refused, or used with a word about it."""
    root = write_images(tmp_path / "images", {"a": 40, "b": 40, "rare": 1})
    ended = run_prepare(project, root)
    assert ended.returncode == 2
    assert "no sample of class 'rare' in split" in ended.stderr
    what = "add samples of 'rare', of which there is 1 for 3 splits, or leave the class out"
    assert what in ended.stderr
    ended = run_prepare(project, root, on_bad="skip")
    if ended.returncode == 0:  # it fell into train: there is something to learn
        assert report(project)["per_class"]["train"]["rare"] == 1
        assert "no sample of class 'rare' is in split val" in ended.stdout
    else:
        assert "no sample of class 'rare' in split train" in ended.stderr
    shutil.rmtree(root / "rare")
    assert run_prepare(project, root).returncode == 0
