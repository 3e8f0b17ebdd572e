"""How a table's text is encoded."""

import codecs
from pathlib import Path

from src.plumbing.errors import InputError

# What a text that is not UTF-8 is shown as, so that its writer recognises the right one.
OTHERS = ("cp1251", "cp1252", "gb18030", "shift_jis")


def encoding_of(path: Path, wanted: str) -> str:
    """The encoding of a file: as `wanted`, or with `auto` by its byte-order mark, or UTF-8.
    InputError when the file cannot be read so."""
    with open(path, "rb") as file:
        start = file.read(4)
    utf16 = start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    encoding = wanted
    if wanted == "auto":
        encoding = "utf-16" if utf16 else "utf-8"
    try:
        if codecs.lookup(encoding).name == "utf-8":
            encoding = "utf-8-sig"  # the same, and leaves out a byte-order mark
        with open(path, encoding=encoding, newline="") as text:
            while text.read(2**20):
                pass
    except LookupError:
        raise InputError(
            f"params.yaml: prepare.csv_encoding {wanted} is no encoding: set auto, utf-8, cp1251"
        ) from None
    except UnicodeError as error:
        if utf16 and codecs.lookup(encoding).name == "utf-16":
            reason = error.reason if isinstance(error, UnicodeDecodeError) else error
            raise InputError(
                f"{path} is UTF-16 by its first bytes and is cut short or damaged ({reason}): "
                "copy it again"
            ) from None
        if wanted != "auto":
            raise InputError(f"{path} is not written in {wanted} (prepare.csv_encoding)") from None
        raise InputError(
            f"{path} is not UTF-8: set prepare.csv_encoding to the one that reads right: "
            + _as_others_read_it(path)
        ) from None
    return encoding


def _as_others_read_it(path: Path) -> str:
    with open(path, "rb") as file:
        odd = next(line for line in file if not line.isascii())[:60].strip()
    return ", ".join(f"{name} '{odd.decode(name, 'replace')}'" for name in OTHERS)
