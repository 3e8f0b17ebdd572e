from pathlib import Path

import pytest

from tests.pipeline.clone import copy_of, shared_clone


@pytest.fixture
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository whose pipeline has run and is committed; experiment `higher` has lr=0.003."""
    return copy_of(shared_clone(tmp_path_factory), tmp_path_factory.mktemp("clone") / "project")
