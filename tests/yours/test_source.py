"""What `own_source` must keep, whatever it yields. `prepare` itself checks each sample: texts that
are not empty, known splits, names that differ, what pickles, files in `prepare.path`."""

import os
import sys
import tempfile
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from src.base.imports import ROOT
from src.images.catalog import own_images
from src.images.packing import packer
from src.plumbing import params
from src.plumbing.errors import InputError
from src.preparation.sources.base import Item, Rejected, Source

PARAMS: dict[str, Any] = params.load(ROOT)
FIRST = 100  # samples that are read (choice)
# Where Python, its packages and the system have files, which are no data.
PYTHON = ["src", sys.prefix, sys.base_prefix, tempfile.gettempdir()]
NO_DATA = [*PYTHON, "/usr", "/etc", "/proc", "/dev", "/sys"]

_opened: list[str] | None = None


def _note(event: str, arguments: tuple[Any, ...]) -> None:
    if _opened is not None and event == "open" and isinstance(arguments[0], str | os.PathLike):
        _opened.append(os.path.realpath(arguments[0]))


sys.addaudithook(_note)  # there is no way to take it off again


@pytest.fixture(autouse=True)
def in_the_project(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    if not os.path.exists(PARAMS["prepare.path"]):
        pytest.skip(f"prepare.path {PARAMS['prepare.path']} is not here")


def source() -> Source:
    """What `prepare` takes of own_source; params.yaml may leave its files to an experiment."""
    try:
        return own_images(PARAMS)
    except InputError as error:
        if PARAMS["prepare.source"] != "own":
            pytest.skip(
                f"prepare.source is not own, and prepare.path as it is does not do: {error}"
            )
        raise


def described(item: Item) -> tuple[str, int, str | None, str | None]:
    return item.name, item.label, item.split, item.group


def test_prepare_takes_each_sample_and_can_read_the_first_ones() -> None:
    found = source()
    items = list(found.items)
    assert len(items) == found.total
    read = packer(PARAMS)(items[:FIRST])
    unusable = [
        f"{item.name}: {result.reason} {result.detail}"
        for item, result in zip(items, read, strict=False)
        if isinstance(result, Rejected)
    ]
    assert not unusable or PARAMS["prepare.on_bad"] == "skip", unusable[:3]


def test_two_calls_give_the_same_samples() -> None:
    first, second = source(), source()
    assert (first.classes, first.given) == (second.classes, second.given)
    ones, others = list(first.items), list(second.items)
    assert [described(item) for item in ones] == [described(item) for item in others]
    read = packer(PARAMS)
    for one, other in zip(read(ones[:FIRST]), read(others[:FIRST]), strict=True):
        assert getattr(one, "sha256", one) == getattr(other, "sha256", other)


def test_it_reads_no_file_that_dvc_does_not_watch() -> None:
    """An edit of a file that does not lie in `prepare.path` would not run `prepare` again."""
    global _opened
    source()  # imports what it needs
    _opened = []
    try:
        packer(PARAMS)(list(islice(source().items, FIRST)))
    finally:
        opened, _opened = _opened, None
    watched = [os.path.realpath(path) for path in (PARAMS["prepare.path"], *NO_DATA)]
    others = [path for path in opened if not any(Path(path).is_relative_to(w) for w in watched)]
    assert not others, f"{others[0]} does not lie in prepare.path ({PARAMS['prepare.path']})"
