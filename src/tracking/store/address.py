"""What of the tracker's addresses may be shown: never a user, a password, a token or a query."""

import os
import re
from collections.abc import Iterator
from urllib.parse import quote, quote_plus, unquote

LENGTH = 200  # characters of a reason on stderr
SHORTEST = 4  # a shorter secret is hidden within its address only: it may be part of any word
SECRETS = ("MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN")

_NAME = r"(\[[0-9a-fA-F:.]+\]|[\w.~-]*)(:\d*)?"
_HOSTS = re.compile(rf"{_NAME}(,{_NAME})*")  # PostgreSQL takes several
_CERTAIN_HOST = re.compile(r"(localhost|\[[0-9a-fA-F:.]+\]|[\w-]+(\.[\w-]+)+)(:\d*)?")
_PAIR = re.compile(r"[\w.-]+=")  # of a query


def split(uri: str) -> tuple[str, str, str, str]:
    """Scheme, user with password, host with path, and query of an address, empty if it has none;
    also where a password has a `/`, `?` or `#` that should have been encoded."""
    scheme, found, rest = uri.partition("://")
    if not found:
        return "", "", uri, ""
    if rest.startswith("/"):  # a file; a `#` is part of its name
        path, _, query = rest.partition("?")
        return scheme, "", path, query
    place = re.split(r"[?#]", rest, maxsplit=1)[0]
    if "@" in rest[len(place) :] and not _PAIR.match(rest, len(place) + 1):
        place = rest  # a password with a `?` or `#`
    authority, _, path = place.partition("/")
    user, at, host = authority.rpartition("@")
    end = place.rpartition("@")[2].partition("/")[0]
    # In doubt what stands before the last `@` is hidden: a password may begin like a port.
    if not _HOSTS.fullmatch(host) or (
        "@" in path and (at or ":" in authority or _CERTAIN_HOST.fullmatch(end))
    ):
        user, at, _ = (place if "@" in place else rest).rpartition("@")
    rest = rest[len(user) + len(at) :]
    place = re.split(r"[?#]", rest, maxsplit=1)[0]
    return scheme, user, place, rest[len(place) + 1 :]


def public(uri: str) -> str:
    """The address without user, password and query, and without a slash at the end."""
    scheme, _, place, _ = split(uri)
    return f"{scheme}://{place}".rstrip("/") if scheme else place.rpartition("@")[2]


def hide(text: str) -> str:
    """`text` without the secrets of the environment and without the users in its addresses."""
    for secret, shown in sorted(_secrets(), key=lambda pair: -len(pair[0])):
        plain = unquote(secret)
        # MLflow shows them as they were given, requests as it encodes them.
        forms = {secret, plain, quote_plus(secret), quote_plus(plain)}
        forms |= {
            quote(form, safe=safe) for form in (secret, plain) for safe in ("/", "", "/:@?=&")
        }
        for form in sorted(forms, key=len, reverse=True):
            text = re.sub(re.escape(form), shown.replace("\\", r"\\"), text, flags=re.I)
    return re.sub(r"://\S*@\S*", lambda found: _without_user(found[0]), text)


def _without_user(uri: str) -> str:
    user = split(uri)[1]
    return uri.replace(f"{user}@", "", 1) if user else uri


def _secrets() -> Iterator[tuple[str, str]]:
    """Each text of the environment that must not be shown, with what stands in its place."""
    uri = os.environ.get("MLFLOW_TRACKING_URI", "")
    _, user, _, query = split(uri)
    if user or query:
        yield uri, public(uri)
        yield uri.rstrip("/"), public(uri)
    values = [os.environ.get(name, "") for name in SECRETS]
    if user:
        yield f"{user}@", ""
        values.append(user.partition(":")[2] or user)
    if query:
        yield f"?{query}", ""
        values += [pair.partition("=")[2] or pair for pair in re.split(r"[&;#]", query)]
    for value in values:
        if len(value) >= SHORTEST:
            yield value, "***"


def reason(error: BaseException) -> str:
    """The error in one line that may be shown."""
    text = re.sub(r"\[SQL: .*", "", hide(str(error)), flags=re.S)  # statements and their values
    line = " ".join(text.split()) or type(error).__name__
    return line if len(line) <= LENGTH else line[: LENGTH - 1] + "…"
