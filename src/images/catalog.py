"""The table of the sources of images. A new one: a function of the params that returns a Source, in
a file of its own, a line here, and its name in src/base/kinds.py."""

from functools import partial

from src.images.packing import FILES
from src.images.sources import builtin, torchvision
from src.preparation.sources.folder import class_folders
from src.preparation.sources.table import csv_table

SOURCES = {
    "digits": builtin.digits,
    "synthetic": builtin.synthetic,
    "folder": partial(class_folders, files=FILES),
    "csv": partial(csv_table, files=FILES),
    "torchvision": torchvision.torchvision_source,
}
