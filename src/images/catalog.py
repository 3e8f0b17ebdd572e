"""The table of the sources of images. A new one: a function of the params that returns a Source, in
a file of its own, a line here, and its name in src/base/kinds.py."""

from collections.abc import Mapping
from typing import Any

from src.images.packing import FILES
from src.images.sources import builtin, torchvision
from src.preparation.sources.base import Source
from src.preparation.sources.folder import class_folders
from src.preparation.sources.table import csv_table


def _folder(params: Mapping[str, Any]) -> Source:
    return class_folders(params, FILES)


def _csv(params: Mapping[str, Any]) -> Source:
    return csv_table(params, FILES)


SOURCES = {
    "digits": builtin.digits,
    "synthetic": builtin.synthetic,
    "folder": _folder,
    "csv": _csv,
    "torchvision": torchvision.torchvision_source,
}
