"""What the tests of this room share."""

from collections.abc import Callable

import pytest

from tests.conftest import run_main

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """Calls a tool's `main` with arguments: exit code, stdout, stderr."""
    return lambda main, *arguments: run_main(main, arguments, monkeypatch, capsys)
