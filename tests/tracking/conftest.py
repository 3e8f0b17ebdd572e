from pathlib import Path

import pytest

from src.tracking.about import system
from src.tracking.store import store
from tests.tracking.tracked_project import make_tracked_project


@pytest.fixture(autouse=True)
def project(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A tracked project with an empty store, as working directory; no machine samples are taken."""
    monkeypatch.setattr(system, "FIRST", 3600.0)
    return make_tracked_project(tmp_path / "project", tmp_path_factory, monkeypatch)


@pytest.fixture
def one_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """Records and leftovers are those of a store by its name: here all stores have the same."""
    monkeypatch.setattr(store, "name", lambda root: "the store")
