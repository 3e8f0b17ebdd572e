"""The types of keys of params.yaml: src/plumbing/schema.py and your own keys are made of them."""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass

INTEGER = re.compile(r"[-+]?[0-9]+")
NUMBER = re.compile(r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?")
LONGEST = 18  # characters of an integer: far above all that is meant, and within 64 bits
NONE = "none"  # how params.yaml spells that something is absent

Single = str | int | float | bool
Value = Single | list[float] | list[str]


@dataclass(frozen=True)
class Key:
    """What a key accepts: `expects` ends the sentence "<key> must be ...", `parse` returns the
    value for a text or None when the text is not acceptable. `choices`: all values, if they can be
    listed. `item`: as `parse`, for each text of a list, where a list is accepted too."""

    expects: str
    parse: Callable[[str], Single | None]
    choices: tuple[str, ...] = ()
    item: Callable[[str], float | str | None] | None = None

    @property
    def many(self) -> bool:
        """Whether a list is accepted too."""
        return self.item is not None


def integer(low: int, high: int | None = None) -> Key:
    def parse(text: str) -> int | None:
        if not INTEGER.fullmatch(text) or len(text) > LONGEST:
            return None
        value = int(text)
        return value if value >= low and (high is None or value <= high) else None

    return Key(f"an integer >= {low}" if high is None else f"an integer in {low}..{high}", parse)


def number(expects: str, accept: Callable[[float], bool]) -> Key:
    def parse(text: str) -> float | None:
        if not NUMBER.fullmatch(text):
            return None
        value = float(text)
        return value if math.isfinite(value) and accept(value) else None

    return Key(f"a number {expects}", parse)


def choice(*choices: str) -> Key:
    expects = "one of " + ", ".join(choices)
    return Key(expects, lambda given: given if given in choices else None, choices)


def text(expects: str, pattern: str = r".+") -> Key:
    return Key(expects, lambda given: given if re.fullmatch(pattern, given) else None)


def or_word(word: str, key: Key) -> Key:
    def parse(text: str) -> Single | None:
        return text if text == word else key.parse(text)

    return Key(f"{word} or {key.expects}", parse, (word,))


def or_names(key: Key, expects: str) -> Key:
    """`key`, or a list of names."""
    return Key(f"{key.expects} or {expects}", key.parse, key.choices, lambda given: given or None)
