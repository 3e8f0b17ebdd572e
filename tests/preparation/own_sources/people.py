from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from src.preparation.sources.own import Sample


def own_source(params: Mapping[str, Any]) -> Iterator[Sample]:
    """Images in folders of classes in folders of people, who stay in one split each."""
    for path in Path(params["prepare.path"]).glob("*/*/*.png"):
        yield Sample(path, label=path.parent.name, group=path.parent.parent.name)
