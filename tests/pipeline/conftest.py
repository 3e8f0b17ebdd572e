"""The repository that each of the slow tests changes at will."""

from pathlib import Path

import pytest

from tests.pipeline.clone import copy_of, shared_clone


@pytest.fixture
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository whose pipeline has run and is committed, with an experiment `higher`
    (lr=0.003)."""
    return copy_of(shared_clone(tmp_path_factory), tmp_path_factory.mktemp("clone") / "project")
