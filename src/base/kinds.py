"""The kinds of samples. What knows the kind of a sample stands in one package of src, and in the
table here; everything else takes a sample as a row of an array.

A kind is a package with these modules (`images` is the first; sizes: N samples, K classes):

- catalog: `SOURCES`, by the name that `prepare.source` gives: params -> Source.
- packing: `packer(params)`, which reads items and gives each as a packed row, with what meta.json
  says of the rows; `read_new(sample, description, name, noticed)`, the row of a new sample for
  prediction; `FILES`; `example(description)`.
- quality: `Quality(classes, packer)`, which counts the samples of a data set, has `remarks` on
  them, a line each, and writes what a person should look at before training on it.
- input: `enter(rows, mean, std)`, a batch as the net takes it; `leave`, the way back; `mirror`.
- augment: `augmentation(params)` and `mix(params, K)`, functions of (batch, seed, step).
- grids: `grids_side_by_side(grids, columns)`, rows with captions as PNG, for people.
- baseline: `features(rows)`, what logistic regression gets: float N x F.
- model: what model.json says of the samples, and nets of the kind's own.

Light modules import light ones: `prepare` runs catalog, packing and quality without torch.
"""

from collections.abc import Mapping
from importlib import import_module
from typing import Any

# Package -> what `prepare.source` may name of it. Data that say no kind hold images.
KINDS = {
    "images": (
        "digits",
        "synthetic",
        "folder",
        "csv",
        "parquet",
        "webdataset",
        "torchvision:<Name>",
        "own",
    ),
}


def kind_of(about: Mapping[str, Any]) -> str:
    """The kind of the samples that a meta.json or model.json is about."""
    return about.get("kind", "images")


def kind_part(kind: str, part: str) -> Any:
    """The module `part` of a kind. The deps of a stage count the module of every kind that it
    names here as a constant (src/base/imports.py)."""
    return import_module(f"src.{kind}.{part}")


def kind_with(source: str) -> str:
    """The kind that has a source of this name (`torchvision:MNIST`), as the schema demands."""
    name = source.partition(":")[0]
    return next(
        kind for kind, names in KINDS.items() if name in {n.partition(":")[0] for n in names}
    )
