"""The table of sources. A new one: a function of the `prepare` params that returns a Source, in a
file of its own, a line here, and its name in src/plumbing/schema.py."""

from collections.abc import Mapping
from typing import Any

from src.preparation.sources import builtin, folder, table, torchvision
from src.preparation.sources.base import Source

SOURCES = {
    "digits": builtin.digits,
    "synthetic": builtin.synthetic,
    "folder": folder.class_folders,
    "csv": table.csv_table,
    "torchvision": torchvision.torchvision_source,
}


def open_source(params: Mapping[str, Any]) -> Source:
    """The source that `prepare.source` names; InputError when it cannot be read."""
    return SOURCES[params["prepare.source"].partition(":")[0]](params)
