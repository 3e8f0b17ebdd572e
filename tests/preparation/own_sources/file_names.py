from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from src.preparation.sources.own import Sample


def own_source(params: Mapping[str, Any]) -> Iterator[Sample]:
    """Images whose names hold the class, such as `cat_001.png`."""
    for path in Path(params["prepare.path"]).rglob("*.png"):
        yield Sample(path, label=path.stem.rpartition("_")[0])
