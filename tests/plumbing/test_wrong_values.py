"""A wrong value of any key of params.yaml is refused in a line that names the key."""

import re
from pathlib import Path

import pytest

from src.base.imports import ROOT
from src.plumbing import params
from src.plumbing.errors import InputError
from src.plumbing.schema import SCHEMA

WRONG: dict[str, list[str]] = {
    "integer": ["abc", "", "1.5", "-1", "[1]"],
    "number": ["abc", "", ".nan", "-1", "[1]", "true"],
    "choice": ["nonsense", "", "[1]"],
    "text": ["", "[1]"],
}


def kind_of(key: str) -> str:
    expects = SCHEMA[key].expects
    if "integer" in expects:
        return "integer"
    if "number" in expects:
        return "number"
    return "choice" if SCHEMA[key].choices or expects.startswith("one of") else "text"


@pytest.mark.parametrize("key", SCHEMA)
def test_every_wrong_value_is_refused_by_name(tmp_path: Path, key: str) -> None:
    text = (ROOT / "params.yaml").read_text()
    last = key.rpartition(".")[2]
    section = key.partition(".")[0] if "." in key else ""
    for wrong in WRONG[kind_of(key)]:
        if wrong == "[1]" and SCHEMA[key].many:
            continue
        start = text.index(f"\n{section}:") if section else 0
        changed, count = re.subn(
            rf"(?m)^( *){last}:[^#\n]*", rf"\g<1>{last}: {wrong} ", text[start:], count=1
        )
        assert count == 1
        (tmp_path / "params.yaml").write_text(text[:start] + changed)
        with pytest.raises(InputError) as caught:
            params.load(tmp_path)
        assert str(caught.value).startswith(f"params.yaml: {key} must "), wrong
        assert "\n" not in str(caught.value)
