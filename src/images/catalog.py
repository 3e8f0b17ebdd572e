"""The table of the sources of images. A new one: a function of the params that returns a Source, in
a file of its own, a line here, and its name in src/base/kinds.py."""

from collections.abc import Mapping
from functools import partial
from typing import Any

from src.images.packing import FILES, OwnImage
from src.images.sources import builtin, torchvision
from src.preparation.sources.base import Source
from src.preparation.sources.folder import class_folders
from src.preparation.sources.own import own_samples
from src.preparation.sources.parquet import parquet_tables
from src.preparation.sources.table import csv_table
from src.preparation.sources.webdataset import shards


def own_images(params: Mapping[str, Any]) -> Source:
    """The images of src/yours/source.py."""

    def load() -> Any:  # here alone: it may import much, and be broken where nobody uses it
        from src.yours import source as yours

        return getattr(yours, "own_source", None)

    return own_samples(params, load, FILES, OwnImage)


SOURCES = {
    "digits": builtin.digits,
    "synthetic": builtin.synthetic,
    "folder": partial(class_folders, files=FILES),
    "csv": partial(csv_table, files=FILES),
    "parquet": partial(parquet_tables, files=FILES),
    "webdataset": partial(shards, files=FILES),
    "torchvision": torchvision.torchvision_source,
    "own": own_images,
}
