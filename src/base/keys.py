"""What a key of params.yaml accepts: its type and range."""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass

INTEGER = re.compile(r"[-+]?[0-9]+")


NUMBER = re.compile(r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?")


NONE = "none"  # how params.yaml spells that something is absent


Single = str | int | float | bool


Value = Single | list[float]


@dataclass(frozen=True)
class Key:
    """What a key accepts: `expects` ends the sentence "<key> must be ...", `parse` returns the
    value for a text or None when the text is not acceptable. `choices`: all values, if they can be
    listed. `many`: whether a list of such values is accepted too."""

    expects: str
    parse: Callable[[str], Single | None]
    choices: tuple[str, ...] = ()
    many: bool = False


def _integer(low: int, high: int | None = None) -> Key:
    def parse(text: str) -> int | None:
        if not INTEGER.fullmatch(text) or len(text) > 18:
            return None
        value = int(text)
        return value if value >= low and (high is None or value <= high) else None

    return Key(f"an integer >= {low}" if high is None else f"an integer in {low}..{high}", parse)


def _number(expects: str, accept: Callable[[float], bool]) -> Key:
    def parse(text: str) -> float | None:
        if not NUMBER.fullmatch(text):
            return None
        value = float(text)
        return value if math.isfinite(value) and accept(value) else None

    return Key(f"a number {expects}", parse)


def _choice(*choices: str) -> Key:
    expects = "one of " + ", ".join(choices)
    return Key(expects, lambda text: text if text in choices else None, choices)


def _text(expects: str, pattern: str = r".+") -> Key:
    return Key(expects, lambda text: text if re.fullmatch(pattern, text) else None)


def _or_none(key: Key) -> Key:
    return Key(
        f"{NONE} or {key.expects}", lambda text: text if text == NONE else key.parse(text), (NONE,)
    )
