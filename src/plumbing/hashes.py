"""The md5 of a file or folder, as DVC writes it: of data, splits, models, code."""

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path

# What .dvcignore leaves out of any folder: neither data nor code.
LEFT_OUT = re.compile(r"__pycache__|\.ipynb_checkpoints|.*\.pyc|\..*\.sw.|.*~|\.DS_Store")


def md5_of(path: Path | str) -> str:
    """The md5 that DVC writes for a file, or for a folder (`<md5 of its listing>.dir`)."""
    path = Path(path)
    if not path.is_dir():
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "md5").hexdigest()
    below = files_below(path)
    return md5_of_folder({item.relative_to(path).as_posix(): md5_of(item) for item in below})


def md5_of_folder(files: Mapping[str, str]) -> str:
    """The md5 that DVC writes for a folder; `files`: the md5 of each file by its path in it."""
    # Sorted as DVC sorts it before it hashes the listing.
    listing = [{"md5": files[name], "relpath": name} for name in sorted(files)]
    return hashlib.md5(json.dumps(listing, sort_keys=True).encode("utf-8")).hexdigest() + ".dir"


def files_below(folder: Path) -> list[Path]:
    """The files that DVC counts as part of a folder, in no particular order: all but what
    .dvcignore leaves out."""
    return [
        item
        for item in folder.rglob("*")
        if item.is_file() and not any(map(LEFT_OUT.fullmatch, item.relative_to(folder).parts))
    ]
