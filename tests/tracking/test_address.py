"""No address that is shown holds a secret."""

import pytest

from src.plumbing.stage import Stage
from src.tracking import run as tracking
from src.tracking.store import address


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("http://127.0.0.1:5000/", "http://127.0.0.1:5000"),
        ("https://me:secret@example.org/team/", "https://example.org/team"),
        ("https://me:se@cret@example.org:8443", "https://example.org:8443"),
        ("http://me:sec ret@example.org", "http://example.org"),
        ("http://me:sec/ret@example.org/team", "http://example.org/team"),
        ("http://me:1/secret@example.org", "http://example.org"),
        ("http://me:sec?ret@example.org", "http://example.org"),
        ("http://me:sec#ret@server:5000", "http://server:5000"),
        ("http://server:5000/?token=sec@ret", "http://server:5000"),
        ("http://[::1]:5000/x?token=secret#part", "http://[::1]:5000/x"),
        ("https://example.org/a@b", "https://example.org/a@b"),
        ("postgresql://me:sec/ret@a:1,b:2/runs?password=secret", "postgresql://a:1,b:2/runs"),
        ("http://john.doe:1/secret@mlflow.example.com:5000", "http://mlflow.example.com:5000"),
        (
            "postgresql://john.doe:1/secret@db.example.com/mlflow",
            "postgresql://db.example.com/mlflow",
        ),
        ("http://john.doe:1?secret@db.example.com/x", "http://db.example.com/x"),
        ("http://me:1/secret@server/x?token=sec@ret", "http://server/x"),
        ("https://to.ken/secret@db.example.com", "https://db.example.com"),
        ("https://me:sec@re.t/x@server/y", "https://server/y"),
        ("http://host/path@v1", "http://host/path@v1"),
        ("sqlite:////a#b@c/runs.db?timeout=5", "sqlite:////a#b@c/runs.db"),
        ("./runs", "./runs"),
        ("databricks", "databricks"),
    ],
)
def test_public_address(uri: str, shown: str) -> None:
    assert address.public(uri) == shown


@pytest.mark.parametrize(
    "uri",
    [
        "http://user:alpha omega@127.0.0.1:9/",
        "http://user:alpha/omega@127.0.0.1:9",
        "http://user:alpha%2Fomega@127.0.0.1:9",
        "http://alpha-omega@127.0.0.1:9",
        "http://127.0.0.1:9/?token=alpha omega",
        "http://127.0.0.1:9/x?a=1&token=alpha%20omega",
        "unknown://me:alpha/omega@127.0.0.1:9/runs",
    ],
)
def test_the_trouble_with_a_server_names_no_secret(
    uri: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with tracking.start(Stage("train")):
        pass
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("tracking: ")
    assert "127.0.0.1" in line
    assert not [part for part in ("alpha", "omega", "user", "token") if part in line.split(";")[0]]


def test_secrets_that_stand_anywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://me:p/w d@example.org?k=quite+secret")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "other pass")
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "a&b&c")
    for text in ("p/w d", "P%2fw%20d", "p%2Fw+d", "quite+secret", "other%20pass", "a%26b%26c"):
        assert address.hide(f"to {text}.") == "to ***."
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:1@host:9")
    assert address.hide("at http://me:1@host:9/x in line 1") == "at http://host:9/x in line 1"
    assert address.hide("at http://a.b:1/secret@host:9/x?") == "at http://host:9/x?"
    assert address.hide("at https://example.org/a@b") == "at https://example.org/a@b"


def test_a_reason_is_one_line_without_statements() -> None:
    error = ValueError("read only\n[SQL: INSERT INTO runs\nVALUES (?)]\n[parameters: ('x',)]")
    assert address.reason(error) == "read only"
    assert address.reason(ValueError()) == "ValueError"
    assert len(address.reason(ValueError("x" * 500))) == address.LENGTH
