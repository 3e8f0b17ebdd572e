"""What the processes of a test run make once and all use."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from filelock import FileLock


@contextmanager
def once_for_all(name: str, factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder that all test processes see, one at a time; the first one fills it."""
    base = factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / name
    with FileLock(f"{folder}.lock"):
        folder.mkdir(exist_ok=True)
        yield folder
