import csv
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from src.preparation.sources.own import Sample


def own_source(params: Mapping[str, Any]) -> Iterator[Sample]:
    """A table of paths, with a class, a site whose images belong together, and perhaps a split."""
    folder = Path(params["prepare.path"])
    with open(folder / "photos.csv", encoding="utf-8", newline="") as table:
        for row in csv.DictReader(table):
            yield Sample(folder / row["file"], row["species"], row["split"] or None, row["site"])
