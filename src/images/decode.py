"""Bytes into an upright image, or the reason why they hold none; value_range.py makes 8 bits of it.

The one place where that is decided, for training and for prediction. Facts of Pillow behind it:
`verify()` passes a JPEG that is cut in half, only `load()` finds out, and a second try on the same
object may give black pixels; `convert("RGB")` makes 16-bit images white and float ones black;
of 16-bit colours it keeps the upper 8; broken files raise any type of exception.
"""

import io
import os
import re
import stat
import warnings
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image

from src.images.libtiff import messages_of_libtiff
from src.preparation.sources.base import BadSample

# With the endings by which files in a folder are taken for images; what they are, their content
# says. TGA has no mark of its own, so it comes last. Not Pillow's other ones: they are rare as
# samples, EPS starts a foreign program, and a Photoshop file saved without its merged layers shows
# white.
READ = {
    "JPEG": ".jpg .jpeg .jpe .jfif .mpo",
    "PNG": ".png .apng",
    "GIF": ".gif",
    "BMP": ".bmp",
    "DIB": ".dib",
    "WEBP": ".webp",
    "AVIF": ".avif .avifs",
    "TIFF": ".tif .tiff",
    "JPEG2000": ".jp2 .j2k .j2c .jpc .jpf .jpx",
    "PPM": ".ppm .pgm .pbm .pnm .pfm",
    "ICO": ".ico",
    "PCX": ".pcx",
    "QOI": ".qoi",
    "SGI": ".sgi .rgb .rgba .bw",
    "DDS": ".dds",
    "TGA": ".tga .icb .vda .vst",
}
# Images too, which are refused by their ending: many camera raws and slides are TIFF files inside,
# and Pillow would take the preview in them for the image.
UNREAD = {
    "HEIC": ".heic .heif .hif",
    "JPEG XL": ".jxl",
    "JPEG XR": ".jxr .wdp .hdp",
    "DICOM": ".dcm .dicom",
    "camera raw": ".3fr .arw .cr2 .cr3 .crw .dcr .dng .erf .iiq .kdc .mef .mrw .nef .nrw .orf .pef "
    ".raf .raw .rw2 .rwl .sr2 .srf .srw .x3f",
    "microscope": ".svs .ndpi .scn .mrxs .czi .lif .nd2 .vsi",
    "OpenEXR": ".exr",
    "Radiance HDR": ".hdr",
    "FITS": ".fits .fit",
    "Photoshop": ".psd .psb",
    "GIMP": ".xcf",
    "vector": ".svg .svgz .eps .emf .wmf .ai",
    "DjVu": ".djvu",
    "icon": ".icns .cur",
    "bitmap": ".xbm .xpm .ras .msp .im .pcd .dcx .gbr .pxr .blp .ftc .ftu .fli .flc",
}
_UNREAD_AS = {ending: form for form, endings in UNREAD.items() for ending in endings.split()}
SUFFIXES = (*" ".join(READ.values()).split(), *_UNREAD_AS)
MOST_PIXELS = 89_478_485  # pixels: Pillow's limit for a decompression bomb, a quarter GB as RGB
LONGEST_SIDE = 65_535  # pixels, of JPEG: what Pillow needs to reduce a side grows with it
LARGEST_FILE = 2**30  # bytes; such an image, with 16 bits in 4 channels, takes less (choice)
# What the EXIF orientation asks for (EXIF 2.3, tag 0x0112).
ORIENTATION = 0x0112
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# What the header of a HEIC file says (ISO/IEC 23008-12): phones and messengers also call it .jpg.
HEIC_BRANDS = (b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1")
# An image is in colour if in more than this share of 32 x 32 points the channels lie further apart,
# in levels of 255. Grey ones saved as colour JPEG differ by 0; a tint or a mark is none. (choice)
COLOUR_LEVELS, COLOUR_SHARE = 32, 0.01
GET_AGAIN = "get it again from where it came, or remove it"
# Grey levels of 255 between the darkest and the brightest pixel, below which a transparent image
# shows nothing on white. (choice)
FAINT = 16


@dataclass(frozen=True)
class Upright:
    """`image`: upright, in mode L or RGB, or of wider values in one of Pillow's modes I and F. What
    it was: `mode` (Pillow's), `turned` by its EXIF tag, the number of its `frames`, of which this
    is the first. `narrowed`: Pillow kept the upper 8 of 16 bits. `ground`: what transparent parts
    were put on: white; black, where they show nothing on white (white letters); none, where all is
    transparent, so that the colours are taken as they are."""

    image: Image.Image
    mode: str
    turned: bool = False
    frames: int = 1
    narrowed: bool = False
    ground: str = "white"

    @classmethod
    def of(cls, image: Image.Image) -> "Upright":
        """An image of Pillow in any mode; BadSample when it cannot be converted."""
        turn = _turn(image)
        try:
            upright, ground = _opaque(image if turn is None else image.transpose(turn))
        except MemoryError:
            raise
        except Exception as error:
            reason = f"its mode {image.mode} cannot be converted"
            raise BadSample(reason, "save it as RGB or grey", _text(error)) from None
        return cls(upright, image.mode, turn is not None, ground=ground)


def is_coloured(image: Image.Image) -> bool:
    """Whether an image (mode L or RGB) shows colour: grey ones are often saved as RGB."""
    if image.mode != "RGB":
        return False
    points = np.asarray(image.resize((32, 32), Image.Resampling.NEAREST))
    apart = points.max(axis=2).astype(np.int16) - points.min(axis=2)
    return bool((apart > COLOUR_LEVELS).mean() > COLOUR_SHARE)


def read_content(path: str | os.PathLike[str]) -> bytes:
    """The bytes of a file; BadSample when it is missing, unreadable, empty, huge, no file, or of a
    format, by its ending, that is not read."""
    form = _UNREAD_AS.get(os.path.splitext(path)[1].lower())
    try:
        found = os.stat(path)
        if not stat.S_ISREG(found.st_mode):  # opening a named pipe would wait for ever
            kind = "a folder" if stat.S_ISDIR(found.st_mode) else "a pipe, socket or device"
            raise BadSample("it is no file", "remove it", kind)
        if form:
            raise _not_read(form)
        if found.st_size > LARGEST_FILE:
            raise BadSample("it is larger than 1 GiB", "save it smaller, or remove it")
        with open(path, "rb") as file:
            content = file.read()
    except FileNotFoundError:
        if os.path.islink(path):
            raise BadSample("it is a link that leads nowhere", "mend or remove the link") from None
        raise BadSample("it does not exist", "correct its path, or put it there") from None
    except PermissionError:
        raise BadSample("there is no permission to read it", "`chmod u+r` it") from None
    except OSError as error:
        if os.path.islink(path):
            raise BadSample("it is a link that leads back to itself", "remove the link") from None
        raise BadSample("it cannot be read", GET_AGAIN, error.strerror or "") from None
    if not content:
        raise BadSample("it is empty", GET_AGAIN)
    return content


def decode(content: bytes) -> Upright:
    """The first frame, upright, transparency on white; BadSample if missing or cut off."""
    with warnings.catch_warnings():
        # Each is decided here: too many pixels are refused below, and what is wrong only beside the
        # pixels (EXIF, a palette's transparency) does not matter.
        warnings.simplefilter("ignore")
        image, turned, narrowed = _load(content)
        found = Upright.of(image)
        turned |= found.turned
        return replace(found, turned=turned, frames=_frames(image), narrowed=narrowed)


def _load(content: bytes) -> tuple[Image.Image, bool, bool]:
    """The first frame, whether Pillow turned it, and whether it kept half of its bits."""
    said: list[str] = []  # by libtiff
    try:
        image = Image.open(io.BytesIO(content), formats=tuple(READ))
        if image.width * image.height > MOST_PIXELS:
            raise Image.DecompressionBombError(f"{image.width} x {image.height}")
        if max(image.size) > LONGEST_SIDE:
            detail = f"{image.width} x {image.height}, at most {LONGEST_SIDE} pixels"
            raise BadSample("one of its sides is too long", "save it smaller", detail)
        # Pillow turns these itself as it loads them, and then says nothing of it.
        turned = image.format == "TIFF" and _turn(image) is not None
        wide = any(";16" in str(tile[3]) for tile in image.tile)
        with messages_of_libtiff(said):
            image.load()
    except Image.DecompressionBombError as error:
        size = re.search(r"\d+ x \d+|\d+ pixels", str(error))
        detail = f"{size[0] if size else error}, at most {MOST_PIXELS} pixels"
        raise BadSample("it has too many pixels", "save it smaller", detail) from None
    except Image.UnidentifiedImageError:
        raise _no_image(content) from None
    except (BadSample, MemoryError):  # the second is the machine's limit, not the image's fault
        raise
    except Exception as error:  # broken files raise many types, not all OSError
        detail = said[0] if said else _text(error)
        raise BadSample("it is cut short or damaged", GET_AGAIN, detail) from None
    return image, turned, wide and image.mode[0] not in "IF"


def _not_read(form: str) -> BadSample:
    return BadSample(f"{form} images are not read", "save it as PNG or JPEG, or remove it")


def _no_image(content: bytes) -> BadSample:
    if not content:
        return BadSample("it is empty", GET_AGAIN)
    if content[4:8] == b"ftyp" and content[8:12] in HEIC_BRANDS:
        return _not_read("HEIC")
    start = content[:200].lstrip().lower()
    if start.startswith(b"version https://git-lfs"):
        return BadSample("it is a pointer of git LFS", "fetch the file with `git lfs pull`")
    if start.startswith((b"<!doctype html", b"<html")):
        return BadSample("it is a web page", "download the image again, or remove the file")
    return BadSample(
        "it holds no image, or not in a format that is read here",
        "save it as PNG or JPEG, or remove it",
    )


def _text(error: Exception) -> str:
    # Pillow names the file object, which says nothing and differs from run to run.
    text = re.sub(r" ?<_io\.BytesIO[^>]*>", "", " ".join(str(error).split()))
    return text[:200] or type(error).__name__


def _turn(image: Image.Image) -> Image.Transpose | None:
    try:
        return TURNS.get(image.getexif().get(ORIENTATION, 1))
    except Exception:  # a broken EXIF block says nothing of the pixels
        return None


def _frames(image: Image.Image) -> int:
    if image.format == "MPO":  # a photo with a small preview of itself
        return 1
    try:
        return int(getattr(image, "n_frames", 1))
    except Exception:  # the frames behind the first one are damaged, and are not used
        return 2


def _opaque(image: Image.Image) -> tuple[Image.Image, str]:
    """`image` in mode L or RGB, or as it is where its values are wider; and what its transparent
    parts were put on: see `Upright.ground`."""
    if image.mode in ("L", "RGB") and "transparency" not in image.info:
        return image, "white"
    if image.mode[0] in "IF":
        return image, "white"
    if not image.has_transparency_data:
        return image.convert("L" if image.mode == "1" else "RGB"), "white"
    image = image.convert("RGBA")
    if not image.getchannel("A").getbbox():
        return image.convert("RGB"), "none"
    on_white = _on("white", image)
    if _contrast(on_white) < FAINT <= _contrast(on_black := _on("black", image)):
        return on_black, "black"
    return on_white, "white"


def _on(ground: str, image: Image.Image) -> Image.Image:
    return Image.alpha_composite(Image.new("RGBA", image.size, ground), image).convert("RGB")


def _contrast(image: Image.Image) -> int:
    """Between the darkest and the brightest pixel of the channel that varies most."""
    return int(np.ptp(np.array(image.getextrema()), axis=1).max())
